"""States from somebody else: what in one would make the next command run, read or remove what is not the lab's.

A state is data, but some of it is obeyed: dynamic providers are pickles, a libvirt's URI may name a
program that connects, a folder of keys is emptied when the lab goes. What nestlab never writes there
is refused before anything works with it. All pairs are looked at as they stand in the file: other
readers take another one where a key is given twice.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from toolchain import paths, providers, state, ui

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMES = {"qemu", "qemu+ssh"}
OPTIONS = {
    "keyfile",
    "knownhosts",
    "known_hosts_verify",
    "sshauth",
    "socket",
    "no_verify",
    "no_tty",
}
"""Of a libvirt's URI (components/spec/values.py), and what earlier versions took. Of others, as
``command`` and ``netcat``, libvirt runs the value."""
ZSTD = b"(\xb5/\xfd"
"""Begins what PULUMI_DIY_BACKEND_ZSTD writes, and this Python can't unpack."""
AUTHORITY = re.compile(
    r"(([A-Za-z0-9_][\w.-]*@)?([A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+\])(:\d+)?)?", re.ASCII
)
"""What begins with - would be an option of ssh."""
OURS = "$NESTLAB_KEYS/"
"""The one variable in a URI, of a nested host's (components/hypervisors/kvm.py): the provider puts any in."""
KEYS = re.compile(r"(?!.*/\.\.(/|$))/.*/\.nestlab/keys(/[^/]+){1,2}")
"""A folder of a stack's keys, or of one of its hosts'; of another checkout if this one was moved."""
SPECIAL = "4dabf18193072939515e22adb298388d"
"""Marks a value as special for the engine (pulumi's resource.SigKey)."""


def refuse(file: Path) -> None:
    """See to it that the state in ``file`` has nothing that nestlab does not write.

    Raises:
        Problem: it has, or can't be read.
    """
    try:
        wrong = found_in(_text(file))
    except (ValueError, RecursionError):
        raise _unreadable(file) from None
    if wrong:
        raise ui.Problem(
            f"{file} holds {wrong} that nestlab did not put there: a state from somebody else may do anything"
            " at the next command.\nGet the state from whom you trust, or remove it"
            f" (`pulumi stack rm --force --stack {state.stack_in(file)}`)."
        )


def _text(file: Path) -> bytes:
    raw = file.read_bytes()
    if raw.startswith(ZSTD):
        words = [str(paths.BIN / "pulumi"), "stack", "export", "--stack", state.stack_in(file)]
        done = subprocess.run(words, cwd=paths.ROOT, capture_output=True, check=False)
        if done.returncode:
            raise _unreadable(file)
        return done.stdout
    try:
        return gzip.decompress(raw) if raw[:2] == state.GZIP else raw
    except (OSError, EOFError, zlib.error):
        raise _unreadable(file) from None


def _unreadable(file: Path) -> ui.Problem:
    kept = file.with_name(f"{file.name}{state.BACKUP}")
    older = f" What it held before is in {kept}." if kept.is_file() else ""
    return ui.Problem(
        f"{file} is cut or damaged, and nobody knows what the lab consists of.{older}"
    )


def found_in(told: bytes) -> str:
    """Return what ``told``, a state, holds that is not nestlab's, in words; empty for nothing.

    Raises:
        ValueError, RecursionError: it is cut, or no state.
    """
    found: list[str] = []

    def pairs(each: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = {key for key, _ in each}
        found.extend(filter(None, (_wrong(key, value) for key, value in each)))
        if SPECIAL in keys and "plaintext" in keys:
            found.append("secrets in clear")
        return dict(each)

    json.loads(told, object_pairs_hook=pairs)
    return found[0] if found else ""


def _wrong(key: str, value: object) -> str:
    if not isinstance(value, str):
        return ""
    if key == "__provider" and providers.is_foreign(value):
        return "programs"
    if key == "uri" and "://" in value and not sound(value):
        return "the address of a libvirt"
    if key in {"private", "key_folder"} and value.startswith(("/", "~", ".")):
        return "" if KEYS.fullmatch(value) else "a folder"
    return ""


def sound(uri: str) -> bool:
    """Whether ``uri`` is one of a libvirt that nestlab may write, which runs no program here."""
    try:
        parts = urlsplit(uri)
        options = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    except ValueError:
        return False
    return (
        parts.scheme in SCHEMES
        and bool(AUTHORITY.fullmatch(parts.netloc))
        and options <= OPTIONS
        and not {";", "#"} & set(uri)
        and "$" not in unquote(unquote(uri.replace(OURS, "")))
    )


def refuse_command(row: Mapping[str, Any]) -> None:
    """See to it that what opens a machine of this host, as its state says, is virsh's console.

    Raises:
        Problem: it is another command.
    """
    match row["enter"]:
        case ["virsh", "-c", str(uri), "console", str()] if sound(uri):
            return
    raise ui.Problem(
        f"the state says that {row['name']} is opened by a command that nestlab does not know, so it is"
        " not run. Get the state from whom you trust."
    )
