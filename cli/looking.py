"""The process that looks at machines: gates asked side by side, outer layers first (`cli.machines`).

It reads JSON from standard input, which holds keys, and prints a state for each machine. A machine in
one that is not up is not asked: whoever waits for its answer waits for nothing.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from components.gates.base import Gate, Named
from components.kinds.libvirt.census import census
from components.kinds.libvirt.gates.machine import Domain
from components.kinds.libvirt.virsh import libvirt_of
from components.reach.shell import Unreachable
from components.refused import Refused
from toolchain.engine import providers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Machine = Mapping[str, Any]
    Look = Callable[[Mapping[str, Any]], dict[str, str]]
    """Takes the properties of a machine's gate; returns its ``state`` and what was ``said``."""

UP, OFF, SILENT, OTHER, UNKNOWN = "up", "off", "not answering", "not as wanted", "unknown"
SUSPENDED = "suspended"
RUNS = "running"
GONE = re.compile(
    r"not (there|defined) any more|\bis (shut off|off|stopped|halted|paused|suspended|crashed|powered ?off)\b",
    re.IGNORECASE,
)
"""What a look says of a machine that does not run."""


def main() -> int:
    """Look at what standard input names; print what was seen, and end whatever still waits."""
    given = json.load(sys.stdin)
    look = pictured if given["pictures"] else seen
    print(json.dumps(states(given["machines"], given["seconds"], look)), flush=True)
    # Threads that wait for a machine that says nothing would be waited for.
    os._exit(0)


def states(
    machines: Sequence[Machine], seconds: float, look: Look | None = None
) -> dict[str, dict[str, str]]:
    """Return what is of each machine, by name, within ``seconds``; ``look``: by what else than `seen`."""
    until = time.monotonic() + seconds
    found: dict[str, dict[str, str]] = {}
    layers = sorted({len(machine["inside"]) for machine in machines})
    for layer in layers:
        waiting: dict[str, threading.Thread] = {}
        for machine in machines:
            if len(machine["inside"]) != layer:
                continue
            name = machine["name"]
            if behind := _behind(machine, found):
                found[name] = _state(UNKNOWN, behind)
                continue
            waiting[name] = threading.Thread(
                target=_into, args=(found, machine, look or seen), daemon=True
            )
            waiting[name].start()
        for name, thread in waiting.items():
            thread.join(max(0.0, until - time.monotonic()))
            # Decided once: an answer that comes after this is nobody's.
            found.setdefault(name, _state(UNKNOWN, f"no answer within {seconds:g} s"))
    return dict(found)


def _behind(machine: Machine, found: Mapping[str, Mapping[str, str]]) -> str:
    """Return why nothing can be asked of what is in another machine; empty: it can."""
    for outer in machine["inside"]:
        if outer in found and found[outer]["state"] != UP:
            return f"it is in {outer}, which is {found[outer]['state']}"
    return ""


def _into(found: dict[str, dict[str, str]], machine: Machine, look: Look) -> None:
    found.setdefault(machine["name"], look(machine["props"]))


def _state(word: str, said: str) -> dict[str, str]:
    return {"state": word, "said": said}


def seen(props: Mapping[str, Any]) -> dict[str, str]:
    """Return what the gate with these properties sees of its machine."""

    def look(gate: Gate[Named], told: Named) -> dict[str, str]:
        found = gate.look(told)
        return _state(UP if found.ok else _word(told, found.text), found.text)

    return _asked(props, look)


def pictured(props: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``picture`` of a machine's screen, PNG in Base64, or why there is none."""

    def look(gate: Gate[Named], told: Named) -> dict[str, str]:
        try:
            picture = gate.picture(told)
        except Unreachable:
            raise
        except Refused as refused:
            # What is in it may have one.
            return _state(UP, str(refused))
        return _state(UP, "") | {"picture": base64.b64encode(picture).decode()}

    return _asked(props, look)


def _asked(
    props: Mapping[str, Any], look: Callable[[Gate[Named], Named], dict[str, str]]
) -> dict[str, str]:
    """Return what ``look`` finds by the gate with these properties, or why nothing."""
    try:
        gate = _gate(str(props.get("__provider")))
        told = gate.stored({key: value for key, value in props.items() if key != "__provider"})
        return look(gate, told)
    except Unreachable as silent:
        return _state(SILENT, str(silent))
    except Refused as refused:
        return _state(OTHER, str(refused))
    except Exception as wrong:  # noqa: BLE001 - whatever it is, the others are shown all the same
        return _state(UNKNOWN, f"{type(wrong).__name__}: {wrong}")


def _word(props: Named, said: str) -> str:
    if gone := GONE.search(said):
        return SUSPENDED if (gone[2] or "").lower() == SUSPENDED else OFF
    if isinstance(props, Domain):
        # It runs, or the look would have said so; what is in it does not answer.
        try:
            runs = census(libvirt_of(props)).domains.get(props.domain) == RUNS
        except Refused:
            runs = True
        return SILENT if runs else OFF
    return OTHER


def _gate(pickled: str) -> Gate[Named]:
    """Return the gate whose class a state names; only nestlab's own are taken.

    Raises:
        providers.Foreign, TypeError: it is something else.
    """
    module, name = providers.named(pickled)
    if module.partition(".")[0] != "components":
        raise providers.Foreign
    made = getattr(importlib.import_module(module), name)()
    if not isinstance(made, Gate):
        raise TypeError(f"{name} looks at nothing")
    return made
