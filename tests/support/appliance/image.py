"""The appliance's image: made from Debian's packages once, and completed with what is served in seconds.

It boots by GRUB from its disk, as golden images of Xen do (`toolchain.image.disk`): a file system that is
the whole disk. The same kernel and initial RAM disk boot from a CD, by BIOS and by UEFI, and install.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import py_compile
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from components.media import cpio
from toolchain.bootstrap import cache, paths
from toolchain.image import disk, image
from toolchain.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent
CODE = "/opt/nestlab"
SIZE_MIB = 192
RECIPE = 1
"""Raised when code changes what comes out; the texts below count by themselves."""
PACKAGES = (
    *("linux-image-amd64", "busybox-static", "python3", "python3-yaml", "openssh-server"),
    *("openssh-sftp-server", "coreutils", "findutils", "dash", "libc-bin", "e2fsprogs", "openssl"),
    *("grub-pc-bin", "grub-efi-amd64-bin", "grub-common"),
)
STORAGE = (
    *("ahci", "ata_piix", "sd_mod", "sr_mod", "virtio_pci", "virtio_blk", "virtio_scsi"),
    *("mptsas", "sym53c8xx", "usb-storage", "xhci-pci", "ehci-pci", "uhci-hcd"),
    *("ext4", "crc32c_generic", "isofs", "udf", "vfat", "nls_iso8859-1", "nls_cp437", "nls_ascii"),
)
NETWORK = ("virtio_net", "e1000", "e1000e", "vmxnet3")
WORDS = "console=ttyS0 quiet panic=10 mitigations=off"
DISK_CFG = f"""\
linux /boot/vmlinuz nestlab=run {WORDS}
initrd /boot/initrd
boot
"""
CD_CFG = f"""\
linux /appl/vmlinuz nestlab=install {WORDS}
initrd /appl/initrd
boot
"""
UEFI_CFG = """\
search --no-floppy --file --set=root /appl/vmlinuz
search --no-floppy --file --set=root /boot/installed
configfile /appl/boot.cfg
"""
"""The installed disk's own menu where there is one, else the CD's: no partition for UEFI is made."""
INIT = """\
#!/bin/busybox sh
PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /disk /cd
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" 2>/dev/null; done < /modules/order
mode=$(sed -n 's/.*nestlab=\\([a-z]*\\).*/\\1/p' /proc/cmdline)
try=0
if [ "$mode" = install ]; then
    while :; do
        disk= cds= from=
        for each in /sys/block/sd* /sys/block/vd*; do
            [ "$(cat $each/removable 2>/dev/null)$(cat $each/ro 2>/dev/null)" = 00 ] || continue
            [ "$(cat $each/size)" -gt 8000000 ] && disk=/dev/${each##*/}
        done
        for each in /sys/block/sr*; do
            [ -e "$each" ] || continue
            mkdir -p "/cd/${each##*/}"
            mount -o ro -t iso9660 "/dev/${each##*/}" "/cd/${each##*/}" 2>/dev/null ||
                mount -o ro -t udf "/dev/${each##*/}" "/cd/${each##*/}" 2>/dev/null || continue
            cds="$cds /cd/${each##*/}"
            [ -f "/cd/${each##*/}/appl/disk.img" ] && from=/cd/${each##*/}
        done
        [ -n "$disk" ] && [ -n "$from" ] && break
        umount $cds 2>/dev/null
        try=$((try + 1)); [ $try -gt 50 ] && echo "appliance: no disk ($disk) or no CD ($cds)" && exec sh
        sleep 0.2
    done
    echo "appliance: installs from $from to $disk"
    dd if=$from/appl/disk.img of=$disk bs=1M 2>/dev/null
    mount -t ext4 $disk /disk || exec sh
    for each in proc sys dev; do mount -o bind /$each /disk/$each; done
    mkdir -p /disk/cd && mount -o rbind /cd /disk/cd
    CDS="$from $cds" PYTHONPATH=/opt/nestlab PYTHONDONTWRITEBYTECODE=1 \\
        chroot /disk /usr/bin/python3 -S -m tests.support.appliance.main install || {
        echo "appliance: the installation failed"; while :; do sleep 60; done; }
    touch /disk/boot/installed
    sync
    umount -l /disk/cd
    for each in proc sys dev; do umount /disk/$each; done
else
    until disk=$(findfs LABEL=appliance) && [ -n "$disk" ]; do
        try=$((try + 1)); [ $try -gt 50 ] && echo "appliance: its disk is not there" && exec sh
        sleep 0.2
    done
    mount -t ext4 "$disk" /disk || exec sh
fi
echo "$disk" > /dev/.disk
mount -o move /dev /disk/dev
umount /sys /proc 2>/dev/null
exec switch_root /disk /sbin/init
"""
BOOT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /run
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
while read -r module; do busybox insmod "/lib/modules/net/$module" 2>/dev/null; done < /lib/modules/net/order
busybox ip link set lo up
resize2fs "$(cat /dev/.disk)" >/dev/null 2>&1
exit 0
"""
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nAdministrator:x:0:0::/root:/bin/sh\n"
    "sshd:x:100:65534::/run/sshd:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\ntty:x:5:\n",
    "etc/shadow": "root:*:19000::::::\nAdministrator:*:19000::::::\nsshd:!:19000::::::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "appl/boot.cfg": DISK_CFG,
    "etc/inittab": "::sysinit:/boot.sh\n"
    "::respawn:/usr/bin/env PYTHONPATH=/opt/nestlab PYTHONDONTWRITEBYTECODE=1 "
    "/usr/bin/python3 -m tests.support.appliance.main\n::ctrlaltdel:/bin/busybox reboot\n",
}
DROPPED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/perl"),
    *("usr/lib/x86_64-linux-gnu/perl", "usr/lib/x86_64-linux-gnu/perl-base", "usr/share/grub"),
    *("usr/share/i18n", "usr/share/zoneinfo", "usr/share/bash-completion", "usr/lib/grub"),
    *("var/cache", "var/lib/apt", "usr/share/lintian", "usr/share/common-licenses"),
    *("usr/lib/udev", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/python3*/pydoc_data"),
    *("usr/bin/grub-*", "usr/sbin/grub-*", "usr/bin/perl*", "usr/lib/x86_64-linux-gnu/libperl*"),
    *("usr/bin/udevadm", "usr/lib/systemd"),
)
"""What none of the products has a use for: each MiB is copied four times before the machine boots."""
LOADERS = {
    "core.img": ("i386-pc", "/boot/grub", DISK_CFG, "biosdisk ext2 linux"),
    "eltorito.img": ("i386-pc-eltorito", "/boot/grub", CD_CFG, "biosdisk iso9660 udf linux"),
    "bootx64.efi": (
        "x86_64-efi",
        "/boot/grub",
        UEFI_CFG,
        "part_gpt part_msdos fat ext2 iso9660 udf linux search search_fs_file normal configfile",
    ),
}


BESIDE = (
    "tests/__init__.py",
    "components/__init__.py",
    "components/reach/__init__.py",
    "components/kinds/hyperv/powershell.py",
    "components/kinds/hyperv/powershell.ps1",
)
"""What stubs load beside their own package."""
INSTALLED = ("fakepve",)
"""What of this environment is served, for which the image's Python has to be of the same release."""


@dataclass(frozen=True)
class Image:
    """What an appliance is made of."""

    disk: Path
    """Raw."""
    kernel: Path
    initrd: Path
    bios: Path
    """GRUB for a CD without emulation."""
    uefi: Path


def base() -> Path:
    """Return the folder with the image without what is served, made now if it is not there."""
    if os.geteuid() != 0:
        pytest.skip("only root can make the appliance's image")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap: run `make host`")
    parts = (RECIPE, SIZE_MIB, PACKAGES, STORAGE, NETWORK, INIT, BOOT, FILES, DROPPED, LOADERS)
    told = hashlib.sha256(repr((*parts, image.suite())).encode()).hexdigest()[:12]
    final = paths.images() / f"appliance-{told}"
    with cache.locked("appliance"):
        if not final.is_dir():
            with cache.into_place(final) as making:
                _make(making)
    return final


def image_of(folder: Path, more: Iterable[tuple[Path, str]] = ()) -> Image:
    """Return an image in ``folder`` that serves the stubs of this checkout; ``more`` are files and places."""
    made = base()
    disk = folder / "appliance.raw"
    _run("cp", "--sparse=always", str(made / "root.raw"), str(disk))
    _put(disk, [*_compiled(code(), folder / "compiled"), *more])
    names = ("vmlinuz", "initrd", "eltorito.img", "bootx64.efi")
    return Image(disk, *(made / name for name in names))


def code() -> list[tuple[Path, str]]:
    """Return the files of what is served, and their places below `CODE`: stubs and what they load."""
    support = HERE.parent
    own = (
        *(support / "__init__.py", support / "pve.py"),
        *(*HERE.glob("*.py"), *(support / "stubs").glob("*.py")),
    )
    found = [(each, f"tests/support/{each.relative_to(support)}") for each in own]
    found += [(paths.ROOT / name, name) for name in BESIDE]
    return found + [file for name in INSTALLED for file in distribution(name)]


def distribution(name: str, seen: set[str] | None = None) -> Iterator[tuple[Path, str]]:
    """Yield the files of what is installed here as ``name``, and of all it needs; places as in site-packages."""
    seen = set() if seen is None else seen
    if name in seen:
        return
    seen.add(name)
    found = metadata.distribution(name)
    for file in found.files or ():
        if ".." not in file.parts and file.suffix not in {".pyc", ".pyi"}:
            yield Path(str(found.locate_file(file))), str(file)
    for told in map(Requirement, found.requires or ()):
        if told.marker is None or told.marker.evaluate({"extra": ""}):
            yield from distribution(told.name, seen)


def _compiled(files: Iterable[tuple[Path, str]], folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield ``files`` with their places in the image, and Python's compiled: that takes long under emulation."""
    for file, name in files:
        place = f"{CODE}/{name}"
        yield file, place
        if file.suffix == ".py":
            made = Path(cache_from_source(str(folder / name)))
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(file), str(made), place, doraise=True, invalidation_mode=mode)
            yield made, f"{Path(place).parent}/__pycache__/{made.name}"


def _put(disk: Path, files: Iterable[tuple[Path, str]]) -> None:
    """Write files into the image, which needs no mount."""
    files = list(files)
    folders = {str(above) for _, to in files for above in Path(to).parents} - {"/"}
    lines = [f"mkdir {each}" for each in sorted(folders)]
    lines += [f"write {source} {to}" for source, to in files]
    subprocess.run(
        ["debugfs", "-w", "-f", "-", str(disk)],
        input="\n".join(lines),
        text=True,
        capture_output=True,
        timeout=120,
        check=True,
    )


def _make(making: Path) -> None:
    root = making / "root"
    system = System()
    _extract(system, making, root)
    _loaders(making, root)
    _kernel(making, root)
    for found in [each for name in DROPPED for each in root.glob(name)]:
        cache.remove(found)
    for name, content in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content)
    for each in ("proc", "sys", "dev", "run", "root", "tmp", "var/lib/appliance"):
        (root / each).mkdir(parents=True, exist_ok=True)
    (root / "boot.sh").write_text(BOOT)
    (root / "boot.sh").chmod(0o755)
    (root / "usr/sbin/init").unlink(missing_ok=True)
    (root / "usr/sbin/init").symlink_to("/bin/busybox")
    for name in ("mount", "umount", "ip", "sed", "grep", "awk"):
        if not (root / "usr/bin" / name).exists():
            (root / "usr/bin" / name).symlink_to("busybox")
    [library] = root.glob("usr/lib/python3.*")
    _run(
        "chroot",
        str(root),
        "/usr/bin/python3",
        "-m",
        "compileall",
        "-q",
        f"/usr/lib/{library.name}",
    )
    _run(
        *("mke2fs", "-q", "-t", "ext4", "-b", str(disk.BLOCK), "-O", disk.FEATURES),
        *("-L", "appliance", "-m", "0", "-E", "lazy_itable_init=0,root_owner=0:0"),
        *("-d", str(root), str(making / "root.raw"), f"{SIZE_MIB}M"),
    )
    disk.install_loader(system, making)
    for left in (root, making / "initrd.cpio", making / "sources.list"):
        cache.remove(left)


def _extract(system: System, making: Path, root: Path) -> None:
    """Unpack the packages; nothing of them is run."""
    sources = image.mirrors(system, image.suite())
    (making / "sources.list").touch(mode=0o600)
    (making / "sources.list").write_text("".join(f"{line}\n" for line in sources))
    merged = (
        'mkdir -p "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/usr/lib64" && '
        'for d in bin sbin lib lib64; do ln -s usr/$d "$1/$d"; done'
    )
    _run(
        *("mmdebstrap", "--variant=extract", "--mode=root", "--format=directory"),
        *("--quiet", f"--setup-hook={merged}", '--aptopt=APT::Install-Recommends "false"'),
        *('--aptopt=Acquire::Languages "none"', "--dpkgopt=path-exclude=/usr/share/doc/*"),
        *(f"--include={','.join(PACKAGES)}", image.suite(), str(root)),
        *([str(making / "sources.list")] if sources else []),
        environment=image.proxies(system) | system.environment(),
    )


def _loaders(making: Path, root: Path) -> None:
    """Make GRUB for the disk and for CDs."""
    for name, (target, prefix, config, modules) in LOADERS.items():
        (root / "cfg").write_text(config)
        words = ["grub-mkimage", "-O", target, "-p", prefix, "-c", "/cfg", "-o", "/out"]
        _run("chroot", str(root), *words, *modules.split())
        (root / "cfg").unlink()
        shutil.move(root / "out", making / name)
    grub = root / "boot" / "grub"
    grub.mkdir(parents=True)
    shutil.move(making / "core.img", grub / "core.img")
    shutil.copy(root / "usr/lib/grub/i386-pc/boot.img", grub / "boot.img")


def _kernel(making: Path, root: Path) -> None:
    """Keep the kernel, an initial RAM disk with what is needed to boot, and drivers of NICs."""
    [kernel] = (root / "boot").glob("vmlinuz-*")
    shutil.move(kernel, root / "boot" / "vmlinuz")
    for left in (*root.glob("boot/System.map*"), *root.glob("boot/config*")):
        left.unlink()
    inside = {"init": INIT.encode(), "bin/busybox": (root / "usr/bin/busybox").read_bytes()}
    [modules_of] = (root / "usr/lib/modules").iterdir()
    drivers = _modules(modules_of)
    order = _ordered(STORAGE, drivers)
    inside |= {f"modules/{name}.ko": drivers[name] for name in order}
    inside["modules/order"] = "".join(f"{name}.ko\n" for name in order).encode()
    (making / "initrd.cpio").write_bytes(cpio.archive(inside))
    initrd = root / "boot" / "initrd"
    _run("zstd", "-q", "-9", "-f", str(making / "initrd.cpio"), "-o", str(initrd))
    network = [name for name in _ordered(NETWORK, drivers) if name not in order]
    shutil.rmtree(modules_of)
    net = root / "usr/lib/modules/net"
    net.mkdir()
    for name in network:
        (net / f"{name}.ko").write_bytes(drivers[name])
    (net / "order").write_text("".join(f"{name}.ko\n" for name in network))
    for name in ("vmlinuz", "initrd"):
        shutil.copy(root / "boot" / name, making / name)


def _modules(folder: Path) -> dict[str, bytes]:
    """Return the kernel's modules by name, as it has them in memory."""
    wanted = {}
    for path in folder.rglob("*.ko*"):
        name = path.name.partition(".")[0].replace("-", "_")
        wanted[name] = path
    return _Lazy(wanted)


class _Lazy(dict[str, bytes]):
    """Reads a module when it is asked for."""

    def __init__(self, known: dict[str, Path]) -> None:
        super().__init__()
        self._known = known

    def __missing__(self, name: str) -> bytes:
        path = self._known[name]
        data = path.read_bytes()
        self[name] = lzma.decompress(data) if path.suffix == ".xz" else data
        return self[name]

    def knows(self, name: str) -> bool:
        return name in self._known


def _ordered(names: Iterable[str], drivers: dict[str, bytes]) -> list[str]:
    """Return ``names`` and what they need, needs first; what the kernel has built in is left out."""
    found: list[str] = []

    def add(name: str) -> None:
        name = name.replace("-", "_")
        assert isinstance(drivers, _Lazy)
        if name in found or not drivers.knows(name):
            return
        for told in re.findall(rb"\0depends=([^\0]*)\0", drivers[name]):
            for need in filter(None, told.decode().split(",")):
                add(need)
        found.append(name)

    for name in names:
        add(name)
    return found


def _run(*words: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=600, check=False, env=environment
    )
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def cloud_image(appliance: Image, to: Path) -> None:
    """Write it as the image that a cloud's maker hands out.

    Packed, which takes 7 s of a processor: the stacks send it into their nested host too, for its guests,
    and that takes longer by SSH into an emulated one (62 MB, 151 MB as it is).
    """
    _run("qemu-img", "convert", "-c", "-O", "qcow2", str(appliance.disk), str(to))


def beside(appliance: Image, loader: str = "") -> dict[str, bytes | str | Path]:
    """Return what makes a vendor's ISO boot the appliance's installer; ``loader`` is its image for BIOS."""
    return {
        **({loader: appliance.bios} if loader else {}),
        "appl/boot.cfg": CD_CFG,
        "appl/vmlinuz": appliance.kernel,
        "appl/initrd": appliance.initrd,
        "appl/disk.img": appliance.disk,
    }
