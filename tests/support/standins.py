"""Stand-ins of vendors' installation media: their layout, boot records and telling files, no system.

Built the way each vendor builds its own (grub-mkrescue with GPT and HFS+, genisoimage without Rock
Ridge, UDF with ISO 9660 hiding everything), because that is what a remaster can break. What boots
is a program of ours that says `BIOS` or the given marker on the serial port, and halts.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from tests.support import host_installer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BIOS = "nestlab-bios-"
UEFI = "nestlab-uefi-"
NO_PROMPT = "nestlab-uefi-noprompt"
SECTOR = 512
ENTRIES = 3072
"""Of a FAT12's table of nine sectors."""

BOOT_CFG = """\
bootstate=0
title=Loading ESXi installer
timeout=5
prefix=
kernel=/b.b00
kernelopt=runweasel cdromBoot
modules=/jumpstrt.gz --- /useropts.gz --- /features.gz --- /k.b00 --- /imgdb.tgz
build=8.0.3-0.0.24022510
updated=0
"""
ISOLINUX_CFG = """\
DEFAULT menu.c32
PROMPT 1
TIMEOUT 50

LABEL install
    KERNEL mboot.c32
    APPEND /boot/xen.gz dom0_max_vcpus=1-16 dom0_mem=max:8192M com1=115200,8n1 console=com1,vga --- /boot/vmlinuz console=hvc0 console=tty0 --- /install.img
LABEL shell
    KERNEL mboot.c32
    APPEND /boot/xen.gz dom0_max_vcpus=1-16 dom0_mem=max:8192M --- /boot/vmlinuz console=hvc0 console=tty0 bash-shell --- /install.img
"""
GRUB_CFG = """\
set default="0"
set timeout=5

menuentry "install" {
    multiboot2 /boot/xen.gz dom0_max_vcpus=1-16 dom0_mem=max:8192M com1=115200,8n1 console=com1,vga
    module2 /boot/vmlinuz console=hvc0 console=tty0
    module2 /install.img
}

menuentry "shell" {
    multiboot2 /boot/xen.gz dom0_max_vcpus=1-16 dom0_mem=max:8192M
    module2 /boot/vmlinuz console=hvc0 console=tty0 bash-shell
    module2 /install.img
}
"""


def needs(*programs: str) -> None:
    """Skip the test where the programs that build media are missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


def bios_image(marker: str) -> bytes:
    """A boot image without emulation; its bytes 8 to 63 are left for a boot info table."""
    code = bytes.fromhex(
        "0e 1f"  # push cs; pop ds
        "e8 00 00 5e"  # call +0; pop si: the address of this pop
        "83 c6 1d fc"  # add si, 29: the text; cld
        "ac 84 c0 74 0f"  # next: lodsb; test al, al; jz end
        "50 ba fd 03 ec a8 20 74 fb"  # push ax; mov dx, 3fd; in al, dx; test al, 20; jz
        "58 b2 f8 ee eb ec"  # pop ax; mov dl, f8; out dx, al; jmp next
        "fa f4 eb fd"  # end: cli; hlt; jmp end
    )
    # Longer than a sector of the medium: GRUB's kind of patching writes behind the first 2048.
    return (b"\xeb\x3e".ljust(64, b"\0") + code + marker.encode() + b"\r\n\0").ljust(8192, b"\0")


def uefi_program(marker: str) -> bytes:
    """An x86-64 UEFI application, made byte by byte."""
    code = bytes.fromhex(
        "48 8d 35 1a 00 00 00"  # lea rsi, [rip + text]
        "ac 84 c0 74 12"  # next: lodsb; test al, al; jz end
        "88 c4 66 ba fd 03"  # mov ah, al; mov dx, 3fd
        "ec a8 20 74 fb"  # in al, dx; test al, 20; jz
        "88 e0 b2 f8 ee"  # mov al, ah; mov dl, f8; out dx, al
        "eb e9"  # jmp next
        "f4 eb fd"  # end: hlt; jmp end
    )
    text = (code + marker.encode() + b"\r\n\0").ljust(SECTOR, b"\0")
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    header = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 240, 0x22E)
    optional = struct.pack(
        "<HBBIIIIIQIIHHHHHHIIIIHHQQQQII",
        0x20B, 1, 0, SECTOR, 0, 0, 0x1000, 0x1000, 0x400000, 0x1000, SECTOR,
        0, 0, 0, 0, 0, 0, 0, 0x2000, SECTOR, 0, 10, 0, 0x10000, 0x1000, 0x10000, 0x1000, 0, 16,
    ).ljust(240, b"\0")  # fmt: skip
    section = struct.pack(
        "<8sIIIIIIHHI", b".text", SECTOR, 0x1000, SECTOR, SECTOR, 0, 0, 0, 0, 0x60000020
    )
    return (dos + header + optional + section).ljust(SECTOR, b"\0") + text


def fat_image(marker: str, program: bytes = b"") -> bytes:
    """A FAT12 of 1.44 MB that holds /EFI/BOOT/BOOTX64.EFI, what UEFI starts from a CD."""
    program = program or uefi_program(marker)
    count = -(-len(program) // SECTOR)
    boot = struct.pack(
        "<3s8sHBHBHHBHHHII", b"\xeb\x3c\x90", b"NESTLAB ", SECTOR, 1, 1, 2, 224, 2880, 0xF0, 9,
        18, 2, 0, 0,
    ) + struct.pack("<BBBI11s8s", 0, 0, 0x29, 0x12345678, b"NESTLAB    ", b"FAT12   ")  # fmt: skip
    boot = boot.ljust(510, b"\0") + b"\x55\xaa"
    chain = [0xFF0, 0xFFF, 0xFFF, 0xFFF, *range(5, 4 + count), 0xFFF]
    chain += [0] * (ENTRIES - len(chain))
    table = b"".join(
        (low | high << 12).to_bytes(3, "little")
        for low, high in zip(chain[::2], chain[1::2], strict=True)
    )

    def entry(name: bytes, marks: int, cluster: int, size: int = 0) -> bytes:
        return struct.pack("<11sB14xHI", name, marks, cluster, size)

    def folder(*entries: bytes) -> bytes:
        return b"".join(entries).ljust(SECTOR, b"\0")

    efi = folder(
        entry(b".          ", 0x10, 2), entry(b"..         ", 0x10, 0),
        entry(b"BOOT       ", 0x10, 3),
    )  # fmt: skip
    inner = folder(
        entry(b".          ", 0x10, 3), entry(b"..         ", 0x10, 2),
        entry(b"BOOTX64 EFI", 0x20, 4, len(program)),
    )  # fmt: skip
    root = entry(b"EFI        ", 0x10, 2).ljust(14 * SECTOR, b"\0")
    return (boot + table * 2 + root + efi + inner + program).ljust(2880 * SECTOR, b"\0")


Files = Mapping[str, "bytes | str | Path"]
NOTHING: Files = {}


def _tree(at: Path, files: Files, beside: Files = NOTHING) -> Path:
    """Write ``files``; what is ``beside`` them counts more, and files of this machine are linked."""
    for name, content in {**files, **beside}.items():
        file = at / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, (bytes, str)):
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        else:
            file.symlink_to(content)
    return at


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def proxmox_iso(
    folder: Path,
    *,
    release: str = "8.4",
    product: str = "pve",
    long: str = "Proxmox VE",
    beside: Files = NOTHING,
) -> Path:
    """Proxmox': GRUB's rescue layout, with GPT, HFS+ and a partition for UEFI."""
    needs("xorriso")
    told = f"PRODUCT='{product}'\nPRODUCTLONG='{long}'\nRELEASE='{release}'\nISORELEASE='1'\n"
    tree = _tree(
        folder / "proxmox",
        {
            ".cd-info": told,
            ".disk/info": told,
            "auto-installer-capable": "",
            "boot/grub/i386-pc/eltorito.img": bios_image(f"{BIOS}proxmox"),
            "boot/grub/grub.cfg": "search --fs-uuid --set=root 2024-11-21-12-34-56-00\n",
            "boot/linux26": b"kernel",
            "efi.img": fat_image(f"{UEFI}proxmox"),
            "proxmox/packages/a-package-with-a-rather-long-name_1.2.3-4+deb12u5_amd64.deb": b"deb",
        },
        beside,
    )
    to = folder / f"proxmox-ve_{release}-1.iso"
    _run(
        "xorriso", "-as", "mkisofs", "-quiet", "-f", "-o", str(to), "-V", "PVE", "-r", "-J",
        "-joliet-long", "--modification-date=2024112112345600",
        "-b", "boot/grub/i386-pc/eltorito.img", "-no-emul-boot", "-boot-load-size", "4",
        "-boot-info-table", "--grub2-boot-info", "--protective-msdos-label",
        "-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot", "--efi-boot-part",
        "--efi-boot-image", "-hfsplus", "-apm-block-size", "2048", str(tree),
    )  # fmt: skip
    return to


def esxi_iso(folder: Path, *, boot_cfg: str = BOOT_CFG, beside: Files = NOTHING) -> Path:
    """VMware's: upper case and 8.3, Joliet, no Rock Ridge."""
    needs("genisoimage")
    tree = _tree(
        folder / "esxi",
        {
            "BOOT.CFG": boot_cfg,
            "EFI/BOOT/BOOT.CFG": boot_cfg,
            "EFI/BOOT/BOOTX64.EFI": uefi_program(f"{UEFI}esxi"),
            "ISOLINUX.BIN": bios_image(f"{BIOS}esxi"),
            "ISOLINUX.CFG": "DEFAULT menu.c32\n",
            "EFIBOOT.IMG": fat_image(f"{UEFI}esxi"),
            "B.B00": b"kernel",
            "IMGDB.TGZ": b"images",
        },
        beside,
    )
    to = folder / "VMware-VMvisor-Installer-8.0U3e-24677879.x86_64.iso"
    _run(
        "genisoimage", "-quiet", "-f", "-relaxed-filenames", "-J", "-V", "ESXI-8.0U3E-24677879-STANDARD",
        "-o", str(to), "-b", "ISOLINUX.BIN", "-c", "BOOT.CAT", "-no-emul-boot",
        "-boot-load-size", "4", "-boot-info-table", "-eltorito-alt-boot", "-e", "EFIBOOT.IMG",
        "-no-emul-boot", str(tree),
    )  # fmt: skip
    return to


def xcpng_iso(
    folder: Path,
    *,
    packages: bool = True,
    installer_root: bytes | None = None,
    beside: Files = NOTHING,
) -> Path:
    """XCP-ng's: Rock Ridge and Joliet, isolinux and GRUB; ``installer_root`` is its install.img."""
    if installer_root is None:
        installer_root = host_installer.root()
    needs("genisoimage")
    files: dict[str, bytes | str] = {
        ".treeinfo": "[platform]\nname = XCP\nversion = 3.4.0\n\n"
        "[branding]\nname = XCP-ng\nversion = 8.3.0\n",
        "boot/isolinux/isolinux.bin": bios_image(f"{BIOS}xcpng"),
        "boot/isolinux/isolinux.cfg": ISOLINUX_CFG,
        "boot/isolinux/mboot.c32": b"mboot",
        "boot/efiboot.img": fat_image(f"{UEFI}xcpng"),
        "boot/vmlinuz": b"kernel",
        "boot/xen.gz": b"xen",
        "EFI/xenserver/grub.cfg": GRUB_CFG,
        "install.img": installer_root,
    }
    if packages:
        files["Packages/xapi-core-24.19.2-1.2.xcpng8.3.x86_64.rpm"] = b"rpm"
    tree = _tree(folder / "xcpng", files, beside)
    to = folder / "xcp-ng-8.3.0.iso"
    _run(
        "genisoimage", "-quiet", "-f", "-r", "-J", "--joliet-long", "-V", "XCP-ng 8.3.0", "-o", str(to),
        "-c", "boot/isolinux/boot.cat", "-b", "boot/isolinux/isolinux.bin", "-no-emul-boot",
        "-boot-load-size", "4", "-boot-info-table", "-eltorito-alt-boot", "-e", "boot/efiboot.img",
        "-no-emul-boot", str(tree),
    )  # fmt: skip
    return to


def windows_iso(folder: Path, *, no_prompt: bool = True, beside: Files = NOTHING) -> Path:
    """Microsoft's: everything in UDF, and in ISO 9660 a note that says so."""
    needs("genisoimage")
    files: dict[str, bytes | str] = {
        "README.TXT": "This disc contains a UDF file system.\n",
        "setup.exe": b"MZ",
        "sources/boot.wim": b"MSWIM",
        "sources/install.wim": b"MSWIM" * 1000,
        "boot/bootfix.bin": b"press",
        "boot/etfsboot.com": bios_image(f"{BIOS}windows"),
        "efi/microsoft/boot/efisys.bin": fat_image(f"{UEFI}press-any-key"),
        **{f"sources/replacementmanifests/länge {n}.man": b"%d" % n for n in range(60)},
    }
    if no_prompt:
        files["efi/microsoft/boot/efisys_noprompt.bin"] = fat_image(NO_PROMPT)
    tree = _tree(folder / "windows", files, beside)
    to = folder / "SERVER_EVAL_x64FRE_en-us.iso"
    hidden = [word for name in ("setup.exe", "boot", "efi", "sources") for word in ("-hide", name)]
    _run(
        "genisoimage", "-quiet", "-f", "-udf", "-input-charset", "utf-8", "-V", "SSS_X64FREE_EN-US_DV9",
        *hidden, "-hide", "boot.cat", "-b", "boot/etfsboot.com", "-c", "boot.cat", "-no-emul-boot",
        "-boot-load-size", "8", "-eltorito-alt-boot", "-e", "efi/microsoft/boot/efisys.bin",
        "-no-emul-boot", "-o", str(to), str(tree),
    )  # fmt: skip
    return to


def debian_iso(folder: Path) -> Path:
    """Debian's installer, the ISO that is given in place of every other."""
    needs("xorriso")
    tree = _tree(
        folder / "debian",
        {
            ".disk/info": 'Debian GNU/Linux 12.12.0 "Bookworm" - Official amd64 NETINST\n',
            "isolinux/isolinux.bin": bios_image(f"{BIOS}debian"),
            "isolinux/isolinux.cfg": "default vesamenu.c32\n",
            "boot/grub/grub.cfg": "menuentry 'Install' { linux /install.amd/vmlinuz }\n",
            "install.amd/vmlinuz": b"kernel",
        },
    )
    to = folder / "debian-12.12.0-amd64-netinst.iso"
    _run(
        "xorriso", "-as", "mkisofs", "-quiet", "-o", str(to), "-V", "Debian 12.12.0 amd64 n", "-r",
        "-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot",
        "-boot-load-size", "4", "-boot-info-table", str(tree),
    )  # fmt: skip
    return to


MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "esxi": esxi_iso,
    "hyperv": windows_iso,
    "proxmox": proxmox_iso,
    "xenserver": xcpng_iso,
}
"""The right medium of each kind that has an installer."""


def cut(iso: Path, to: Path) -> Path:
    """The first two thirds of a medium, as a broken download leaves it."""
    data = iso.read_bytes()
    to.write_bytes(data[: len(data) * 2 // 3])
    return to
