"""What nested hypervisors keep for themselves, held against their makers' own arithmetic.

A failure here means that a lab is taken whose guests do not fit, which is seen after its installation.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from components.kinds.proxmox import media as proxmox
from components.kinds.proxmox.model import LVM
from components.stackfile import SpecError, load
from components.stackfile.places import own
from components.stackfile.registry import KINDS
from tests.unit.media.answers import answers

EXTENT = 4 * 1024
"""Of LVM, KiB; `EXTENT - 1` is masked off."""
GIB = 1 << 20
"""KiB."""


def pool(disk_gib: int, told: dict[str, float], memory_mib: int) -> float:
    """GiB of Proxmox VE's thin pool: pve-installer 9.2.7, Install.pm (`compute_swapsize`,
    `create_lvm_volumes`) and Sys/Block.pm (`partition_bootable_disk`), with its numbers in KiB."""
    size = disk_gib * GIB
    os_size = size - ((1024 if size > 100 * GIB else 512) + 1) * 1024
    gib = os_size // GIB
    if "swapsize" in told:
        swap = int(told["swapsize"] * GIB)
    else:
        mib = memory_mib
        mib = 4096 if mib < 4096 and gib >= 64 else mib
        mib = 2048 if mib < 2048 and gib >= 32 else mib
        mib = 1024 if mib >= 2048 and gib <= 16 else mib
        swap = min(max(mib, 512), gib * 128, 8192) * 1024 // EXTENT * EXTENT
    rest = os_size - swap
    mib = rest // 1024
    root_mib = float((mib - 4) & ~3 if mib < 12 * 1024 else (mib // 2) & ~3)
    if mib >= 48 * 1024:
        root_mib = mib / 4 + 12 * 1024
    root_mib = min(root_mib, told.get("maxroot", 96) * 1024)
    rest -= int(root_mib * 1024) // EXTENT * EXTENT
    space = 4 * 1024 if gib <= 32 else min(gib / 8, 16) * GIB
    free = told["minfree"] * GIB if "minfree" in told and told["minfree"] * GIB < rest else space
    data = int(rest - free) // EXTENT * EXTENT
    if data <= 4 * GIB:
        return 0.0
    meta = min(max(data // 100, GIB), 16 * GIB) // EXTENT * EXTENT
    return (data - 2 * meta - EXTENT) / GIB


def test_the_arithmetic_gives_what_the_makers_gives() -> None:
    """With 4 GiB of memory and nothing told, as others computed it."""
    sizes = {20: 6.2, 32: 11.6, 40: 10.8, 64: 22.5, 100: 45.0, 128: 62.5}
    for disk, gib in sizes.items():
        assert pool(disk, {}, 4096) == pytest.approx(gib, abs=0.4), disk


@pytest.mark.parametrize("disk", [20, 24, 32, 40, 48, 64, 100, 101, 128, 256, 1000, 4000])
def test_the_disks_that_fit_into_a_proxmox_fit_into_its_pool(disk: int) -> None:
    kind = KINDS["proxmox"]
    told = proxmox._answer(answers())["disk-setup"]["lvm"]
    assert told == LVM
    for memory in (2048, 4096, 65536):
        left = disk - own(kind.reserve_gib, kind.share_gib, disk)
        assert 0 <= left <= pool(disk, LVM, memory) < left + 4 + disk // 50


@pytest.mark.parametrize("memory", [4096, 8192, 16384, 32768, 65536, 131072])
def test_the_memory_that_guests_of_a_xenserver_have_is_what_its_dom0_leaves(memory: int) -> None:
    # python-libs, xcp/dom0.py, default_memory_v3; and Xen's own.
    dom0 = min(1024 + int((memory + 256) * 0.05) & ~0xF, 8192)
    kept = dom0 + 128 + memory // 128
    kind = KINDS["xenserver"]
    assert kept <= own(kind.reserve_mib, kind.share_mib, memory) <= kept + 64


def refused(**inside: Any) -> str:
    hypervisor = {"network": "lab", "iso": "it", **inside}
    data = {
        "name": "lab",
        "media": {"it": {"path": "it.iso"}},
        "networks": {"lab": {"subnet": "10.77.0.0/24"}},
        "hypervisors": {"one": hypervisor},
    }
    try:
        load(data, root=Path("/project"), exists=lambda _: True)
    except SpecError as wrong:
        return str(wrong)
    return ""


def many(count: int, **each: int) -> dict[str, dict[str, Any]]:
    return {f"g{number}": {"iso": "it", **each} for number in range(count)}


def test_the_remedy_names_the_least_that_is_taken() -> None:
    for kind, field, size, count in (
        ("proxmox", "disk_gib", 40, 10),
        ("proxmox", "disk_gib", 200, 1),
        ("xenserver", "memory_mib", 2048, 15),
        ("xenserver", "memory_mib", 30000, 1),
    ):
        guests = many(count, memory_mib=64) if field == "disk_gib" else many(count)
        for guest in guests.values():
            guest[field] = size
        large: dict[str, Any] = {"memory_mib": 262144, "disk_gib": 2000}
        given = {"kind": kind, "guests": guests, **large, field: size * count}
        words = refused(**given)
        least = int(re.findall(r"raise (?:it|\S+) to (\d+)", words)[0])
        assert refused(**{**given, field: least}) == ""
        assert refused(**{**given, field: least - 1}) != ""


@pytest.mark.parametrize(
    ("kind", "field", "least"),
    [
        # XenServer 8's system requirements: 46 GB, 70 recommended; nestlab's 50 leave room for a guest's disk.
        ("xenserver", "disk_gib", 50),
        # VMware's hardware requirements for ESXi 7.0 and 8.0.
        ("esxi", "memory_mib", 8192),
    ],
)
def test_less_than_the_maker_asks_for_is_refused(kind: str, field: str, least: int) -> None:
    assert refused(kind=kind, **{field: least}) == ""
    assert f"write {least} or more" in refused(kind=kind, **{field: least - 1})
