"""States from somebody else: what in one would make the next command run, read or remove what is not the lab's.

A state is data, but some of it is obeyed: dynamic providers are pickles, a libvirt's URI may name a
program that connects, a folder of keys is emptied when the lab goes. What nestlab never writes there
is refused before anything works with it. All pairs are looked at as they stand in the file: other
readers take another one where a key is given twice.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from components.gates.marks import SIGNATURE
from toolchain.bootstrap import paths, regular, ui
from toolchain.engine import providers, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
"""Of a libvirt's URI (components/stackfile/values.py), and what earlier versions took. Of others, as
``command`` and ``netcat``, libvirt runs the value."""
LISTS = {"domains", "networks", "volumes"}
"""What a pool's gate has lists of (`components.kinds.libvirt.gates.pool`): what is on them is removed with the lab."""
OWN_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
"""Of RFC 9562's version 5, as a lab's all are (`components.gates.uuids`), and those that libvirt makes
for other people's machines are not (version 4)."""
ZSTD = b"(\xb5/\xfd"
"""Begins what PULUMI_DIY_BACKEND_ZSTD writes, and this Python can't unpack."""
AUTHORITY = re.compile(
    r"(([A-Za-z0-9_][\w.-]*@)?([A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+\])(:\d+)?)?", re.ASCII
)
"""What begins with - would be an option of ssh."""
OURS = "$NESTLAB_KEYS/"
"""The one variable in a URI, of a nested host's (components/kinds/kvm/install.py): the provider puts any in."""
KEYS = re.compile(r"(?!.*/\.\.(/|$))/.*/\.nestlab/keys(/[^/]+){1,2}")
"""A folder of a stack's keys, or of one of its hosts'; elsewhere if this checkout was moved since."""


def refuse(file: Path) -> Any:
    """See to it that the state in ``file`` has nothing that nestlab does not write; return what it holds.

    Raises:
        Problem: it has, or can't be read.
    """
    try:
        told, wrong = read(_text(file), lambda folder: _is_own(folder, file))
    except (ValueError, RecursionError):
        raise _unreadable(file) from None
    if wrong:
        raise ui.Problem(
            f"{file} holds {wrong} that nestlab did not put there: a state from somebody else may do anything"
            " at the next command.\nGet the state from whom you trust, or remove it"
            f" (`pulumi stack rm --force --stack {state.stack_in(file)}`)."
        )
    return told


def _text(file: Path) -> bytes:
    try:
        raw = state.unpacked(file)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise _unreadable(file) from None
    except regular.Irregular as wrong:
        raise ui.Problem(f"{file} {wrong}, and nobody knows what the lab consists of.") from None
    if raw.startswith(ZSTD):
        words = [str(paths.BIN / "pulumi"), "stack", "export", "--stack", state.stack_in(file)]
        done = subprocess.run(words, cwd=paths.ROOT, capture_output=True, check=False)
        if done.returncode:
            raise _unreadable(file)
        return done.stdout
    return raw


def _unreadable(file: Path) -> ui.Problem:
    kept = file.with_name(f"{file.name}{state.BACKUP}")
    older = f" What it held before is in {kept}." if kept.is_file() else ""
    return ui.Problem(
        f"{file} is cut or damaged, and nobody knows what the lab consists of.{older}"
    )


def _is_own(folder: str, file: Path) -> bool:
    """Whether a ``folder`` of keys is that of the stack in ``file``: what is in there goes with its lab.

    So is one that is not there: the checkout was moved since. And one of this checkout that is no other
    stack's: the stack was renamed since.
    """
    if not KEYS.fullmatch(folder):
        return False
    if not os.path.lexists(folder):
        return True
    real, keys = Path(folder).resolve(), paths.KEYS.resolve()
    if not real.is_relative_to(keys) or real == keys:
        return False
    stack = real.relative_to(keys).parts[0]
    others = (file.with_name(f"{stack}.json{form}") for form in state.FORMS)
    return stack == state.stack_in(file) or not any(map(os.path.lexists, others))


def read(told: bytes, is_own: Callable[[str], bool]) -> tuple[Any, str]:
    """Return what ``told``, a state, says, and what in it is not nestlab's, in words; empty for nothing.

    ``is_own`` says of a folder of keys whether it is one of the lab's.

    Raises:
        ValueError, RecursionError: it is cut, or no state.
    """
    found: list[str] = []

    def pairs(each: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = {key for key, _ in each}
        found.extend(filter(None, (_wrong(key, value, is_own) for key, value in each)))
        if keys >= LISTS and any(_strangers(dict(each))):
            found.append("the UUID of something")
        if SIGNATURE in keys and "plaintext" in keys:
            found.append("secrets in clear")
        return dict(each)

    said = json.loads(told, object_pairs_hook=pairs)
    return said, found[0] if found else ""


def _strangers(lists: dict[str, Any]) -> Iterator[str]:
    """Yield those UUIDs on the ``lists`` of a pool's gate that are no lab's."""
    for kind in ("domains", "networks"):
        named = lists[kind] if isinstance(lists[kind], dict) else {}
        yield from (
            one for one in named.values() if isinstance(one, str) and not OWN_UUID.match(one)
        )


def _wrong(key: str, value: object, is_own: Callable[[str], bool]) -> str:
    if not isinstance(value, str):
        return ""
    if key == "__provider" and providers.is_foreign(value):
        return "programs"
    if key == "uri" and "://" in value and not sound(value):
        return "the address of a libvirt"
    if key in {"private", "key_folder"} and value.startswith(("/", "~", ".")):
        return "" if is_own(value) else "a folder"
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


def refuse_command(name: str, command: Sequence[str]) -> None:
    """See to it that the ``command`` by which a state has the machine ``name`` of this host opened is virsh's console.

    Raises:
        Problem: it is another command.
    """
    match command:
        case ["virsh", "-c", str(uri), "console", str()] if sound(uri):
            return
    raise ui.Problem(
        f"the state says that {name} is opened by a command that nestlab does not know, so it is"
        " not run. Get the state from whom you trust."
    )
