"""The disk of a golden image: its file system, what boots it, and the first boot that proves it.

A nested KVM host boots its kernel directly, so the maker takes kernel and initrd out of the image.
A nested Xen host cannot: libvirt hands a kernel one initrd, and Xen needs dom0's kernel besides. So
that disk has a boot loader, written here by hand, as GRUB's own installer wants a block device and a
container has none to give.

This leaves out what is installed on the disk (``image.py``).
"""

from __future__ import annotations

import shlex
import struct
from typing import TYPE_CHECKING

from toolchain.bootstrap import paths, run, ui
from toolchain.image import golden

if TYPE_CHECKING:
    from pathlib import Path

    from toolchain.machine.system import System

ROOT_GIB = 4
"""Virtual size of the disk, GiB: the system takes 0.6, and clones may be larger."""
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,"
    "large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
"""ext4's features one by one: newer mke2fs add some that an older GRUB takes for another file system."""
PACK_S = 300.0
"""Deadline for making a file system, seconds; some ten are enough."""
BOOT_S = 300.0
"""Deadline for the image's first boot, seconds; 15 to 60 under emulation."""
PROVED = {
    "kvm": ("nestlab-warm: kvm answers", "nestlab-warm: complete"),
    "xen": ("nestlab-prove: Domain-0 answers", "nestlab-prove: a guest ran"),
}
"""What the first boot must have printed: the hypervisor works in there, and kvm's disk was left clean."""
XEN_CPU = "Nehalem"
"""Emulated processors with more features crash dom0's first instruction, or let Xen hang at its clock."""

SECTOR = 512
BLOCK = 4096
LOADER = "/boot/grub/core.img"
# Where GRUB's first sector looks for the second (kernel_sector in its boot.S), and where the second
# lists the others: the last 12 bytes, of which the first 8 are a sector (blocklist in its diskboot.S).
SECOND_SECTOR_AT = 0x5C
OTHERS_AT = SECTOR - 12
SIGNATURE = b"\x55\xaa"


def pack(system: System, making: Path, variant: str, *, root: bool) -> None:
    """Make the disk out of what mmdebstrap left.

    Raises:
        Problem: the disk cannot be made, or no boot loader fits it.
    """
    take_out = "mv root/boot/vmlinuz vmlinuz; mv root/boot/initrd initrd"
    # No partition table: the file system is the disk, so growing it is one step.
    script = f"""set -eu
        cd {shlex.quote(str(making))}
        [ -d root ] || {{ mkdir root; tar -xf root.tar -C root; rm root.tar; }}
        {take_out if variant == "kvm" else ""}
        mke2fs -q -t ext4 -b {BLOCK} -O {FEATURES} -L root -m 0 -E lazy_itable_init=0,root_owner=0:0 \
            -d root root.raw {ROOT_GIB}G"""
    shell = ["sh", "-c", script]
    remedy = f"Check that {paths.images()} has 3 GB free, and run the same command again."
    words = shell if root else ["fakeroot", *shell]
    run.run(words, timeout=PACK_S, remedy=remedy, env=system.environment())
    if variant == "xen":
        install_loader(system, making)


def install_loader(system: System, making: Path) -> None:
    """Make ``root.raw`` boot by GRUB, whose two parts lie in its file system.

    ext4 leaves its first two sectors to boot loaders; the first one gets GRUB's boot.img, which
    reads core.img where it lies. Nothing moves a file of a file system that is never defragmented.

    Raises:
        Problem: core.img is not there, or lies in pieces.
    """
    asked = ["debugfs", "-R", f"blocks {LOADER}", str(making / "root.raw")]
    told = run.run(asked, timeout=PACK_S, env=system.environment()).split()
    blocks = [int(word) for word in told if word.isdecimal()]
    if not blocks or blocks != list(range(blocks[0], blocks[0] + len(blocks))):
        raise ui.Problem(
            f"the image has no boot loader: {LOADER} lies in blocks {' '.join(told) or 'nowhere'},"
            " and it has to be one piece.\nRun the same command again."
        )
    first = blocks[0] * BLOCK // SECTOR
    with (making / "root.raw").open("r+b") as disk:
        disk.seek(blocks[0] * BLOCK)
        second = bytearray(disk.read(SECTOR))
        struct.pack_into("<Q", second, OTHERS_AT, first + 1)
        disk.seek(blocks[0] * BLOCK)
        disk.write(second)
        boot = bytearray((making / "root/boot/grub/boot.img").read_bytes())
        struct.pack_into("<Q", boot, SECOND_SECTOR_AT, first)
        if len(boot) != SECTOR or boot[-2:] != SIGNATURE:
            raise ui.Problem(
                "the image has no boot loader: its boot.img is no boot sector.\n"
                "Another GRUB than Debian's of this release? Say so in an issue."
            )
        disk.seek(0)
        disk.write(boot)


def prove(system: System, making: Path, variant: str, seed: Path) -> None:
    """Boot the image once, without a network; ``seed`` is what a machine that has one is to run.

    libvirt in a KVM host learns what QEMU can do, so that no clone has to. A Xen host boots from a
    copy, and runs a guest.

    Raises:
        Problem: it did not come up, with the last lines of its console.
    """
    words = qemu(making) + (direct(making) if variant == "kvm" else by_itself(system, making, seed))
    remedy = "The image would not work in a lab either; what it said on its console is above."
    said = run.run(words, timeout=BOOT_S, remedy=remedy, env=system.environment())
    if missed := [line for line in PROVED[variant] if line not in said]:
        raise ui.Problem(
            f"the new image booted, but did not say {missed[0]!r}:\n{run.tail(said)}\n{remedy}"
        )


def qemu(making: Path) -> list[str]:
    """Return what every first boot starts: a machine with the disk and a serial port."""
    # Sockets of one core, as libvirt gives a guest that asks for no topology: what libvirt in there
    # learns counts only as long as CPUID stays the same. The number of processors is no part of it.
    line = """setpriv --pdeathsig KILL
        qemu-system-x86_64 -machine pc,accel=tcg -smp 2,sockets=2
        -nodefaults -nic none -display none -no-reboot -serial stdio"""
    return [
        *line.split(),
        *("-drive", f"{_drive('root', making / 'root.raw')},cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=root"),
    ]


def direct(making: Path) -> list[str]:
    """Boot kernel and initrd as a lab does, with the warming instead of systemd."""
    arguments = [*golden.CMDLINE, ("init", "/usr/lib/nestlab/warm")]
    line = " ".join(value if key == "_" else f"{key}={value}" for key, value in arguments)
    files = ["-kernel", str(making / "vmlinuz"), "-initrd", str(making / "initrd")]
    return ["-cpu", "max", "-m", "1024", *files, "-append", line]


def by_itself(system: System, making: Path, seed: Path) -> list[str]:
    """Boot as a lab does, by the disk's loader and with a seed, and leave no trace on the disk."""
    folder = making / "seed"
    folder.mkdir()
    (folder / "user-data").write_bytes(seed.read_bytes())
    # Labs have an ISO there; the machine looks for the label.
    made = ["mke2fs", "-q", "-t", "ext4", "-L", "cidata", "-d", str(folder)]
    run.run([*made, str(making / "seed.raw"), "4M"], timeout=PACK_S, env=system.environment())
    return [
        *("-cpu", XEN_CPU, "-m", "3072", "-snapshot"),
        *("-drive", _drive("seed", making / "seed.raw")),
        *("-device", "virtio-blk-pci,drive=seed"),
    ]


def _drive(name: str, file: Path) -> str:
    return f"if=none,id={name},format=raw,file={str(file).replace(',', ',,')}"
