"""Media that somebody made to harm whoever looks at them: each is refused in words, at little cost.

A failure here means that a stack file from a pull request takes a machine's memory, hangs a preview
or ends it with a traceback.
"""

from __future__ import annotations

import random
import resource
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from components.media import eltorito, udf
from components.media import iso as module
from components.media import iso_check as installers
from components.media.iso import Iso, WrongMedium
from components.media.recognise import what
from components.stackfile import load
from tests.support import images
from tests.support.udf import Volume, embedded, entry, named, sealed
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.media.conftest import Media

MEMORY = 500 << 20
"""What a look into any medium may take, bytes."""
LOOK = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from components.media.iso import Iso, WrongMedium
from components.media.recognise import what
try:
    iso = Iso(Path(sys.argv[2]))
    print(len(iso.files()), what(iso))
except WrongMedium as refused:
    print("refused:", refused)
"""


def looked(path: Path) -> str:
    """What a process with little memory says of a medium, in time."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(MEMORY), str(path)],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def root_of(pieces: list[tuple[int, int]]) -> Volume:
    volume = Volume()
    size = sum(length for length, _ in pieces)
    volume.blocks[1] = sealed(261, entry(size, pieces, folder=True))
    return volume


def test_a_folder_of_gigabytes_in_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    image = root_of([(0x3FFFF800, 64)] * 3).write(tmp_path / "a.iso", 4 << 30)
    assert image.stat().st_blocks * 512 < 1 << 20
    assert "more names than any real medium" in looked(image)


def test_names_are_read_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume()
    volume.blocks[2] = sealed(261, embedded(b"x", 1))
    content = b"".join(named(f"{number:06}", 2) for number in range(20_000))
    volume.root(content)
    volume.sectors = 70 + len(content) // 2048
    image = volume.write(tmp_path / "a.iso")
    seen = 0
    tag = udf._tag

    def counted(data: bytes, offset: int) -> int:
        nonlocal seen
        seen += len(data)
        return tag(data, offset)

    monkeypatch.setattr(udf, "_tag", counted)
    assert len(udf.Udf(image).files) == 20_000
    assert seen < 2 * len(content) + 20_050 * 2048, "each name is looked at once, not all after it"


def test_80_000_names_are_read_and_a_million_refused(tmp_path: Path) -> None:
    volume = Volume()
    volume.blocks[2] = sealed(261, embedded(b"x", 1))
    content = b"".join(named(f"{number:06}", 2) for number in range(80_000))
    volume.root(content)
    volume.sectors = 70 + len(content) // 2048
    assert looked(volume.write(tmp_path / "a.iso")).startswith("80000 ")
    volume.root(content * 5)
    volume.sectors *= 5
    assert "more " in looked(volume.write(tmp_path / "b.iso"))


def test_many_names_of_files_in_many_pieces_are_refused(tmp_path: Path) -> None:
    volume = Volume()
    volume.blocks[2] = sealed(261, entry(1, [(2048, 3)] * 230))
    content = b"".join(named(f"{number:06}", 2) for number in range(50_000))
    volume.root(content)
    volume.sectors = 70 + len(content) // 2048
    assert "more files than any real medium" in looked(volume.write(tmp_path / "a.iso"))


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, 1 << 40, 3000])
def test_a_file_in_its_own_entry_has_what_fits_there(tmp_path: Path, size: int) -> None:
    volume = Volume()
    volume.blocks[2] = sealed(261, embedded(b"x" * 9, size))
    volume.root(named("a", 2))
    with pytest.raises(WrongMedium, match="tells of more than it has"):
        Iso(volume.write(tmp_path / "a.iso")).files()


def test_folders_in_one_another_and_endless_paths_are_refused(tmp_path: Path) -> None:
    volume = Volume()
    volume.root(named("a", 1, marks=2))
    with pytest.raises(WrongMedium, match="nested in one another"):
        Iso(volume.write(tmp_path / "a.iso")).files()
    for depth, letters, said in ((70, 1, "paths are longer"), (9, 200, "paths are longer")):
        volume = Volume()
        for block in range(1, depth + 1):
            inner = named("a" * letters, block + 1, marks=2)
            volume.blocks[block + 100] = inner
            volume.blocks[block] = sealed(
                261, entry(len(inner), [(len(inner), block + 100)], folder=True)
            )
        with pytest.raises(WrongMedium, match=said):
            Iso(volume.write(tmp_path / "b.iso")).files()


def test_a_note_of_gigabytes_is_not_read_to_say_what_a_medium_is(tmp_path: Path) -> None:
    volume = Volume()
    volume.blocks[2] = sealed(261, entry(1 << 30, [(0x3FFFF800, 64), (2048, 64)]))
    volume.root(named(".cd-info", 2) + named(".treeinfo", 2))
    volume.blocks[64] = volume.blocks.pop(64)
    image = volume.write(tmp_path / "a.iso", 4 << 30)
    assert looked(image).startswith("2 a CD that does not boot, with 2 files")


def test_a_note_of_megabytes_in_iso_9660_is_not_read_either(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / ".cd-info").write_bytes(b"PRODUCT='x'\n" * 400_000)
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-r", "-o", "a.iso", "tree"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    iso = Iso(tmp_path / "a.iso")
    assert what(iso).startswith("a CD that does not boot")
    with pytest.raises(WrongMedium, match="longer than anything of its kind"):
        iso.read("/.cd-info", 1 << 20)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127])
def test_a_catalog_that_ends_with_the_medium_is_read_as_far_as_it_goes(length: int) -> None:
    whole = bytearray(2048)
    whole[0], whole[30:32], whole[32] = 1, b"\x55\xaa", 0x88
    struct.pack_into("<H", whole, 28, -sum(struct.unpack_from("<16H", whole)) & 0xFFFF)
    whole[64], whole[66], whole[96] = 0x91, 9, 0x88
    whole[65] = 0xEF
    found = eltorito.images(bytes(whole[:length]))
    assert len(found) == (length >= 64) + (length >= 128)


def test_a_catalog_beyond_the_end_is_none(tmp_path: Path) -> None:
    data = bytearray(images.iso(20))
    at = 17 * 2048
    data[at : at + 7] = b"\0CD001\1"
    data[at + 7 : at + 30] = b"EL TORITO SPECIFICATION"
    for sector in (0xFFFFFFFF, 19):
        struct.pack_into("<I", data, at + 0x47, sector)
        file = tmp_path / "a.iso"
        file.write_bytes(data[: 20 * 2048])
        assert Iso(file).boots() == frozenset()


def test_any_catalog_is_answered() -> None:
    chance = random.Random(7)  # noqa: S311 - the same in every run
    for _ in range(3000):
        data = bytearray(chance.randbytes(chance.randrange(32, 300)))
        data[0], data[30:32], data[28:30] = 1, b"\x55\xaa", b"\0\0"
        struct.pack_into("<H", data, 28, -sum(struct.unpack_from("<16H", data)) & 0xFFFF)
        for at in range(32, len(data), 32):
            data[at] = chance.choice([0x88, 0x90, 0x91, 0x44, 0])
        assert all(image.offset + 32 <= len(data) for image in eltorito.images(bytes(data)))


def test_any_udf_is_answered(tmp_path: Path) -> None:
    chance = random.Random(11)  # noqa: S311 - the same in every run
    refused = 0
    for _ in range(400):
        volume = Volume(sectors=80)
        volume.blocks[2] = sealed(261, embedded(b"hello", 5))
        volume.blocks[3] = sealed(261, entry(3000, [(2048, 70), (2048, 71)]))
        inner = named("deep.txt", 2)
        volume.blocks[72] = inner
        volume.blocks[4] = sealed(261, entry(len(inner), [(len(inner), 72)], folder=True))
        volume.root(named("a.txt", 2) + named("b.bin", 3) + named("sub", 4, marks=2))
        hit = chance.choice([256, 32, 33, 300, 301, 302, 303, 304])

        def change(sector: int, data: bytes, hit: int = hit) -> bytes:
            if sector != hit:
                return data
            body = bytearray(data)
            for _ in range(chance.randrange(1, 4)):
                fields = (27, 34, 56, 59, 63, 168, 172, 176, 180, 188, 192, 212, 252, 404, 16, 20)
                at = chance.choice([*fields, chance.randrange(len(body))])
                body[at] = chance.choice([0, 1, 3, 0x7F, 0x80, 0xFF])
            return sealed(int.from_bytes(data[:2], "little"), body)

        image = volume.write(tmp_path / "a.iso", change=change)
        try:
            found = udf.Udf(image)
            for name in found.files:
                found.read(name, 1 << 20)
                found.removed(name)
        except udf.BadUdf:
            refused += 1
    assert 30 < refused < 400


def test_any_iso_is_answered(tmp_path: Path, media: Media) -> None:
    whole = media["debian"].read_bytes()
    chance = random.Random(13)  # noqa: S311 - the same in every run
    file = tmp_path / "a.iso"
    for number in range(400):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 30)):
            data[chance.randrange(16 * 2048, 40 * 2048)] = chance.choice([0, 1, 0xFF, 0x80])
        file.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        try:
            iso = Iso(file)
            iso.boots()
            if number % 20 == 0:
                what(iso)
        except WrongMedium:
            continue


def test_a_folder_of_iso_9660_that_holds_itself_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    command = ["genisoimage", "-quiet", "-o", "a.iso", "tree"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    data = bytearray((tmp_path / "a.iso").read_bytes())
    root = data[16 * 2048 + 158 : 16 * 2048 + 166]
    at = int.from_bytes(root[:4], "little") * 2048
    record = data.index(b"INNER", at) - 33
    data[record + 2 : record + 10] = root
    (tmp_path / "a.iso").write_bytes(data)
    monkeypatch.setattr(module, "LOOK_CPU_S", 1)
    with pytest.raises(WrongMedium, match="more in it than any real medium"):
        Iso(tmp_path / "a.iso").files()


def test_what_a_medium_makes_xorriso_do_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "xorriso"
    fake.parent.mkdir()
    file = tmp_path / "a.iso"
    file.write_bytes(images.iso())
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    for does in ("exec yes /a/name", "exec yes /a/name >&2"):
        fake.write_text(f"#!/bin/sh\n{does}\n")
        fake.chmod(0o755)
        with pytest.raises(WrongMedium, match="more in it than any real medium"):
            Iso(file).files()
    fake.write_text("#!/bin/sh\nulimit -v; ulimit -t\n")
    fake.chmod(0o755)
    assert resource.getrlimit(resource.RLIMIT_CPU)[1] in {-1, resource.RLIM_INFINITY}
    Iso(file).files()


def test_one_endless_medium_ends_the_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "xorriso"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho >> {tmp_path}/runs\nexec yes /a/name\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    names = [f"m{number}" for number in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(images.iso())
    machine = {"kind": "proxmox", "network": "net"}
    lab = {
        "name": "lab",
        "networks": {"net": {"subnet": "10.77.0.0/24"}},
        "media": {name: {"path": name} for name in names},
        "hypervisors": {f"h{name}": machine | {"iso": name} for name in names},
    }
    assert len(installers.wrong(load(lab, root=tmp_path))) == 1
    assert len((tmp_path / "runs").read_text().splitlines()) == 1
