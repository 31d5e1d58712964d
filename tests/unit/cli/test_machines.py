"""What `show` says of each machine: looked at by its own gate, bounded, and never more than is known."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from cli import looking, machines, sheet
from components.gates import probes
from components.kinds.libvirt.census import Census
from components.kinds.libvirt.gates import machine as gate
from components.kinds.libvirt.virsh import VirshError
from components.reach.shell import Unreachable
from components.reach.waiting import Seen
from toolchain import lab
from toolchain.bootstrap import ui
from toolchain.engine import foreign, state

if TYPE_CHECKING:
    from collections.abc import Mapping

PROVIDER = base64.b64encode(pickle.dumps(gate.MachineGateProvider())).decode()
SIGNATURE, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
PROPS: dict[str, Any] = {
    "__provider": PROVIDER,
    "name": "kvm1-gate",
    "target": {"kind": "local", "name": "this machine"},
    "uri": "qemu:///system",
    "domain": "local-kvm1",
    "instance": "x",
    "probe": {"kind": "none"},
    "reach": {},
    "key_folder": "",
    "console_log": "",
    "deadline_s": 1.0,
    "reset_s": 0.0,
}


def saw(
    monkeypatch: pytest.MonkeyPatch, domains: Mapping[str, str] | Exception, inside: Any = None
) -> None:
    """Let libvirt have ``domains``, and the machine say ``inside``."""

    def census(_: object) -> Census:
        if isinstance(domains, Exception):
            raise domains
        return Census(domains=dict(domains))

    def glance(*_: object) -> Seen:
        if isinstance(inside, Exception):
            raise inside
        return inside or Seen(ok=True, text="it answers")

    monkeypatch.setattr(gate, "census", census)
    monkeypatch.setattr(looking, "census", census)
    monkeypatch.setattr(probes, "glance", glance)


@pytest.mark.parametrize(
    ("domains", "inside", "word", "said"),
    [
        ({"local-kvm1": "running"}, None, "up", "it answers"),
        ({"local-kvm1": "shut off"}, None, "off", "shut off"),
        ({"local-kvm1": "paused"}, None, "off", "paused"),
        ({}, None, "off", "not defined any more"),
        ({"local-kvm1": "running"}, Seen(ok=False, text="no answer"), "not answering", "no answer"),
        ({"local-kvm1": "running"}, Unreachable("port 22"), "not answering", "port 22"),
        (Unreachable("libvirt"), None, "not answering", "libvirt"),
        (VirshError("virsh says no"), None, "not as wanted", "virsh says no"),
        (ValueError("odd"), None, "unknown", "ValueError: odd"),
    ],
)
def test_a_machine_is_up_off_or_silent_as_its_gate_sees_it(
    domains: Any, inside: Any, word: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saw(monkeypatch, domains, inside)
    found = looking.seen(PROPS)
    assert found["state"] == word
    assert said in found["said"]


@pytest.mark.parametrize("provider", [None, "", base64.b64encode(pickle.dumps(Seen)).decode()])
def test_what_is_no_gate_of_ours_is_not_run(provider: str | None) -> None:
    assert looking.seen({**PROPS, "__provider": provider})["state"] == "unknown"


def test_what_is_in_a_machine_that_is_off_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def seen(props: Mapping[str, Any]) -> dict[str, str]:
        asked.append(props["name"])
        return {"state": "off" if props["name"] == "kvm1" else "up", "said": "x"}

    monkeypatch.setattr(looking, "seen", seen)
    inside = {"kvm1": [], "kvm2": [], "box": ["kvm1"], "web": ["kvm2"], "deep": ["kvm1", "box"]}
    found = looking.states(
        [{"name": n, "inside": i, "props": {"name": n}} for n, i in inside.items()], 5
    )
    assert sorted(asked) == ["kvm1", "kvm2", "web"]
    assert found["box"] == {"state": "unknown", "said": "it is in kvm1, which is off"}
    assert found["deep"] == {"state": "unknown", "said": "it is in kvm1, which is off"}
    assert found["web"]["state"] == "up"


def test_who_does_not_answer_in_time_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def seen(props: Mapping[str, Any]) -> dict[str, str]:
        if props["name"] == "slow":
            never.wait(30)
        return {"state": "up", "said": "x"}

    monkeypatch.setattr(looking, "seen", seen)
    found = looking.states(
        [{"name": n, "inside": [], "props": {"name": n}} for n in ("slow", "quick")], 0.2
    )
    never.set()
    assert found["slow"] == {"state": "unknown", "said": "no answer within 0.2 s"}
    assert found["quick"]["state"] == "up"


# From a state -------------------------------------------------------------------------------------


def resource(name: str, props: Mapping[str, Any], kind: str = "MachineGate") -> dict[str, Any]:
    urn = f"urn:pulumi:local::nestlab::x$pulumi-python:dynamic/nestlab:{kind}::{name}"
    return {"urn": urn, "type": f"pulumi-python:dynamic/nestlab:{kind}", "outputs": props}


ROWS = [{"name": "kvm1", "inside": []}, {"name": "box", "inside": ["kvm1"]}]


def exported(monkeypatch: pytest.MonkeyPatch, *resources: Mapping[str, Any]) -> list[str]:
    words: list[str] = []

    def capture(*given: str) -> str:
        words.extend(given)
        return json.dumps({"deployment": {"resources": list(resources)}})

    monkeypatch.setattr(lab, "capture", capture)
    monkeypatch.setattr(state, "file_of", lambda *_: None)
    return words


def test_each_machine_is_asked_by_its_own_gate_with_its_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden = {SIGNATURE: SECRET, "plaintext": json.dumps({"private_key": "KEY"})}
    words = exported(
        monkeypatch,
        resource("kvm1-gate", {**PROPS, "reach": hidden}),
        resource("kvm1-box-container", {"driver": "kvm.container"}, "RemoteObject"),
        resource("box-gate", {"another": "box"}),
    )
    asked = machines._asked(machines._gates("xen"), ROWS)
    assert words == ["stack", "export", "--show-secrets", "--stack", "xen"]
    assert [one["name"] for one in asked] == ["kvm1", "box"]
    assert asked[0]["props"]["reach"] == {"private_key": "KEY"}
    assert asked[1]["props"] == {"driver": "kvm.container"}


def test_the_process_that_looks_is_given_secrets_by_a_pipe_and_says_what_it_saw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For real: a process of its own, and a gate that it does not take."""
    exported(monkeypatch, resource("kvm1-gate", {"__provider": "no", "key": "hunter2"}))
    monkeypatch.setattr(lab, "in_namespace", list)
    real, lines = subprocess.run, []

    def run(command: list[str], **given: Any) -> Any:
        lines.append(" ".join(command))
        return real(command, **given)

    monkeypatch.setattr(subprocess, "run", run)
    found = machines.look("local", ROWS)
    assert found["kvm1"]["state"] == "unknown"
    assert found["kvm1"]["said"].startswith("Foreign")
    assert found["box"]["state"] == "not made"
    assert sys.executable in lines[0]
    assert "hunter2" not in lines[0]


@pytest.mark.parametrize(
    "trouble", [ui.Problem("the engine\nis gone"), OSError(2, "no"), ValueError("x")]
)
def test_what_is_in_the_way_of_all_is_said_of_each(
    trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        raise trouble

    monkeypatch.setattr(lab, "capture", fails)
    monkeypatch.setattr(state, "file_of", lambda *_: None)
    found = machines.look("local", ROWS)
    assert {one["state"] for one in found.values()} == {"unknown"}
    assert all(one["said"] for one in found.values())


def test_a_state_from_somebody_else_is_not_asked_by(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    words = exported(monkeypatch, resource("kvm1-gate", PROPS))
    monkeypatch.setattr(state, "file_of", lambda *_: tmp_path / "local.json")

    def refuse(_: object) -> None:
        raise ui.Problem("holds the address of a libvirt")

    monkeypatch.setattr(foreign, "refuse", refuse)
    found = machines.look("local", ROWS)
    assert "address of a libvirt" in found["kvm1"]["said"]
    assert not words


def test_states_are_in_colour_on_a_terminal_alone() -> None:
    row = {
        **dict.fromkeys(("console", "user", "address", "url"), ""),
        "name": "a",
        "kind": "kvm",
        "layer": 1,
        "inside": [],
        "enter": [],
        "run": [],
    }
    rows = [{**row, "state": "up", "said": ""}, {**row, "state": "off", "said": "shut off"}]
    plain = sheet.lines({"sheet": rows}, "local")
    painted = sheet.lines({"sheet": rows}, "local", colour=True)
    assert "\033" not in "".join(plain)
    assert "\033[32mup" in painted[1]
    assert "\033[31moff" in painted[2]
    assert plain[-1] == "a: shut off"
