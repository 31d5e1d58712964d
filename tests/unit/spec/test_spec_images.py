"""Disk images are what they seem, whole, and all there is of the disk; QEMU itself made those tried here.

A failure here means that a guest reads a file of the host's that the image names, that `pulumi up` ends
half-way in a provider's words, or that a machine counts as up whose disk is a web page.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from components.stackfile import SpecError, load
from components.stackfile.files import glance
from tests.support import images, standins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
FORMS = {
    "qcow2": (
        "qcow2",
        ("", "compat=0.10", "cluster_size=512", "lazy_refcounts=on", "extended_l2=on"),
    ),
    "vmdk": ("vmdk", ("", "subformat=streamOptimized")),
    "vpc": ("vhd", ("",)),
    "vhdx": ("vhdx", ("", "subformat=fixed")),
    "vdi": ("vdi", ("", "static=on")),
}
"""qemu-img's name of a format, ours, and options."""


def qemu(*words: str | Path) -> None:
    standins.needs("qemu-img")
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk of 6 MiB with a boot sector and something on it."""
    chance = random.Random(1)  # noqa: S311 - the same in every run
    data = bytearray(images.raw(6 * MIB))
    data[2 * MIB : 4 * MIB] = chance.randbytes(2 * MIB)
    file = tmp_path_factory.mktemp("disk") / "disk.raw"
    file.write_bytes(data)
    return file


def made(disk: Path, to: Path, form: str, options: str = "") -> Path:
    qemu("convert", "-O", form, *(["-o", options] if options else []), disk, to)
    return to


ALL = [(form, ours, options) for form, (ours, several) in FORMS.items() for options in several]


@pytest.mark.parametrize(("form", "ours", "options"), ALL)
def test_a_whole_image_of_qemus_is_taken_with_its_size_and_a_part_is_not(
    disk: Path, tmp_path: Path, form: str, ours: str, options: str
) -> None:
    file = made(disk, tmp_path / "a", form, options)
    seen = glance(str(file))
    assert (seen.content, seen.form, seen.wrong) == ("image", ours, None)
    assert 0 <= seen.virtual - 6 * MIB < MIB, "geometry may round up"
    whole = file.read_bytes()
    for part in (len(whole) // 10, len(whole) // 2, len(whole) * 8 // 10):
        (tmp_path / "cut").write_bytes(whole[:part])
        assert glance(str(tmp_path / "cut")).wrong, f"{part} of {len(whole)} bytes"


@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_a_change_to_another_image_is_refused(disk: Path, tmp_path: Path, form: str) -> None:
    base = made(disk, tmp_path / "base", form)
    qemu("create", "-f", form, "-b", base, "-F", form, tmp_path / "a")
    found = glance(str(tmp_path / "a"))
    assert found.wrong
    assert "which it names" in found.wrong[0]
    assert "qemu-img convert" in found.wrong[1]
    qemu("convert", "-O", form, tmp_path / "a", tmp_path / "b")
    assert not glance(str(tmp_path / "b")).wrong, "and flattened as it says it is taken"


def test_a_part_of_a_disk_is_refused_here_and_not_by_whoever_opens_it(
    disk: Path, tmp_path: Path
) -> None:
    made(disk, tmp_path / "a.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse")
    part = tmp_path / "a-s001.vmdk"
    with pytest.raises(subprocess.CalledProcessError):
        qemu("info", "-f", "vmdk", part)
    found = glance(str(part))
    assert found.form == "vmdk"
    assert found.wrong
    assert "it is one part of a disk" in found.wrong[0]
    assert "qemu-img convert" in found.wrong[1]


def test_an_image_with_its_content_elsewhere_is_refused(disk: Path, tmp_path: Path) -> None:
    qemu(
        "create",
        "-f",
        "qcow2",
        "-o",
        f"data_file={tmp_path}/d,data_file_raw=on",
        tmp_path / "a",
        "6M",
    )
    data = bytearray((tmp_path / "a").read_bytes())
    assert glance(str(tmp_path / "a")).wrong
    # The name alone, without the mark that it counts.
    data[79] &= ~4 & 0xFF
    (tmp_path / "a").write_bytes(data)
    assert glance(str(tmp_path / "a")).wrong
    for subformat in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"):
        assert glance(str(made(disk, tmp_path / "v.vmdk", "vmdk", f"subformat={subformat}"))).wrong


HOSTILE = {
    "qcow2 v3, backing file": images.qcow2(backing=b"/etc/shadow"),
    "qcow2, backing json:": images.qcow2(
        backing=b'json:{"driver":"file","filename":"/etc/shadow"}'
    ),
    "qcow2, backing nbd:": images.qcow2(backing=b"nbd://127.0.0.1:10809/x"),
    "qcow2, data file by its mark": images.qcow2(features=4),
    "qcow2, data file by its name": images.qcow2(
        extra=struct.pack(">II", 0x44415441, 11) + b"/etc/shadow"
    ),
    "qcow2, unknown feature": images.qcow2(features=1 << 40),
    "qcow2, marked as damaged": images.qcow2(features=2),
    "qcow1": b"QFI\xfb" + struct.pack(">IQIIQ", 1, 0, 0, 0, GIB) + bytes(4096),
    "qcow2 of 2^63 bytes": images.qcow2()[:24] + struct.pack(">Q", 1 << 63) + images.qcow2()[32:],
    "qcow2, clusters of 2^40": images.qcow2()[:20] + struct.pack(">I", 40) + images.qcow2()[24:],
    "qcow2, clusters of 2^(2^32)": images.qcow2()[:20] + b"\xff" * 4 + images.qcow2()[24:],
    "qcow2, counts of 2^(2^32) bits": images.qcow2()[:96] + b"\xff" * 4 + images.qcow2()[100:],
    "qcow2, L1 table of 2^32": images.qcow2()[:36]
    + struct.pack(">I", 0xFFFFFFFF)
    + images.qcow2()[40:],
    "descriptor": b'# Disk DescriptorFile\nversion=1\nRW 8 FLAT "/etc/shadow" 0\n',
    "descriptor by its version": b'# x\n\nversion=1\nCID=1\nRW 8 FLAT "/etc/shadow" 0\n',
    "descriptor of Windows": b'version=2\r\nRW 8 FLAT "/etc/shadow" 0\r\n',
    "vhd, differencing": images.vhd(kind=4),
    "vhd, no footer": images.vhd()[:-512],
    "qed": b"QED\0" + bytes(506) + b"\x55\xaa" + bytes(4096),
    "parallels": b"WithoutFreeSpace" + bytes(494) + b"\x55\xaa" + bytes(4096),
    "luks": b"LUKS\xba\xbe" + bytes(504) + b"\x55\xaa" + bytes(4096),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_qemu_would_follow_or_choke_on_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(HOSTILE[name])
    tracemalloc.start()
    seen = glance(str(tmp_path / "a"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * MIB, f"{peak} bytes for one look"
    assert seen.content != "image" or seen.wrong, seen


def _vmdk(text: bytes, capacity: int = 16) -> bytes:
    """A sparse VMDK whose description, where QEMU looks for it, is ``text``."""
    head = b"KDMV" + struct.pack("<IIQQQQIQQQ", 1, 3, capacity, 128, 1, 20, 512, 0, 21, 22)
    return head.ljust(512, b"\0") + text.ljust(20 * 512, b"\0") + bytes(4096)


PLAIN = b'CID=1\nparentCID=ffffffff\nRW 16 SPARSE "a.vmdk"\n'


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (PLAIN, True),
        (PLAIN + b'parentFileNameHint="/etc/shadow"\n', False),
        (PLAIN + b'\0parentFileNameHint = "/etc/shadow"\n', False),
        (PLAIN.replace(b"ffffffff", b"12345678"), False),
        (PLAIN.replace(b"SPARSE", b"FLAT"), False),
        (PLAIN.replace(b"a.vmdk", b"/etc/shadow"), False),
        (PLAIN.replace(b"a.vmdk", b"..\\x.vmdk"), False),
        (PLAIN + b'RW 16 SPARSE "b.vmdk"\n', False),
        # As in disk-s001.vmdk, whose description is disk.vmdk.
        (b"", False),
        (b"CID=1\nparentCID=ffffffff\n", False),
    ],
)
def test_the_description_inside_a_vmdk_names_itself_alone(
    text: bytes, fits: bool, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(_vmdk(text))
    assert (glance(str(tmp_path / "a")).wrong is None) is fits
    (tmp_path / "a").write_bytes(_vmdk(PLAIN, capacity=0))
    assert glance(str(tmp_path / "a")).wrong, "its content would be described somewhere else"


def _patched(file: Path, at: int, data: bytes) -> Path:
    content = bytearray(file.read_bytes())
    content[at : at + len(data)] = data
    file.write_bytes(content)
    return file


def test_parents_of_vhdx_vhd_and_vdi_are_found(disk: Path, tmp_path: Path) -> None:
    vhdx = made(disk, tmp_path / "a.vhdx", "vhdx")
    whole = vhdx.read_bytes()
    parameters = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
    entry = whole.index(parameters)
    table = entry - 32 - (entry - 32) % 65536
    at = table + struct.unpack_from("<I", whole, entry + 16)[0] + 4
    for where, data in (
        (at, b"\2"),
        (entry, bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")),
        (65536 + 48, b"\1"),
    ):
        vhdx.write_bytes(whole)
        assert glance(str(_patched(vhdx, where, data))).wrong, hex(where)
    for file, where, data in (
        (made(disk, tmp_path / "a.vhd", "vpc"), 512 + 576, b"W2ku"),
        (made(disk, tmp_path / "b.vhd", "vpc"), 512 + 64, b"\0/\0e"),
        (made(disk, tmp_path / "a.vdi", "vdi"), 0x1B8, b"\1"),
        (made(disk, tmp_path / "b.vdi", "vdi"), 0x4C, b"\4"),
    ):
        assert glance(str(_patched(file, where, data))).wrong, file.name


def _tar() -> bytes:
    told = io.BytesIO()
    with tarfile.open(fileobj=told, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.vmdk"))
    return told.getvalue()


def _zip() -> bytes:
    told = io.BytesIO()
    with zipfile.ZipFile(told, "w") as archive:
        archive.writestr("a", "b")
    return told.getvalue()


NO_IMAGE: dict[str, bytes] = {
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(600),
    "bz2": bz2.compress(images.raw()),
    "gz": gzip.compress(images.raw()),
    "xz": lzma.compress(images.raw()),
    "zst": b"\x28\xb5\x2f\xfd" + bytes(600),
    "zip": _zip(),
    "ova": _tar(),
    "doctype in small letters": b"<!doctype html><title>404</title>",
    "html after blanks": b"\r\n\r\n  <HtMl>",
    "html in UTF-16": "<html>not found".encode("utf-16"),
    "html with a mark": b"\xef\xbb\xbf<html>",
    "xml": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "svg": b"<svg xmlns='x'/>",
    "json": json.dumps({"message": "not found"}).encode(),
    "json list": b'\n[{"error": 1}]',
    "text": b"Not Found\n",
    "nothing": b"",
    "one byte": b"x",
    "zeros": bytes(8192),
    "random": random.Random(2).randbytes(9000),  # noqa: S311 - the same in every run
    "key": b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + b"A" * 600,
    "passwords": b"root:$6$x:19000:0:99999:7:::\n" * 40,
    "pdf": b"%PDF-1.7\n" + bytes(700),
    "kernel": b"MZ" + bytes(508) + b"\x55\xaa" + bytes(600),
    "program": b"\x7fELF" + bytes(700),
}


@pytest.mark.parametrize("name", NO_IMAGE)
@pytest.mark.parametrize("suffix", ["img", "qcow2", "raw"])
def test_what_is_no_disk_is_refused_whatever_it_is_called(
    name: str, suffix: str, tmp_path: Path
) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(NO_IMAGE[name])
    lab = {"name": "lab", "media": {"m": {"path": f"a.{suffix}"}}, "guests": {"g": {"image": "m"}}}
    with pytest.raises(SpecError) as refused:
        load(lab, root=tmp_path)
    (said,) = refused.value.problems
    assert said.path == "lab.media.m.path"
    assert "it is used as a disk image" in said.rule
    assert "root:$6" not in str(said)


@pytest.mark.parametrize(
    "put",
    [
        lambda data: data.__setitem__(slice(510, 512), b"\x55\xaa"),
        lambda data: data.__setitem__(
            slice(512, 512 + 40), b"EFI PART" + bytes(24) + struct.pack("<Q", 15)
        ),
        lambda data: data.__setitem__(slice(0x438, 0x43A), b"\x53\xef"),
        lambda data: data.__setitem__(slice(0, 4), b"XFSB"),
        lambda data: data.__setitem__(slice(0x218, 0x220), b"LVM2 001"),
    ],
    ids=["boot sector", "GPT", "ext4", "XFS", "LVM"],
)
def test_a_raw_disk_has_a_boot_sector_or_a_file_system(
    put: Callable[[bytearray], None], tmp_path: Path
) -> None:
    data = bytearray(8192)
    put(data)
    (tmp_path / "a").write_bytes(data)
    seen = glance(str(tmp_path / "a"))
    assert (seen.form, seen.virtual, seen.wrong) == ("raw", 8192, None)


def test_a_raw_disk_that_was_cut_is_known_by_its_table(tmp_path: Path) -> None:
    gpt = bytearray(images.raw(8192))
    gpt[512:520] = b"EFI PART"
    gpt[450] = 0xEE
    struct.pack_into("<Q", gpt, 512 + 32, 4095)
    mbr = bytearray(images.raw(8192))
    mbr[446], mbr[450] = 0x80, 0x83
    struct.pack_into("<II", mbr, 454, 8, 4000)
    for data in (gpt, mbr):
        (tmp_path / "a").write_bytes(data)
        assert glance(str(tmp_path / "a")).wrong
        (tmp_path / "a").write_bytes(data.ljust(4096 * 512, b"\0"))
        assert not glance(str(tmp_path / "a")).wrong


def test_an_iso_that_was_cut_is_refused_for_a_guest_too(tmp_path: Path) -> None:
    lab = {"name": "lab", "media": {"m": {"path": "a.iso"}}, "guests": {"g": {"iso": "m"}}}
    (tmp_path / "a.iso").write_bytes(images.iso(40))
    load(lab, root=tmp_path)
    (tmp_path / "a.iso").write_bytes(images.iso(40)[:-2048])
    with pytest.raises(SpecError, match="bytes of its volume: get the file again"):
        load(lab, root=tmp_path)
    # A medium that is both is an image to whoever guesses.
    (tmp_path / "a.iso").write_bytes(b"QFI\xfb" + images.iso(40)[4:])
    with pytest.raises(SpecError, match="is a qcow2 image"):
        load(lab, root=tmp_path)


def _lab(name: str, **machine: Any) -> dict[str, Any]:
    net = {"networks": {"net": {"subnet": "10.77.0.0/24"}}}
    return {"name": "lab", **net, "media": {"m": {"path": name}}, **machine}


@pytest.mark.parametrize(
    ("content", "least"),
    [(images.qcow2(3 * GIB), 3), (images.qcow2(3 * GIB + 1), 4), (images.raw(), 1)],
    ids=["qcow2", "a byte more", "raw"],
)
def test_a_disk_is_as_large_as_its_image(content: bytes, least: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    for gib in (0, 1, 2, 3, 4):
        lab = _lab("a", guests={"g": {"image": "m", "network": "net", "disk_gib": gib}})
        if gib in {0, *range(least, 5)}:
            load(lab, root=tmp_path)
            continue
        with pytest.raises(SpecError) as refused:
            load(lab, root=tmp_path)
        (said,) = refused.value.problems
        assert said.path == "lab.guests.g.disk_gib"
        assert said.remedy == f"write {least} or more"


def test_a_nested_hypervisors_disk_is_as_large_as_its_image(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(images.qcow2(40 * GIB))
    machine = {"kind": "virtualbox", "image": "m", "network": "net", "disk_gib": 30}
    with pytest.raises(SpecError, match=r"lab.hypervisors.v.disk_gib: 30 GiB given.*40 or more"):
        load(_lab("a", hypervisors={"v": machine}), root=tmp_path)


@pytest.mark.parametrize("content", [images.qcow2(), b"<html>", images.iso(), b""])
def test_a_template_is_an_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(content)
    lab = {"name": "lab", "templates": {"t": {"path": "t"}}}
    with pytest.raises(SpecError, match="is used as a template, which is a tar archive"):
        load(lab, root=tmp_path)
    for packed in (_tar(), gzip.compress(_tar()), lzma.compress(_tar()), bz2.compress(_tar())):
        (tmp_path / "t").write_bytes(packed)
        load(lab, root=tmp_path)


ON_PROXMOX: dict[str, dict[str, Any]] = {
    "nested": {"hypervisors": {"p": {"kind": "proxmox", "iso": "i", "network": "net"}}},
    "cluster": {
        "host": {
            "kind": "proxmox",
            "endpoint": "https://pve.example.test:8006",
            "nodes": {"pve1": {"memory_mib": 65536, "disk_gib": 500, "cores": 8}},
        },
    },
}


@pytest.mark.parametrize("where", ON_PROXMOX)
def test_a_template_for_proxmox_is_compressed(where: str, tmp_path: Path) -> None:
    """8.4 refuses the upload of another one at `up`: "wrong file extension"."""
    (tmp_path / "i").write_bytes(images.iso(40))
    lab = _lab("i", **ON_PROXMOX[where], templates={"t": {"path": "t"}, "unused": {"path": "u"}})
    lab["networks"]["net"] = {"mode": "bridge"} if where == "cluster" else lab["networks"]["net"]
    box = {"containers": {"c": {"template": "t", "memory_mib": 64}}}
    place = lab["hypervisors"]["p"] if where == "nested" else lab
    lab["media"] = {"i": {"path": "i"}} if where == "nested" else {}
    place.update(box)
    (tmp_path / "u").write_bytes(_tar())
    for packed in (gzip.compress(_tar()), lzma.compress(_tar()), bz2.compress(_tar())):
        (tmp_path / "t").write_bytes(packed)
        load(lab, root=tmp_path)
    (tmp_path / "t").write_bytes(_tar())
    with pytest.raises(SpecError) as refused:
        load(lab, root=tmp_path)
    (said,) = refused.value.problems
    assert said.path == "lab.templates.t.path"
    assert "VZTMPL_EXT_RE_1" in said.rule
    assert said.remedy.startswith("compress it: xz")


def test_a_template_for_lxc_may_be_plain(tmp_path: Path) -> None:
    box = {"c": {"template": "t", "memory_mib": 64}}
    host = {"kind": "kvm", "network": "net", "memory_mib": 4096, "containers": box}
    lab = _lab("i", hypervisors={"k": host}, templates={"t": {"path": "t"}})
    lab["media"] = {}
    (tmp_path / "t").write_bytes(_tar())
    load(lab, root=tmp_path)


def test_any_image_is_answered(disk: Path, tmp_path: Path) -> None:
    chance = random.Random(5)  # noqa: S311 - the same in every run
    file = tmp_path / "a"
    starts = [made(disk, file, form).read_bytes()[: 3 * MIB] for form in FORMS]
    starts += [_vmdk(PLAIN), images.vhd(), images.qcow2(), images.raw(), images.iso()]
    with file.open("r+b") as image:
        for whole in starts:
            image.truncate(0)
            image.seek(0)
            image.write(whole)
            for _ in range(150):
                last = chance.choice([120, 600, 2048, 262144 + 2048])
                hits = [(chance.randrange(min(last, len(whole)))) for _ in range(4)]
                for at in hits:
                    image.seek(at)
                    image.write(bytes([chance.choice([0, 1, 0x7F, 0xFF])]))
                image.flush()
                seen = glance(str(file))
                assert not seen.wrong or all(seen.wrong)
                for at in hits:
                    image.seek(at)
                    image.write(whole[at : at + 1])
