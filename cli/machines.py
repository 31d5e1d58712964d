"""What is of each machine of a lab: up, off, not answering, or not known, with the reason.

The state says by what each is looked at: its gate, the same that a preview asks. The gates run in a
process of their own, where libvirt's network is; what it is given holds keys, and goes through a pipe.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from components.gates.marks import SECRET, SIGNATURE
from components.reach.driver import console_of
from components.stackfile.registry import KINDS
from toolchain import lab
from toolchain.bootstrap import paths, ui
from toolchain.engine import foreign, state
from toolchain.engine.environment import BACKEND, environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    State = Mapping[str, str]
    """``state`` in one word or two, and what was ``said``."""

DYNAMIC = "pulumi-python:dynamic/nestlab:"
SUFFIXES = ("gate", "guest", "container")
"""How the names end of the resources that look at a machine."""
LONGEST_S = 20.0
"""All looks together; whoever has not answered by then is not known."""
START_S = 20.0
"""For the process that looks to be there, on a machine that has other things to do."""
CODE = "import sys; sys.path.insert(0, sys.argv.pop(1)); from cli.looking import main; sys.exit(main())"


def look(stack: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, State]:
    """Return what is of each of ``rows``, by name. Never raises: what can't be asked is unknown."""
    if not rows:
        return {}
    try:
        asked = _asked(_gates(stack), rows)
        told: dict[str, State] = _ask(asked) if asked else {}
    except (ui.Problem, OSError, ValueError, LookupError, TypeError) as wrong:
        why = str(wrong).strip().partition("\n")[0]
        return {str(row["name"]): {"state": "unknown", "said": why} for row in rows}
    missing = {"state": "not made", "said": "it is not in the lab's state yet"}
    return {str(row["name"]): told.get(str(row["name"]), missing) for row in rows}


def pictures(stack: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, State]:
    """Return for each of ``rows``, by name, the ``picture`` of its screen (PNG in Base64), or what is ``said``.

    Raises:
        Problem: they can't be asked.
    """
    asked = _asked(_gates(stack), rows)
    told = _ask(asked, pictures=True) if asked else {}
    missing = {"said": "it is not in the lab's state yet"}
    return {str(row["name"]): told.get(str(row["name"]), missing) for row in rows}


def way_in(stack: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``row`` of a lab that is half up, with who logs in and what opens it as far as it is made.

    A hypervisor's keys are there before it is asked whether it is up, so that a way into one that never
    was leads there too.

    Raises:
        Problem: it is not made yet, or what opens it is not known before the lab is up.
    """
    if row["kind"] in KINDS and (paths.KEYS / stack / row["name"]).is_dir():
        return {**row, "user": KINDS[row["kind"]].user}
    asked = _asked(_gates(stack), [row])
    props = asked[0]["props"] if asked else {}
    serial = _console(props)
    if (reach := props.get("reach")) and reach.get("user"):
        # Its keys are there as soon as it is waited for.
        return {**row, "user": reach["user"], "serial": serial}
    if serial:
        return {**row, "enter": serial, "serial": serial}
    again = ui.make("up", stack)
    if not asked:
        raise ui.Problem(f"{row['name']} is not made yet: {again} carries on from here.")
    raise ui.Problem(
        f"{row['name']} is opened by a command that is known once the lab is up as a whole: {again}"
        " carries on from here."
    )


def _console(props: Mapping[str, Any]) -> list[str]:
    """Return what opens the text console of the guest that a gate with ``props`` looks at."""
    kind, _, what = props.get("driver", "").partition(".")
    if what == "guest":
        wanted = props["wanted"]
        return list(console_of(kind, wanted["name"], wanted["store"], wanted["owner"]))
    if "domain" in props and "uri" in props:
        return ["virsh", "-c", props["uri"], "console", props["domain"]]
    return []


def look_at_networks(stack: str, hosts: Sequence[Mapping[str, Any]]) -> dict[str, State]:
    """Return what is of each network in the hypervisors ``hosts``, rows of a sheet, by its resource's name.

    Raises:
        Problem: they can't be asked.
    """
    inside = tuple("-".join([*row["inside"], row["name"], ""]) for row in hosts)
    asked = [
        {"name": name, "inside": [], "props": _clear(_props(gate))}
        for name, gate in _gates(stack).items()
        if name.startswith(inside) and _is_network(gate)
    ]
    return _ask(asked) if asked else {}


def _is_network(gate: Mapping[str, Any]) -> bool:
    driver = str(_props(gate).get("driver", ""))
    kinds = ("NetworkGate", "UplinkGate")
    return str(gate["type"]).endswith(kinds) or driver.endswith(".network")


def look_at_all(stack: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return ``rows`` and a row for each network of theirs, each with what is of it.

    Raises:
        Problem: they can't be asked.
    """
    gates = _gates(stack)
    networks = [
        {"name": name, "inside": [], "props": _clear(_props(gate))}
        for name, gate in gates.items()
        if _is_network(gate)
    ]
    told = _ask([*_asked(gates, rows), *networks])
    missing = {"state": "not made", "said": "it is not in the lab's state yet"}
    found = [{**row, **told.get(str(row["name"]), missing)} for row in rows]
    hosts = ["-".join([*row["inside"], row["name"], ""]) for row in rows]
    for each in networks:
        # A place in a place has its own name before those of what is in it.
        around = sum(str(each["name"]).startswith(host) for host in hosts)
        found.append({"name": each["name"], "layer": around + 1, **told[str(each["name"])]})
    return found


def _asked(
    gates: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return each machine with the properties of what looks at it, secrets in clear."""
    found = []
    for row in rows:
        path = "-".join([*row["inside"], row["name"]])
        gate = next((gates[n] for s in SUFFIXES if (n := f"{path}-{s}") in gates), None)
        if gate is not None:
            props = _clear(_props(gate))
            found.append({"name": row["name"], "inside": list(row["inside"]), "props": props})
    return found


def _props(gate: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = gate.get("outputs") or gate.get("inputs") or {}
    return found


def _gates(stack: str) -> dict[str, dict[str, Any]]:
    """Return the lab's own resources, of which some look at machines and networks, by name."""
    folder = state.folder(environment()[BACKEND])
    if folder and (file := state.file_of(stack, folder)):
        foreign.refuse(file)  # what it names is asked, by what it says
    words = ("stack", "export", "--show-secrets", "--stack", stack)
    resources = json.loads(lab.capture(*words))["deployment"].get("resources") or []
    return {
        str(one["urn"]).rpartition("::")[2]: one
        for one in resources
        if str(one["type"]).startswith(DYNAMIC) and not one.get("delete")
    }


def _clear(value: Any) -> Any:
    """Return ``value`` without the engine's marks of what is secret in it."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return _clear(json.loads(value["plaintext"]))
        return {key: _clear(each) for key, each in value.items()}
    return [_clear(each) for each in value] if isinstance(value, list) else value


def _ask(asked: Sequence[Mapping[str, Any]], *, pictures: bool = False) -> dict[str, State]:
    command = [
        *lab.in_namespace(),
        str(paths.VENV / "bin" / "python3"),
        "-I",
        "-c",
        CODE,
        str(paths.ROOT),
    ]
    given = {"machines": asked, "seconds": LONGEST_S, "pictures": pictures}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=LONGEST_S + START_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ui.Problem(f"it did not end within {LONGEST_S + START_S:.0f} s") from None
    if done.returncode:
        raise ui.Problem((done.stderr.strip() or "no word of it").splitlines()[-1])
    told: dict[str, State] = json.loads(done.stdout)
    return told
