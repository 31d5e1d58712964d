"""`nestlab prove`: what was tried says how it came out, and what was not says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

from cli import app, machines, proving
from cli.proof import Cell, Proof
from components.stackfile import proofs
from components.stackfile.proofs import FAILED, REAL, UNTRIED
from components.stackfile.registry import KINDS
from toolchain import lab, stack_check
from toolchain.bootstrap import paths, ui
from toolchain.engine import changes, stack_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STACK = """\
# Somebody's own words.
config:
  nestlab:lab:
    name: local
    networks: {lab: {mode: nat, subnet: 10.77.0.0/24}}
    hypervisors:
      kvm1:
        kind: kvm
        memory_mib: 4096
        network: lab
        networks: {inner: {mode: nat, subnet: 10.78.0.0/24}}
        guests: {ipxe: {iso: ipxe, memory_mib: 256, network: inner, disks: {data: 1}}}
        containers: {box: {template: busybox, memory_mib: 64, network: inner}}
    media: {ipxe: {path: /usr/lib/ipxe/ipxe.iso}}
"""


def row(name: str, kind: str, *inside: str, **more: Any) -> dict[str, Any]:
    plain = {"address": "", "user": "", "console": "", "url": "", "enter": [], "run": []}
    where = {"name": name, "kind": kind, "layer": len(inside) + 1, "inside": list(inside)}
    return {**plain, **where, "domain": name, **more}


ROWS = [
    row("kvm1", "kvm", domain="prove-kvm-kvm1", user="root"),
    row("ipxe", "guest", "kvm1", console="vnc://127.0.0.1:2"),
    row("box", "container", "kvm1"),
]


class World:
    """A lab without an engine: what is up, what was run, what a preview would do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.off: dict[str, str] = {}
        self.ran: list[list[str]] = []
        self.memory: list[int] = []
        self.ups = self.downs = 0
        self.screen = "RFB 003.008\n"
        self.fails = False
        self.stands = False
        self.lost: dict[str, tuple[str, ...]] = {}
        for module, name in (
            (lab, "up"),
            (lab, "down"),
            (lab, "previewed"),
            (lab, "exists"),
            (machines, "look"),
            (machines, "look_at_networks"),
        ):
            monkeypatch.setattr(module, name, getattr(self, name))
        monkeypatch.setattr(lab, "outputs", lambda _: {"sheet": ROWS})
        monkeypatch.setattr(lab, "in_namespace", list)
        monkeypatch.setattr(lab, "way_in", lambda _, name, words: (["ssh", name, *words], None))
        monkeypatch.setattr(proving, "_ran", self.run)
        monkeypatch.setattr(stack_check, "checked", lambda _: [])
        self.deployed = ""

    def up(self, stack: str, **_: Any) -> lab.Up:
        self.ups += 1
        self.off.clear()
        self.stands = True
        self.deployed = stack_file.of(stack).read_text()
        return lab.Up(ok=not self.fails, changed=True, seconds={})

    def down(self, _: str, **__: Any) -> bool:
        self.downs += 1
        self.stands = False
        return True

    def exists(self, _: str) -> bool:
        return self.stands

    def previewed(self, stack: str) -> changes.Preview:
        now = stack_file.of(stack).read_text()
        changed = now != self.deployed
        box = "memory_mib: 128" in now
        lost = self.lost.get("box" if box else "ipxe", ()) if changed else ()
        return changes.Preview(lost, clean=not changed and not self.off, warnings=())

    def look(self, _: str, rows: Any) -> dict[str, dict[str, str]]:
        return {
            each["name"]: {"state": "off", "said": self.off[each["name"]]}
            if each["name"] in self.off
            else {"state": "up", "said": "it answers"}
            for each in rows
        }

    def look_at_networks(self, *_: Any) -> dict[str, dict[str, str]]:
        return {"kvm1-inner-gate": {"state": "up", "said": ""}}

    def run(self, argv: list[str], _: object = None) -> str:
        self.ran.append(argv)
        if "destroy" in argv:
            self.off["kvm1" if argv[-1] == "prove-kvm-kvm1" else argv[-1]] = "shut off"
        return self.screen if "bash" in argv else ""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "LOCAL", tmp_path / ".nestlab")
    monkeypatch.setattr(paths, "HOST_JSON", tmp_path / "host.json")
    (tmp_path / "host.json").write_text('{"accelerator": "tcg"}')
    (tmp_path / "stacks").mkdir()
    stack_file.of("local").write_text(STACK)
    return World(monkeypatch)


def prove(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    status = app.group.main(
        args=["prove", "kvm", "--to", str(folder), *words], standalone_mode=False
    )
    return int(status or 0), json.loads((folder / "kvm.json").read_text())


def test_every_cell_is_tried_once_and_told(world: World, tmp_path: Path) -> None:
    status, told = prove(tmp_path / "to")
    results = {name: cell["result"] for name, cell in told["cells"].items()}
    assert status == 0
    assert tuple(results) == proofs.ROWS
    untried = {"guest from an image", "guest with a configuration", "nested hypervisors inside"}
    assert results == {each: UNTRIED if each in untried else REAL for each in proofs.ROWS}
    assert told["about"]["outer host"] == "emulated"
    assert "64 MiB more for box" in told["cells"]["edit in place"]["said"]
    assert (world.ups, world.downs) == (4, 1), "at first, for the edit, after each harm; gone"
    assert not stack_file.of("prove-kvm").exists()
    assert stack_file.of("local").read_text() == STACK, "nobody's own file is touched"


def test_it_is_a_lab_of_its_own(world: World, tmp_path: Path) -> None:
    prove(tmp_path / "to")
    config = yaml.safe_load(world.deployed)["config"]["nestlab:lab"]
    assert config["name"] == "prove-kvm"
    assert config["hypervisors"]["kvm1"]["containers"]["box"]["memory_mib"] == 128


def test_what_is_done_by_hand_is_done_with_the_products_own_commands(
    world: World, tmp_path: Path
) -> None:
    prove(tmp_path / "to")
    assert ["ssh", "kvm1", "virsh", "-q", "destroy", "ipxe"] in world.ran
    outer = ["virsh", "-q", "-c", "qemu:///system", "destroy", "prove-kvm-kvm1"]
    assert outer in world.ran
    [screen] = [argv for argv in world.ran if "bash" in argv]
    assert "/dev/tcp/127.0.0.1/5902" in screen[-1]


def test_an_edit_that_loses_something_is_no_edit_in_place(world: World, tmp_path: Path) -> None:
    world.lost = {"box": ("box: made anew",), "ipxe": ("ipxe: made anew",)}
    _, told = prove(tmp_path / "to")
    assert told["cells"]["edit in place"]["result"] == UNTRIED
    assert "anew" in told["cells"]["edit in place"]["said"]
    world.lost = {"box": ("box: made anew",)}
    _, told = prove(tmp_path / "to")
    assert "64 MiB more for ipxe" in told["cells"]["edit in place"]["said"]


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("console", lambda world: setattr(world, "screen", "HTTP/1.1 400")),
        ("networks", lambda world: world.nets("kvm1-inner-gate")),
        ("container from a template", lambda world: world.silent("box")),
        ("switched off or removed by hand", lambda world: world.blind()),
    ],
)
def test_what_does_not_come_out_is_a_failure_and_the_rest_is_tried(
    name: str, harm: Callable[[Any], None], world: World, tmp_path: Path, monkeypatch: Any
) -> None:
    look = world.look
    world.nets = lambda _: monkeypatch.setattr(  # type: ignore[attr-defined]
        machines, "look_at_networks", lambda *_: {"n": {"state": "off", "said": "down"}}
    )
    world.silent = lambda who: monkeypatch.setattr(  # type: ignore[attr-defined]
        machines,
        "look",
        lambda stack, rows: {**look(stack, rows), who: {"state": "off", "said": "stopped"}},
    )
    world.blind = lambda: monkeypatch.setattr(  # type: ignore[attr-defined]
        machines, "look", lambda _, rows: {r["name"]: {"state": "up", "said": ""} for r in rows}
    )
    harm(world)
    status, told = prove(tmp_path / "to")
    assert status == 1
    assert told["cells"][name]["result"] == FAILED
    assert told["cells"]["unattended install"]["result"] == REAL
    assert world.downs == 1


def test_a_lab_that_does_not_come_up_proves_nothing(world: World, tmp_path: Path) -> None:
    world.fails = True
    status, told = prove(tmp_path / "to")
    results = [cell["result"] for cell in told["cells"].values()]
    assert status == 1
    assert results == [FAILED] + [UNTRIED] * (len(proofs.ROWS) - 1)
    assert world.downs == 1
    assert not stack_file.of("prove-kvm").exists()


@pytest.mark.parametrize("up", [1, 2, 3])
def test_what_somebody_stopped_was_not_tried(
    up: int, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def brought(stack: str, **given: Any) -> lab.Up:
        made = world.up(stack, **given)
        if world.ups == up:
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(lab, "up", brought)
    with pytest.raises(click.exceptions.Abort):
        prove(tmp_path / "to")
    cells = json.loads((tmp_path / "to" / "kvm.json").read_text())["cells"]
    cut = ("unattended install", "edit in place", "switched off or removed by hand")
    assert FAILED not in {cell["result"] for cell in cells.values()}
    assert cells[cut[up - 1]] == {**cells[cut[up - 1]], "result": UNTRIED, "said": proving.CUT}
    assert world.downs == 1, "and its lab is taken down"


def test_somebodys_own_file_of_that_name_stays(world: World, tmp_path: Path) -> None:
    stack_file.of("prove-kvm").write_text("mine")
    with pytest.raises(ui.Problem, match=r"prove-kvm\.yaml is yours"):
        prove(tmp_path / "to")
    assert stack_file.of("prove-kvm").read_text() == "mine"
    assert world.ups == 0


def test_a_lab_that_still_stands_keeps_its_file(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the lab could not be taken down."""
    monkeypatch.setattr(lab, "down", lambda *_, **__: False)
    with pytest.raises(ui.Problem, match=r"not down; `make down STACK=prove-kvm`"):
        prove(tmp_path / "to")
    assert world.stands
    assert stack_file.of("prove-kvm").exists()
    assert (tmp_path / "to" / "kvm.json").exists(), "what was found is not lost"
    monkeypatch.setattr(lab, "down", world.down)
    assert prove(tmp_path / "to")[0] == 0, "and the next run goes on from there"
    assert not stack_file.of("prove-kvm").exists()


def test_the_report_is_a_table_for_people(tmp_path: Path) -> None:
    found = Proof("kvm", {"date": "2026-11-27"}, {"console": Cell(REAL, "a | b\nc", 1.6)})
    _, markdown = found.keep(tmp_path)
    told = markdown.read_text()
    assert "| console | real | a \\| b c | 2 |" in told
    assert told.count("| not tried | the run did not come to it |") == len(proofs.ROWS) - 1
    assert found.ok
    assert not Proof("kvm", {}).ok, "nothing tried is nothing proved"


# README -------------------------------------------------------------------------------------------

ROOT = paths.ROOT


def test_what_is_tried_is_what_the_table_of_proofs_has() -> None:
    assert set(proving.CELLS) == set(proofs.ROWS)


@pytest.mark.parametrize(
    ("said", "result", "holds"),
    [
        ("double, copied", REAL, "real"),
        ("real ⁴", REAL, "real ⁴"),
        ("real", FAILED, "failed"),
        ("double ¹", UNTRIED, "double ¹"),
        ("no", UNTRIED, "no"),
    ],
)
def test_the_table_of_proofs_says_what_a_report_that_is_kept_says(
    said: str, result: str, holds: str
) -> None:
    assert proofs.merged(said, result) == holds


def test_a_report_is_read_where_it_is_kept(tmp_path: Path) -> None:
    Proof("xen", {}, {"edit in place": Cell(REAL, "x")}).keep(tmp_path / proofs.REPORTS)
    before, after = (proofs.nested("xen", root) for root in (tmp_path / "none", tmp_path))
    assert {row for row in proofs.ROWS if before[row] != after[row]} == {"edit in place"}
    assert after["edit in place"] == REAL


def test_the_reports_that_are_kept_are_of_kinds_that_there_are() -> None:
    for file in (ROOT / proofs.REPORTS).glob("*.json"):
        report = json.loads(file.read_text())
        assert report["kind"] == file.stem
        # A row that came later has no cell in a run that was before.
        assert tuple(report["cells"]) == tuple(row for row in proofs.ROWS if row in report["cells"])
        assert report["kind"] in KINDS
