"""What a deployment would take from people: the machines and disks that it removes or makes anew.

Read from the engine's own preview (``pulumi preview --json``). A preview does not know everything of
what stands in a nested host that is off: there a disk or machine that was given other settings counts
as lost, since the provider may say so only once it is asked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from components.gates.marks import UNKNOWN

LOST = frozenset({"delete", "replace", "create-replacement", "delete-replaced"})
"""Steps of the engine that end an object as it is (pulumi's display.StepOp)."""
VOLUME = "libvirt:index/volume:Volume"
DOMAIN = "libvirt:index/domain:Domain"
WHOLE = frozenset(
    {
        "proxmoxve:index/vmLegacy:VmLegacy",
        "proxmoxve:index/containerLegacy:ContainerLegacy",
        "vsphere:index/virtualMachine:VirtualMachine",
    }
)
"""Machines whose disks go with them."""
REMOTE = "pulumi-python:dynamic/nestlab:RemoteObject"
REMOTE_MACHINES = (".guest", ".container")
"""How the names of drivers end that make machines."""
ENDING = re.compile(r"-(disk|domain|vm|ct|guest|container)$")
"""What the name of a resource has after that of its machine."""
NOT_KNOWN = "has inputs that are not known during preview"
"""The engine's warning about every object in a host that is not up; gates say it with the cause."""
MANDATORY = "mandatory"
"""Level of a policy that stops a deployment (pulumi's apitype.EnforcementLevel)."""
SHOWN = 12
"""Lines that are shown at most; the rest is counted."""


class Unreadable(Exception):
    """The engine's preview is not in the form that is known here."""


@dataclass(frozen=True)
class Preview:
    """What a deployment would do."""

    losses: tuple[str, ...]
    """One line for each machine or disk that would be gone or made anew."""
    clean: bool
    """Whether it would do nothing at all."""
    warnings: tuple[str, ...]


def read(said: str) -> Preview:
    """Read what ``pulumi preview --json`` printed.

    Raises:
        Unreadable: it is something else. Never taken for "nothing is lost".
    """
    try:
        told = json.loads(said)
        steps: list[dict[str, Any]] = told["steps"]
        counts: dict[str, int] = told["changeSummary"]
        lines = losses(steps)
    except (ValueError, LookupError, TypeError, AttributeError) as broken:
        raise Unreadable(f"{type(broken).__name__}: {broken}") from None
    warnings = [
        str(each.get("message", "")).strip()
        for each in told.get("diagnostics") or []
        if each.get("severity") == "warning" and NOT_KNOWN not in str(each.get("message"))
    ]
    return Preview(tuple(lines), set(counts) <= {"same"}, tuple(warnings))


def refused(said: str, complained: str) -> str:
    """Return why a preview failed, in the words of what refused it."""
    try:
        told = json.loads(said)["diagnostics"]
        errors = [
            str(each["message"]).strip().removeprefix("error: ")
            for each in told
            if each["severity"] == "error"
        ]
    except (ValueError, KeyError, TypeError):
        errors = []
    return (
        "\n".join(errors) or complained.strip().removeprefix("error: ") or "no word of the engine"
    )


def violations(streamed: str) -> list[str]:
    """Return what the policy pack stops, from the events of ``pulumi preview --json``, a JSON text a line.

    The preview's own answer names none of it.
    """
    found = []
    for line in streamed.splitlines():
        try:
            told = json.loads(line).get("policyEvent") or {}
            if told.get("enforcementLevel") == MANDATORY:
                about = str(told.get("resourceUrn") or "").rpartition("::")[2]
                found.append(f"{told['policyName']}: {about}: {' '.join(told['message'].split())}")
        except (ValueError, KeyError, AttributeError):
            continue
    return found


def listed(losses: tuple[str, ...]) -> str:
    """Return ``losses`` for people: the first of them, and how many more there are."""
    more = len(losses) - SHOWN
    lines = [f"  {line}" for line in losses[:SHOWN]]
    return "\n".join([*lines, *([f"  and {more} more"] if more > 0 else [])])


def losses(steps: list[dict[str, Any]]) -> list[str]:
    """Return what ``steps`` take from people, a line for each machine."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for step in steps:
        old = step.get("oldState") or {}
        inputs = old.get("inputs") or {}
        # The engine leaves out a state that it can't write; the type is in the URN, too.
        kind = old.get("type") or str(step["urn"]).split("::")[2].rpartition("$")[2]
        what = _object(str(kind), inputs)
        fate = _fate(what, step, inputs)
        # What was never whole has nothing of people's in it.
        if what and fate[0] and not old.get("initErrors"):
            name = ENDING.sub("", str(step["urn"]).rpartition("::")[2])
            found.setdefault(name, {})[what] = fate
    return [f"{name}: {_words(fates)}" for name, fates in found.items()]


def _fate(what: str, step: dict[str, Any], inputs: dict[str, Any]) -> tuple[str, str]:
    """Return what ``step`` does to an object ("removed", "anew", "smaller", "unsure" or nothing), and why."""
    operation = str(step["op"])
    if operation == "delete":
        return "removed", ""
    if operation in LOST:
        return "anew", ", ".join(step.get("replaceReasons") or [])
    if operation == "update" and what == "machine":
        gone = (
            _disks(inputs).keys() - _disks((step.get("newState") or {}).get("inputs") or {}).keys()
        )
        return ("smaller", ", ".join(sorted(gone))) if gone else ("", "")
    if operation == "update" and step.get("detailedDiff") is None and what in {"disk", "domain"}:
        changed = _changed(inputs, (step.get("newState") or {}).get("inputs") or {})
        return ("unsure", ", ".join(changed)) if changed else ("", "")
    return "", ""


def _words(fates: dict[str, tuple[str, str]]) -> str:
    """Say what becomes of a machine; its disk is what matters where it has one of its own."""
    what = next(each for each in ("disk", "machine", "domain") if each in fates)
    fate, reason = fates[what]
    why = f" ({reason})" if reason else ""
    if fate == "smaller":
        return f"its further disks are removed, with what is on them: {reason}"
    if fate == "removed":
        return "removed, with what is on its disk" if what == "disk" else "removed"
    if fate == "unsure":
        hidden = "which is known once the host it is in answers"
        return f"may be made anew, and lose what is in it{why}, {hidden}"
    if what == "domain":
        return f"stopped, made anew and started; a disk it has stays{why}"
    return f"made anew, and what is in it is lost{why}"


def _object(kind: str, inputs: dict[str, Any]) -> str:
    """Return what of people's a resource is ("disk", "domain", a whole "machine"); empty: nothing."""
    if kind == VOLUME and not inputs.get("source"):
        return "disk"
    if kind == DOMAIN:
        return "domain"
    remote = kind == REMOTE and str(inputs.get("driver", "")).endswith(REMOTE_MACHINES)
    return "machine" if remote or (kind in WHOLE and not inputs.get("template")) else ""


def _disks(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the further disks of a whole machine, by what they are called."""
    wanted = inputs.get("wanted")
    if isinstance(wanted, dict):
        return {str(disk["name"]): disk for disk in wanted.get("disks") or []}
    # A disk's serial number on Proxmox VE.
    labels = (
        str(each.get("label") or each.get("serial") or "") for each in inputs.get("disks") or []
    )
    return {label.removeprefix("data-"): label for label in labels if label}


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    before, after = _plain(old), _plain(new)
    return sorted(
        key
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key) and UNKNOWN not in json.dumps(after.get(key))
    )


def _plain(value: Any) -> Any:
    """Return ``value`` without what the engine adds for itself, and what the provider filled in.

    A provider that can't be asked yet, as its host is off, has filled in nothing on the other side.
    """
    if isinstance(value, dict):
        filled = value.get("__defaults") or []
        return {
            key: _plain(each)
            for key, each in value.items()
            if not key.startswith("__") and key not in filled
        }
    return [_plain(each) for each in value] if isinstance(value, list) else value
