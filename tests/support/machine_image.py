"""The root file system of an emulated machine with more than a product's image has: Debian, made once into the cache.

It holds no secret: what a machine is to have of its own comes as a systemd credential (`tests.support.emulated`).
"""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolchain.bootstrap import cache, entries, paths, run
from toolchain.image import image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from toolchain.machine.system import System

BUILD_S = 1500.0
PACK_S = 600.0


@dataclass(frozen=True)
class Recipe:
    """What an image is made from."""

    name: str
    """In the cache, before the hash."""
    suite: str
    components: tuple[str, ...]
    """Of the suite: main, contrib."""
    packages: tuple[str, ...]
    excluded: tuple[str, ...]
    """Paths of packages that are not unpacked."""
    disk_gib: int
    """0: none, and no kernel; the files stay a root.tar."""
    files: Mapping[str, str]
    customize: str
    """A shell script whose argument is the root file system; it writes ``versions`` there."""
    number: int = 1
    """Raised when code changes what comes out; the rest counts by itself."""

    def digest(self) -> str:
        """Hash of all that the image is made from: its name in the cache."""
        told = (self.number, self.suite, self.packages, self.excluded, self.disk_gib)
        whole = repr((*told, sorted(self.files.items()), self.customize))
        return hashlib.sha256(whole.encode()).hexdigest()[:12]


def ensure(system: System, recipe: Recipe) -> Path:
    """Return the folder with root.qcow2 (or root.tar), vmlinuz, initrd and versions; made unless the cache has it.

    Raises:
        Problem: a program is missing, or a step of the making failed.
    """
    final = paths.images() / f"{recipe.name}-{recipe.digest()}"
    with cache.locked(recipe.name):
        if entries.damage(final):
            image.check(system)
            with cache.into_place(final) as making:
                _make(system, making, recipe)
    return final


def mirror(system: System) -> str:
    """Return where this machine's own Debian comes from, or where Debian is for all."""
    suite = image.suite()
    found = [source.split() for source in image.mirrors(system, suite)]
    return next((words[1] for words in found if words[2] == suite), "http://deb.debian.org/debian")


def _make(system: System, making: Path, recipe: Recipe) -> None:
    environment = image.proxies(system) | system.environment()
    root = system.is_root()
    with (making / "overlay.tar").open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for name, text in recipe.files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    (making / "customize").write_text(f"#!/bin/sh\n{recipe.customize}")
    (making / "customize").chmod(0o755)
    source = ("deb", mirror(system), recipe.suite, *recipe.components)
    (making / "sources.list").write_text(f"{' '.join(source)}\n")
    run.run(_mmdebstrap(making, recipe, root=root), timeout=BUILD_S, env=environment)
    script = f"""set -eu
        cd {shlex.quote(str(making))}
        [ -d root ] || {{ mkdir root; tar -xf root.tar -C root; }}
        mv root/boot/vmlinuz-* vmlinuz; mv root/boot/initrd.img-* initrd; mv root/versions versions
        mke2fs -q -t ext4 -m 0 -E lazy_itable_init=0,root_owner=0:0 -d root root.raw {recipe.disk_gib}G
        qemu-img convert -O qcow2 root.raw root.qcow2"""
    if not recipe.disk_gib:
        script = f"""set -eu
        cd {shlex.quote(str(making))}
        [ -d root ] || {{ mkdir root; tar -xf root.tar -C root; }}
        mv root/versions versions; tar -C root -cf root.tar ."""
    words = ["sh", "-c", script]
    run.run(words if root else ["fakeroot", *words], timeout=PACK_S, env=environment)
    for path in making.iterdir():
        if path.name not in {
            *(["root.qcow2", "vmlinuz", "initrd"] if recipe.disk_gib else ["root.tar"]),
            "versions",
        }:
            cache.remove(path)


def _mmdebstrap(making: Path, recipe: Recipe, *, root: bool) -> list[str]:
    kept = shlex.quote(str(making / "overlay.tar"))
    # As the golden image's: what it has started and mounted ends with it.
    start = ["setpriv", "--pdeathsig", "KILL" if root else "TERM"]
    if root:
        start += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    settings = (
        'Apt::Install-Recommends "false"',
        'Acquire::Languages "none"',
        'Acquire::Retries "3"',
        # A mirror may keep the suite as it was some time ago.
        'Acquire::Check-Valid-Until "false"',
    )
    return [
        *start,
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root" if root else "--mode=unshare",
        "--format=dir" if root else "--format=tar",
        f"--components={','.join(recipe.components)}",
        f"--include={','.join(recipe.packages)}",
        *(f"--aptopt={each}" for each in settings),
        *(f"--dpkgopt=path-exclude={each}" for each in recipe.excluded),
        f"--customize-hook=tar-in {kept} /",
        f'--customize-hook={shlex.quote(str(making / "customize"))} "$1"',
        recipe.suite,
        str(making / ("root" if root else "root.tar")),
        str(making / "sources.list"),
    ]
