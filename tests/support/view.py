"""Run a program that sees this machine, but with folders of the tests at some absolute paths.

    python view.py FOLDER '{"/vmfs": "/tmp/x/vmfs"}' PROGRAM WORD...

The program gets a mount namespace and a root folder of its own; nothing shows outside, and all of it
is gone when its last process ends. A path that this machine has not (``/vmfs``) is added by covering
the folder above it, ``/``, with an empty one into which everything that was there is mounted again.
``FOLDER`` is where the new root hangs. Needs root.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

NEW_NAMESPACE = 0x20000
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000
"""Flags of unshare(2) and mount(2)."""

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """See the module."""
    view, shown, program, *words = sys.argv[1:]
    if _libc.unshare(NEW_NAMESPACE):
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("none", Path("/"), RECURSIVE | PRIVATE)
    root = Path(view)
    root.mkdir(exist_ok=True)
    _mount("/", root, BIND | RECURSIVE)
    ours: set[Path] = set()
    for path, folder in json.loads(shown).items():
        _mount(folder, _point(root, path, ours), BIND)
    os.chroot(root)
    os.chdir("/")
    os.execv(program, [program, *words])  # noqa: S606 - it takes this one's place and pid


def _point(root: Path, path: str, ours: set[Path]) -> Path:
    """Return the folder of ``root`` that is ``path``, made without touching the machine's own."""
    at = root
    for part in Path(path).parts[1:]:
        below = at / part
        if not below.is_dir():
            if at not in ours:
                _cover(at, root.with_name(f"{root.name}-{len(ours)}"))
                ours.add(at)
            below.mkdir()
            ours.add(below)
        at = below
    return at


def _cover(folder: Path, hold: Path) -> None:
    """Put an empty folder over ``folder`` and what was in it into that."""
    hold.mkdir(exist_ok=True)
    _mount(str(folder), hold, BIND | RECURSIVE)
    _mount("tmpfs", folder, 0, kind="tmpfs", data="mode=0755")
    for each in hold.iterdir():
        again = folder / each.name
        if each.is_symlink():
            again.symlink_to(each.readlink())
            continue
        if each.is_dir():
            again.mkdir()
        else:
            again.touch()
        _mount(str(each), again, BIND | RECURSIVE)


def _mount(what: str, at: Path, flags: int, *, kind: str = "none", data: str = "") -> None:
    words = [word.encode() for word in (what, str(at), kind)]
    if _libc.mount(*words, flags, data.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {what}: {os.strerror(number)}", str(at))


if __name__ == "__main__":
    main()
