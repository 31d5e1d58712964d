"""A plan that somebody approved: the engine's own (`pulumi preview --save-plan`), kept with what it was made for.

The engine holds `up` to it, operation by operation. Two things it does not do: it says of a plan that does not
fit only that some resource differs, half-way; and of what is in a nested host that does not answer yet it plans
inputs that no plugin has looked at, which then differ from those that are made. So what a plan was made for is
compared before, and such inputs are left open (`eased`).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from components.gates.marks import UNKNOWN
from toolchain.bootstrap import cache, regular, ui
from toolchain.engine import changes, environment

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 1
LARGEST = 64 << 20
"""Of a plan, bytes."""
NOTED = "__defaults"
"""What a plugin notes in inputs that it has looked at."""
OWN = ("pulumi", "pulumi-python")
"""Packages whose resources need no host to be looked at: the engine's own, and gates."""
NAMED = "_pulumi_name"
"""Beside the getter of a property in an SDK, where its name differs from Python's (pulumi.getter)."""
LESS = {"update": {"replace", "create-replacement"}}
"""Operation -> those that are more; one that is less is within the plan, and none at all always is."""
TOLD = ("create", "update", "replace", "delete")
"""Operations that people are told of; those that a replacement is made of are not."""
DEFAULT = re.compile(r"\$?pulumi:providers:[^:]+::default(_[^:]*)?$")
"""Ends the URN of a provider that the engine makes by itself (pulumi 3.259.0, providers.IsDefaultProvider)."""
CONSTRAINED = {environment.EXPERIMENTAL: "true"}
"""What has the engine know `--plan`."""


def keep(file: Path, plan: dict[str, Any], stack: str, made_for: str) -> None:
    """Write the engine's ``plan`` for ``stack`` into ``file``, its owner's alone.

    ``made_for``: a text that changes with the stack file and the code that reads it.
    """
    cache.hand_out(file, f"{json.dumps(_sealed(stack, made_for, plan))}\n".encode(), 0o600)


def command(stack: str, option: str, file: Path) -> str:
    """Return the `up` of ``stack`` with ``option`` and ``file``, as a message prints it: it works as it stands."""
    return f"nestlab up -s {shlex.quote(stack)} {option} {shlex.quote(str(file))}"


def counted(plan: dict[str, Any]) -> str:
    """Return how much an engine's ``plan`` does, for people."""
    found = Counter(each for steps in _operations(plan).values() for each in steps)
    return ", ".join(f"{found[each]} to {each}" for each in TOLD if found[each]) or "nothing to do"


def read(file: Path, stack: str, made_for: str) -> dict[str, Any]:
    """Return the engine's plan in ``file``.

    Raises:
        Problem: it is none, damaged, another stack's, or made for another stack file or another code.
    """
    again = (
        f"Look at what would be done, and keep a new plan: {command(stack, '--save-plan', file)}"
    )
    try:
        told = json.loads(regular.read(file, LARGEST))
        plan: dict[str, Any] = told["plan"]
        _operations(plan)
        whole = told == _sealed(told["stack"], told["made_for"], plan)
    except FileNotFoundError:
        raise ui.Problem(f"{file}: there is no such plan. {again}") from None
    except (OSError, regular.Irregular) as wrong:
        why = getattr(wrong, "strerror", None) or f"it {wrong}"
        raise ui.Problem(f"{file} can't be read: {why}. {again}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise ui.Problem(f"{file} is no plan that this version keeps, or is damaged. {again}")
    if told["stack"] != stack:
        raise ui.Problem(
            f"{file} is a plan for the stack {told['stack']!r}, and {stack!r} was asked for. {again}"
        )
    if told["made_for"] != made_for:
        raise ui.Problem(
            f"the stack file of {stack}, the code that reads it, or whether policies judge it, is not what {file} was approved for, so"
            f" nothing was changed. {again}"
        )
    return plan


def _sealed(stack: str, made_for: str, plan: Any) -> dict[str, Any]:
    told = {"version": VERSION, "stack": stack, "made_for": made_for, "plan": plan}
    return {**told, "sum": hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()}


def _operations(plan: dict[str, Any]) -> dict[str, list[str]]:
    """Return the steps of each resource in an engine's plan, but for those that do nothing.

    The engine's own providers, which it counts nowhere either, are left out.
    """
    return {
        urn: [each for each in told.get("steps") or [] if each != "same"]
        for urn, told in (plan.get("resourcePlans") or {}).items()
        if not DEFAULT.search(urn)
    }


def beyond(approved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what the plan ``now`` does that ``approved`` has not, a line for each."""
    may = _operations(approved)
    return [
        f"{urn.rpartition('::')[2]}: {each}"
        for urn, operations in _operations(now).items()
        for each in operations
        if not ({each} | LESS.get(each, set())) & set(may.get(urn, ()))
    ]


def refuse_more(stack: str, approved: dict[str, Any], now: dict[str, Any]) -> None:
    """Look that the engine's plan ``now`` does no more than ``approved``.

    Raises:
        Problem: it does, with what.
    """
    if more := tuple(beyond(approved, now)):
        raise ui.Problem(
            f"more would be done to the lab {stack} than the plan has, as after something has drifted since;"
            f" nothing was changed:\n{changes.listed(more)}\nKeep a new plan and look at it: --save-plan."
        )


def eased(plan: dict[str, Any]) -> dict[str, Any]:
    """Return ``plan`` with what no plugin has looked at left open, for the engine to be held to."""
    told: dict[str, Any] = json.loads(json.dumps(plan))
    for each in (told.get("resourcePlans") or {}).values():
        goal = each.get("goal") or {}
        change = goal.get("inputDiff") or {}
        if not _is_raw(goal, change, each.get("steps") or []):
            continue
        for group in ("adds", "updates"):
            found = change.get(group) or {}
            # A plugin notes its defaults in each mapping, at any depth.
            change[group] = {
                key: UNKNOWN if isinstance(value, dict | list) else value
                for key, value in found.items()
            }
        # It also adds what nobody has said; what is left open may be missing in the end.
        filled = {NOTED, *_properties(goal["type"])} - change["updates"].keys()
        change["adds"] = dict.fromkeys(filled, UNKNOWN) | change["adds"]
        change["deletes"] = [key for key in change.get("deletes") or [] if key not in filled]
    return told


def _is_raw(goal: dict[str, Any], change: dict[str, Any], steps: list[str]) -> bool:
    """Whether no plugin has looked at the inputs that are planned: the one it is for has no host yet."""
    if not goal.get("custom") or str(goal["type"]).partition(":")[0] in OWN:
        return False
    is_made = "create" in steps and NOTED not in (change.get("adds") or {})
    return is_made or NOTED in (change.get("deletes") or [])


def _properties(kind: str) -> list[str]:
    """Return the names of all properties of a resource's type, by its plugin's SDK."""
    package, _, name = kind.partition(":")
    # Seconds of imports, for who has a plan alone.
    found = getattr(importlib.import_module(f"pulumi_{package}"), name.rpartition(":")[2])
    getters = [each.fget for each in vars(found).values() if isinstance(each, property)]
    return [str(getattr(each, NAMED, each.__name__)) for each in getters if each]
