"""ISO images: read back by others' eyes, made alike each time, and changed without harm to the boot."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from components.media import iso as module
from components.media.iso import Iso, NotMade, WrongMedium, make, remaster
from tests.support import standins

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.media.conftest import Media

FILES: dict[str, bytes | Path] = {
    "/KS.CFG": b"vmaccepteula\n",
    "/a/deep/file name.txt": b"\0\xff" * 5000,
}


@pytest.fixture(autouse=True)
def _programs() -> None:
    standins.needs("xorriso", "genisoimage")


def seen(image: Path, *arguments: str) -> str:
    """What another program sees in an image."""
    done = subprocess.run(
        ["isoinfo", "-i", str(image), *arguments], capture_output=True, timeout=60, check=True
    )
    return done.stdout.decode("latin-1")


def eltorito(image: Path) -> list[list[str]]:
    """The boot images as xorriso reports them: platform, load size, and which sector."""
    done = subprocess.run(
        ["xorriso", "-indev", str(image), "-report_el_torito", "plain"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line.split() for line in done.stdout.splitlines() if "boot img :" in line]
    return [[words[6], *words[11:13]] for words in lines]


def test_a_made_cd_is_read_by_rock_ridge_and_by_joliet(tmp_path: Path) -> None:
    image = tmp_path / "a.iso"
    make(FILES, "nestlab", image)
    for tree in ("-R", "-J"):
        assert seen(image, tree, "-x", "/KS.CFG") == "vmaccepteula\n"
        assert (
            seen(image, tree, "-x", "/a/deep/file name.txt").encode("latin-1") == b"\0\xff" * 5000
        )
    assert "Volume id: nestlab\n" in seen(image, "-d")


def test_a_made_cd_reads_back_as_it_was_told(tmp_path: Path) -> None:
    make(FILES, "nestlab", tmp_path / "a.iso")
    read = Iso(tmp_path / "a.iso")
    assert {name: read.read(name) for name in read.files()} == FILES
    assert (read.volume_id, read.boots()) == ("nestlab", frozenset())


def test_a_made_cd_is_its_owners_alone_and_nothing_else_stays(tmp_path: Path) -> None:
    make(FILES, "nestlab", tmp_path / "cd" / "a.iso")
    assert (tmp_path / "cd" / "a.iso").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "cd") == ["a.iso"]  # noqa: PTH208 - the names are the point


def test_a_big_file_is_put_on_a_cd_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "VMware-Workstation.bundle").write_bytes(b"bundle")
    make({"/W.bundle": tmp_path / "VMware-Workstation.bundle"}, "nestlab-tools", tmp_path / "a.iso")
    assert Iso(tmp_path / "a.iso").read("/W.bundle") == b"bundle"


@pytest.mark.parametrize("label", ["", "seventeen letters", "é"])
def test_a_label_that_not_every_reader_sees_whole_is_refused(label: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label"):
        make(FILES, label, tmp_path / "a.iso")


@pytest.mark.parametrize("name", ["KS.CFG", "/", "/../etc/passwd"])
def test_a_name_that_is_no_path_in_the_cd_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        make({name: b""}, "nestlab", tmp_path / "a.iso")
    assert not (tmp_path / "a.iso").exists()


def test_a_failed_making_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(FILES, "nestlab", tmp_path / "a.iso")
    before = (tmp_path / "a.iso").read_bytes()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotMade, match="install the package xorriso"):
        make({"/other": b""}, "nestlab", tmp_path / "a.iso")
    assert (tmp_path / "a.iso").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.iso"]  # noqa: PTH208


def test_what_xorriso_says_is_in_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "xorriso"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'libburn : FATAL : No space left on device' >&2\nexit 5\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(NotMade, match="No space left on device"):
        make(FILES, "nestlab", tmp_path / "a.iso")


def test_the_same_input_gives_the_same_bytes_at_another_time_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Media
) -> None:
    source = media["proxmox"]
    results = []
    for place, zone, mask in (("one", "UTC", 0o022), ("another/folder", "Asia/Tokyo", 0o077)):
        began = time.time()
        monkeypatch.setenv("TZ", zone)
        old = os.umask(mask)
        try:
            folder = tmp_path / place
            make(FILES, "nestlab", folder / "answers.iso")
            remaster(source, {"/new.toml": b"x", "/boot/linux26": b"y"}, (), folder / "new.iso")
        finally:
            os.umask(old)
        results.append([(folder / name).read_bytes() for name in ("answers.iso", "new.iso")])
        # A second apart, so that no clock's reading can be the same.
        threading.Event().wait(max(0.0, began + 1.1 - time.time()))
    assert results[0][0] == results[1][0]
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("kind", ["esxi", "proxmox", "xenserver"])
def test_a_remaster_keeps_every_other_file_and_every_boot_record(
    kind: str, tmp_path: Path, media: Media
) -> None:
    source = media[kind]
    old = Iso(source)
    gone = next(
        name for name in sorted(old.files()) if name.lower().endswith((".deb", ".tgz", ".rpm"))
    )
    changed = next(name for name in sorted(old.files()) if name.lower().endswith(".cfg"))
    remaster(source, {changed: b"changed", "/ADDED.TXT": b"added"}, [gone], tmp_path / "new.iso")
    new = Iso(tmp_path / "new.iso")
    assert new.files() == (old.files() - {gone}) | {"/ADDED.TXT"}
    for name in new.files() - {changed, "/ADDED.TXT"}:
        assert new.read(name) == old.read(name), name
    assert (new.read(changed), new.read("/ADDED.TXT")) == (b"changed", b"added")
    assert new.boots() == {"bios", "uefi"}
    assert eltorito(tmp_path / "new.iso") == eltorito(source)
    kept = ("volume_id", "joliet", "rock_ridge", "created", "modified")
    assert [getattr(new, key) for key in kept] == [getattr(old, key) for key in kept]


def test_a_remaster_is_for_every_lab_to_read(tmp_path: Path, media: Media) -> None:
    remaster(media["debian"], {"/x": b""}, (), tmp_path / "new.iso")
    assert (tmp_path / "new.iso").stat().st_mode & 0o777 == 0o644


def test_names_that_esxi_reads_without_rock_ridge_stay_upper_case(
    tmp_path: Path, media: Media
) -> None:
    remaster(media["esxi"], {"/BOOT.CFG": b"changed"}, (), tmp_path / "new.iso")
    assert seen(tmp_path / "new.iso", "-x", "/BOOT.CFG;1") == "changed"
    assert "Rock Ridge signatures" not in seen(tmp_path / "new.iso", "-d")


def test_another_uefi_image_takes_the_place_of_the_first(tmp_path: Path, media: Media) -> None:
    source = media["hyperv"]
    name = "/efi/microsoft/boot/efisys_noprompt.bin"
    remaster(source, {}, ["/boot/bootfix.bin"], tmp_path / "new.iso", uefi_image=name)
    bios, uefi = eltorito(tmp_path / "new.iso")
    assert bios == eltorito(source)[0]
    at = int(uefi[2]) * module.SECTOR
    image = (tmp_path / "new.iso").read_bytes()[at:]
    assert image.startswith(Iso(source).read(name)), "what UEFI loads is the image without a prompt"
    new = Iso(tmp_path / "new.iso")
    assert new.files() == Iso(source).files() - {"/boot/bootfix.bin"}
    same = zip(source.read_bytes(), (tmp_path / "new.iso").read_bytes(), strict=True)
    assert sum(old != changed for old, changed in same) < 12, "a few bytes of gigabytes"


def test_in_iso_9660_too_another_uefi_image_can_be_booted(tmp_path: Path, media: Media) -> None:
    source = media["esxi"]
    other = standins.fat_image("other").ljust(1474560, b"\0")
    remaster(source, {"/OTHER.IMG": other}, (), tmp_path / "new.iso", uefi_image="/EFIBOOT.IMG")
    assert eltorito(tmp_path / "new.iso") == eltorito(source)
    remaster(tmp_path / "new.iso", {}, (), tmp_path / "newer.iso", uefi_image="/OTHER.IMG")
    at = int(eltorito(tmp_path / "newer.iso")[1][2]) * module.SECTOR
    assert (tmp_path / "newer.iso").read_bytes()[at:].startswith(other)


def test_a_uefi_image_for_a_medium_without_uefi_is_refused(tmp_path: Path, media: Media) -> None:
    name = "/isolinux/isolinux.bin"
    with pytest.raises(WrongMedium, match="no boot image for UEFI"):
        remaster(media["debian"], {}, (), tmp_path / "new.iso", uefi_image=name)


def test_what_shall_be_removed_must_be_there(tmp_path: Path, media: Media) -> None:
    with pytest.raises(WrongMedium, match="has no /nothing"):
        remaster(media["debian"], {}, ["/nothing"], tmp_path / "new.iso")
    assert not (tmp_path / "new.iso").exists()


def test_windows_media_are_read_from_their_udf_not_from_the_note_beside_it(media: Media) -> None:
    source = media["hyperv"]
    tree = source.parent / "windows"
    told = {f"/{file.relative_to(tree)}": file for file in tree.rglob("*") if file.is_file()}
    read = Iso(source)
    assert read.files() - {"/boot.cat"} == told.keys(), "60 names with an umlaut among them"
    assert all(read.read(name) == file.read_bytes() for name, file in told.items())
    assert read.find("/SOURCES/BOOT.WIM") == "/sources/boot.wim"
    assert "/README.TXT" in seen(source, "-f")
    assert "BOOT.WIM" not in seen(source, "-f")


def test_damaged_udf_is_refused_and_not_believed(tmp_path: Path, media: Media) -> None:
    source = tmp_path / "windows.iso"
    data = bytearray(media["hyperv"].read_bytes())
    at = data.index("länge 1.man".encode("latin-1"))
    data[at] ^= 1
    source.write_bytes(data)
    with pytest.raises(WrongMedium, match=r"SSS_X64FREE.*damaged"):
        Iso(source).files()


@pytest.mark.parametrize("kind", standins.MAKERS)
def test_a_medium_that_is_cut_short_says_how_much_of_it_there_is(
    kind: str, tmp_path: Path, media: Media
) -> None:
    whole = media[kind]
    with pytest.raises(WrongMedium) as refused:
        Iso(standins.cut(whole, tmp_path / "cut.iso")).files()
    size = whole.stat().st_size
    assert f"{size * 2 // 3 / 1e6:.1f} MB of the" in str(refused.value)
    assert repr(Iso(whole).volume_id) in str(refused.value)
    assert "get the file again" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"QFI\xfb" + bytes(600), "a qcow2 image"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x1f\x8b\x08" + bytes(100), "a gzip archive"),
        (bytes(510) + b"\x55\xaa" + bytes(1 << 20), "a disk image of 1.0 MB"),
        (b"hello world" * 9, "no ISO: 0.0 MB of something else"),
        (bytes(16 * 2048) + b"\x01CD001" + bytes(10), "no ISO"),
    ],
)
def test_what_is_no_iso_is_called_what_it_is(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "x.iso").write_bytes(content)
    with pytest.raises(WrongMedium) as refused:
        Iso(tmp_path / "x.iso")
    assert what in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["missing.iso", "."])
def test_what_can_not_be_read_is_said_with_its_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(WrongMedium, match=r"can't be read \((No such file|it is a folder)"):
        Iso(tmp_path / name)


def test_a_program_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "xorriso"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexec cat /dev/zero > /dev/null\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "DEADLINE_S", 0.2)
    with pytest.raises(NotMade, match="did not end within"):
        make(FILES, "nestlab", tmp_path / "a.iso")


def test_without_xorriso_nobody_is_told_that_the_medium_is_damaged(
    media: Media, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    iso = Iso(media["debian"])
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        with pytest.raises(NotMade, match="install the package xorriso"):
            iso.files()
    assert iso.files(), "and it is asked again when it is there"


def test_a_directory_that_xorriso_can_not_read_is_damage(media: Media, tmp_path: Path) -> None:
    data = bytearray(media["debian"].read_bytes())
    root = int.from_bytes(data[16 * 2048 + 158 : 16 * 2048 + 162], "little") * 2048
    data[root : root + 2048] = b"\xff" * 2048
    (tmp_path / "x.iso").write_bytes(data)
    with pytest.raises(
        WrongMedium, match=r"is damaged: xorriso can't read it: .+get the file again"
    ):
        Iso(tmp_path / "x.iso").files()
