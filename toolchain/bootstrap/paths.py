"""Where things are: the checkout, its private folder, and the user's cache shared by all checkouts."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from toolchain.bootstrap.ui import Problem

ROOT = Path(__file__).resolve().parents[2]
"""The checkout this code runs from."""

LOCAL = ROOT / ".nestlab"
"""Everything of this checkout that is not committed; ``make clean`` removes it."""
BIN = LOCAL / "bin"
"""The ``pulumi`` wrapper and, where the engine is built here, the Python language host."""
HOME = LOCAL / "home"
"""PULUMI_HOME of this checkout: plugins (links into the cache), credentials, workspaces."""
STATE = LOCAL / "state"
"""The file backend that holds the stacks' state."""
ENV_SH = LOCAL / "env.sh"
"""The one environment file: ``. .nestlab/env.sh`` and plain ``pulumi`` commands work."""
PASSPHRASE = LOCAL / "passphrase"
"""Generated passphrase of the file backend's secrets, mode 0600."""
HOST_JSON = LOCAL / "host.json"
"""The doctor's verdict on this machine, read by the stack loader."""
NETNS = LOCAL / "netns"
"""Name of the network namespace libvirt lives in; absent where libvirt is reached directly."""
KEYS = LOCAL / "keys"
"""Keys of nested hosts by stack and name, written and removed by their gates, mode 0600."""
CONFIG = LOCAL / "config"
"""Copies of the stack files, for the engine to read and to write into (`toolchain.engine.before`)."""
VENV = ROOT / ".venv"
"""Symbolic link to the Python environment in the cache."""


UNSAYABLE = {"Cc", "Cs"}
"""Control characters, and bytes of a name that are no text (PEP 383), as Unicode's categories."""


def check() -> None:
    """Refuse a checkout whose path can't be said in a search path or a text.

    Raises:
        Problem: it has a colon, a control character, or letters of no known encoding.
    """
    path = str(ROOT)
    odd = [each for each in path if each == os.pathsep or unicodedata.category(each) in UNSAYABLE]
    if odd:
        raise Problem(
            f"the checkout lies in {path!r}, and PATH can't name a folder with {odd[0]!r}. Move it to "
            "one without."
        )


def cache() -> Path:
    """Return the user's cache: ``$NESTLAB_CACHE``, else nestlab in the XDG cache folder.

    Raises:
        Problem: the user has no home.
    """
    chosen, base = os.environ.get("NESTLAB_CACHE", ""), os.environ.get("XDG_CACHE_HOME", "")
    if not chosen:
        # One that is not absolute does not count (XDG Base Directory Specification, 0.8).
        chosen = f"{base if base.startswith('/') else '~/.cache'}/nestlab"
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError:
        raise Problem(
            f"{chosen} is nowhere: you have no home folder. Set HOME, or NESTLAB_CACHE to a folder for the cache."
        ) from None


def programs() -> Path:
    """Return the folder of built or fetched programs, one per name, version and hash of pins."""
    return cache() / "programs"


def venvs() -> Path:
    """Return the folder of Python environments, one per hash of the lock file and Python."""
    return cache() / "venvs"


def images() -> Path:
    """Return the folder of golden images, one per hash of what they were made from."""
    return cache() / "images"
