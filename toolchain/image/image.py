"""The golden images of nested hosts, made from Debian's packages (``python3 -m toolchain image``).

There are variants, a folder of ``image/`` each, laid over ``image/common``: ``kvm``, and ``xen``,
which is made only when it is asked for. An image is kept in the cache by the hash of all that it is
made from, so a change of any file there makes another image and a second run makes none. It holds
no secret: keys and names reach each clone through its seed (``image/common/root/usr/lib/nestlab/seed``).

This leaves out the disk and its first boot (``disk.py``), how the image reaches libvirt
(``golden.py``), and any distribution but Debian.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import io
import os
import shlex
import tarfile
from pathlib import Path

from toolchain.bootstrap import cache, entries, paths, run, ui
from toolchain.image import disk, golden
from toolchain.machine import daemons
from toolchain.machine.system import System

SOURCES = Path(__file__).resolve().parent
COMMON = "common"
VARIANTS = ("kvm", "xen")
"""What can be asked for; the first is the default."""
SCRIPTS = ("customize", "initrd-init", "variant", "busybox-template.sed")
"""Files of the variant's or the common folder that `customize`, one of them, works with."""
RECIPE = 3
"""Raised when code changes what comes out; the files in ``SOURCES`` count by themselves."""
OS_RELEASE = Path("/etc/os-release")
DEFAULT_SUITE = "bookworm"
OLDEST_DEBIAN = 12
"""The first Debian with what the recipe relies on (merged /usr, networkd's and libvirt's versions)."""
BUILD_S = 1200.0
"""Deadline for mmdebstrap, seconds; a minute with a near mirror, mostly unpacking."""


def folders(variant: str) -> tuple[Path, Path]:
    """The folders a variant is made from; what lies in the second counts more."""
    return SOURCES / COMMON, SOURCES / variant


def listed(variant: str, name: str) -> list[str]:
    """Lines of the files ``name`` without comments."""
    texts = [(folder / name).read_text() for folder in folders(variant)]
    lines = (line.strip() for text in texts for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def suite() -> str:
    """Debian's release to build: this machine's own when it is Debian 12 or newer."""
    try:
        told = OS_RELEASE.read_text()
    except FileNotFoundError:
        return DEFAULT_SUITE
    facts = dict(line.split("=", 1) for line in shlex.split(told) if "=" in line)
    version = facts.get("VERSION_ID", "")
    new_enough = version.isdecimal() and int(version) >= OLDEST_DEBIAN
    return (
        facts["VERSION_CODENAME"] if facts.get("ID") == "debian" and new_enough else DEFAULT_SUITE
    )


def digest(variant: str, of_suite: str) -> str:
    """Hash of everything the image is made from; its name in the cache and in libvirt."""
    told = hashlib.sha256(f"{RECIPE}\0{variant}\0{of_suite}\0{disk.ROOT_GIB}\0".encode())
    for folder in folders(variant):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            told.update(f"{path.relative_to(SOURCES).as_posix()}\0{len(content)}\0".encode())
            told.update(content)
    return told.hexdigest()[:12]


def overlay(variant: str) -> bytes:
    """What lies over the packages' files, as a tar: root's, and executable when it is a script."""
    packed = io.BytesIO()
    files: dict[str, Path] = {}
    for folder in folders(variant):
        root = folder / "root"
        files |= {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
        files |= {f"nestlab-{name}": folder / name for name in SCRIPTS if (folder / name).exists()}
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, path in sorted(files.items()):
            if not path.is_file():
                continue
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def mirrors(system: System, of_suite: str) -> list[str]:
    """Source lines of apt for ``of_suite`` from this machine's own configuration; empty without any.

    apt itself is asked, as it alone understands every way to write its sources. Other publishers
    use Debian's suite names too, so a source counts when its own index says Debian, or, before the
    first ``apt-get update``, when its address does.
    """
    fields = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    asked = system.run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"])
    wanted = {of_suite, f"{of_suite}-updates", f"{of_suite}-security"}
    found: list[str] = []
    for line in asked.out.splitlines():
        origin, address, release, component = line.rsplit("|", 3)
        ours = origin == "Debian" or (
            origin.startswith("$") and "debian" in address.rstrip("/").split("/")[-1]
        )
        source = f"deb {address} {release} {component}"
        if ours and release in wanted and component == "main" and source not in found:
            found.append(source)
    # Updates alone make no system.
    return found if any(source.split()[2] == of_suite for source in found) else []


def proxies(system: System) -> dict[str, str]:
    """Proxies of this machine's apt, as environment: mmdebstrap's apt reads no other settings of it.

    Not as options of a command, where everybody would see a password in them.
    """
    wanted = {"Acquire::http::Proxy": "http_proxy", "Acquire::https::Proxy": "https_proxy"}
    told = system.run(["apt-config", "dump", "--format", "%f %v%n"]).out
    pairs = (line.split(maxsplit=1) for line in told.splitlines() if len(line.split()) > 1)
    return {wanted[name]: value.strip() for name, value in pairs if name in wanted}


def command(
    making: Path, variant: str, of_suite: str, sources: list[str], *, root: bool
) -> list[str]:
    """Command line of mmdebstrap: into a folder as root, into a tar without.

    ``sources`` are read from a file: the address of a mirror may carry a password.
    """
    quoted = shlex.quote(str(making / "overlay.tar"))
    words = ["mmdebstrap", "--variant=minbase", "--mode=root" if root else "--mode=unshare"]
    words += ["--format=dir" if root else "--format=tar"]
    words += [f"--include={','.join(listed(variant, 'packages'))}"]
    settings = (
        'APT::Install-Recommends "false"',
        'Acquire::Languages "none"',
        'Acquire::Retries "3"',
    )
    words += [f"--aptopt={setting}" for setting in settings]
    words += [f"--dpkgopt=path-exclude={pattern}" for pattern in listed(variant, "excluded")]
    words += [
        f"--customize-hook=tar-in {quoted} /",
        '--customize-hook=chroot "$1" /nestlab-customize',
    ]
    target = making / ("root" if root else "root.tar")
    # A killed set-up takes mmdebstrap along. Root's in namespaces of its own: whatever it started and
    # mounted ends with it, as the next run's tidying would follow a mount left in the cache into /proc.
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    start = (
        ["setpriv", "--pdeathsig", "KILL", *apart] if root else ["setpriv", "--pdeathsig", "TERM"]
    )
    return [
        *start,
        *words,
        of_suite,
        str(target),
        *([str(making / "sources.list")] if sources else []),
    ]


def ensure(system: System, variant: str) -> Path:
    """Return the folder with root.qcow2 and, where labs boot them directly, vmlinuz and initrd.

    They are made unless the cache has them.

    Raises:
        Problem: a program is missing, or a step of the making failed.
    """
    of_suite = suite()
    final = paths.images() / digest(variant, of_suite)
    if _damage(system, final):
        with cache.locked("image"):
            if wrong := _damage(system, final):
                if final.exists():
                    ui.say(f"{wrong}: the image is made again")
                check(system)
                # What is in it is for all users of the machines that are made from it.
                before = os.umask(daemons.UMASK)
                try:
                    with cache.into_place(final) as making:
                        make(system, making, variant, of_suite)
                finally:
                    os.umask(before)
    return final


def _damage(system: System, final: Path) -> str:
    """Return what is wrong with the image in ``final``, in words; empty when nothing is."""
    if final.is_dir() and not (final / entries.MANIFEST).exists() and _is_whole(system, final):
        entries.seal(final)  # made before entries had a list of what is in them
    return entries.damage(final)


def _is_whole(system: System, folder: Path) -> bool:
    boot = [(folder / name).is_file() for name in ("vmlinuz", "initrd")]
    disk = folder / "root.qcow2"
    return (
        boot[0] == boot[1] and system.run(["qemu-img", "check", "-q", str(disk)], timeout_s=120).ok
    )


def check(system: System) -> None:
    """Refuse before the minute is spent, rather than after.

    Raises:
        Problem: naming every missing program and right.
    """
    needed = {"mmdebstrap": "mmdebstrap", "qemu-img": "qemu-utils", "mke2fs": "e2fsprogs"}
    needed |= {"qemu-system-x86_64": "qemu-system-x86", "setpriv": "util-linux"}
    if not system.is_root():
        needed |= {"newuidmap": "uidmap", "fakeroot": "fakeroot"}
    if lacking := [package for program, package in needed.items() if not system.which(program)]:
        why = "" if system.is_root() else " (or run this as root, which needs less)"
        raise ui.Problem(
            f"the image cannot be made: {', '.join(lacking)} missing.\n"
            f"Install them: sudo apt-get install --no-install-recommends {' '.join(lacking)}{why}"
        )
    if not system.is_root() and not _has_subordinate_ids():
        raise ui.Problem(
            f"the image cannot be made: {getpass.getuser()} has no subordinate user ids, and files of"
            " many owners need them.\nRun `sudo usermod --add-subuids 100000-165535 --add-subgids"
            f" 100000-165535 {getpass.getuser()}`, or run this as root."
        )


def _has_subordinate_ids() -> bool:
    names = (f"{getpass.getuser()}:", f"{os.getuid()}:")
    try:
        lines = [Path(f"/etc/{name}").read_text().splitlines() for name in ("subuid", "subgid")]
    except FileNotFoundError:
        return False
    return all(any(line.startswith(names) for line in told) for told in lines)


def make(system: System, making: Path, variant: str, of_suite: str) -> None:
    """Fill ``making`` with the image's files.

    Raises:
        Problem: naming the step that failed, with its last words.
    """
    root = system.is_root()
    title = f"golden image ({variant})"
    with ui.step(f"{title}: Debian's packages", "about a minute, once"):
        install(system, making, variant, of_suite, root=root)
    with ui.step(f"{title}: file system"):
        disk.pack(system, making, variant, root=root)
    with ui.step(f"{title}: first boot", "half a minute under emulation"):
        disk.prove(system, making, variant, SOURCES / variant / "prove")
    with ui.step(f"{title}: disk"):
        disks = [str(making / "root.raw"), str(making / "root.qcow2")]
        run.run(
            ["qemu-img", "convert", "-O", "qcow2", *disks], timeout=300, env=system.environment()
        )
    kept = {"root.qcow2", "vmlinuz", "initrd"}
    for path in [path for path in making.iterdir() if path.name not in kept]:
        cache.remove(path)


def install(system: System, making: Path, variant: str, of_suite: str, *, root: bool) -> None:
    """Run mmdebstrap."""
    (making / "overlay.tar").write_bytes(overlay(variant))
    sources = mirrors(system, of_suite)
    where = "this machine's apt sources" if sources else "mmdebstrap's default mirror"
    remedy = (
        f"The packages come from {where}, suite {of_suite}. Check that `apt-get update` works here and that"
        f" {paths.images()} has 3 GB free, and run the same command again."
    )
    environment = proxies(system) | system.environment()
    # From a file: a failure shows the command, and this one is long enough to hide what it said.
    (making / "sources.list").touch(mode=0o600)
    (making / "sources.list").write_text("".join(f"{line}\n" for line in sources))
    script = making / "mmdebstrap.sh"
    script.write_text(
        f"exec {shlex.join(command(making, variant, of_suite, sources, root=root))}\n"
    )
    run.run(["sh", script], timeout=BUILD_S, remedy=remedy, env=environment)


def main(argv: list[str]) -> int:
    """Make a golden image unless it is there, hand it to libvirt, and tell labs of it."""
    parser = argparse.ArgumentParser(prog="python3 -m toolchain image", description=main.__doc__)
    parser.add_argument(
        "variant", nargs="?", choices=VARIANTS, default=VARIANTS[0], help="default: %(default)s"
    )
    variant = parser.parse_args(argv).variant
    system = System()
    folder = ensure(system, variant)
    golden.publish(system, folder, variant, disk.ROOT_GIB)
    return 0
