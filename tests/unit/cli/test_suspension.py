"""A suspended lab: all of it or nothing, gone on with by whoever comes next, told the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from cli import records, renewal, snapshots, suspension
from components.kinds.libvirt import census
from components.kinds.libvirt import snapshots as part
from components.kinds.libvirt.virsh import Virsh, VirshError
from components.reach.shell import COMMAND_S, LocalShell, Result
from tests.support.libvirtd import FakeLibvirt, Refused
from tests.unit.cli.labs import DOMAINS, stands
from toolchain.bootstrap import ui

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@dataclass
class Host(FakeLibvirt):
    """A libvirt of which a command fails, or whose caller is killed at it, once."""

    at: str = ""
    how: str = ""

    @override
    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        if self.at and " ".join(list(argv)[4:6]) == self.at:
            self.at = ""
            if self.how == "killed":
                raise KeyboardInterrupt
            return Result(1, "", "error: no space left on device")
        return super().run(argv, stdin=stdin, timeout_s=timeout_s)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, list[str]]]:
    """Who was told the time, each time."""
    found: list[dict[str, list[str]]] = []
    monkeypatch.setattr(renewal, "renew", lambda _, names: found.append(dict(names)))
    return found


@pytest.fixture
def host(told: list[dict[str, list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A lab of two machines that runs."""
    assert told == []
    made = Host()
    for name in DOMAINS:
        made.domain(name)
    stands(made, tmp_path, monkeypatch)
    return made


def states(host: Host) -> list[str]:
    return [one.state for one in host.domains.values()]


def test_all_is_saved_at_one_moment_and_goes_on_with_the_time(
    host: Host, told: list[dict[str, list[str]]]
) -> None:
    assert suspension.suspend("net") == ["net-a", "net-b"]
    assert (states(host), host.saved) == (["shut off"] * 2, set(DOMAINS))
    kept = records.read("net").suspended
    assert kept
    assert kept.answered == {"a": ["10.1.0.2"], "b": []}
    first = next(i for i, each in enumerate(host.commands()) if each.startswith("managedsave"))
    assert [each for each in host.commands()[:first] if each.startswith("suspend")] == [
        "suspend net-a",
        "suspend net-b",
    ]
    assert suspension.resume("net")
    assert (states(host), host.saved) == (["running"] * 2, set())
    assert told == [{"a": ["10.1.0.2"], "b": []}]
    assert records.read("net") == records.Record()
    assert not suspension.resume("net"), "it runs"


def test_its_snapshot_stays_its_own(host: Host) -> None:
    taken = records.Taken("n", 1.0, "0123", "digest", {}, DOMAINS, {}, 0)
    records.write("net", records.Record(taken))
    suspension.suspend("net")
    assert records.read("net").taken == taken
    suspension.resume("net")
    assert records.read("net") == records.Record(taken)
    assert states(host) == ["running"] * 2


@pytest.mark.parametrize("how", ["refused", "killed"])
@pytest.mark.parametrize("at", ["suspend net-b", "managedsave net-a", "managedsave net-b"])
def test_one_that_fails_leaves_all_running(host: Host, at: str, how: str) -> None:
    host.at, host.how = at, how
    with pytest.raises(VirshError if how == "refused" else KeyboardInterrupt):
        suspension.suspend("net")
    assert (states(host), host.saved) == (["running"] * 2, set())
    assert records.read("net") == records.Record()


def test_what_stands_still_and_can_t_be_let_go_on_is_by_the_next_one(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise ui.Problem("a does not let us in")

    host.at = "managedsave net-b"
    monkeypatch.setattr(renewal, "go_on", silent)
    with pytest.raises(ui.Problem):
        suspension.suspend("net")
    assert states(host) == ["running"] * 2
    assert records.read("net").suspended
    assert suspension.resume("net")
    assert records.read("net") == records.Record()


def test_one_that_was_switched_off_stays_off(host: Host) -> None:
    host.domains["net-b"].state = "shut off"
    assert suspension.suspend("net") == ["net-a"]
    kept = records.read("net").suspended
    assert kept
    assert list(kept.answered) == ["a"], "nobody can be asked there"
    suspension.resume("net")
    assert states(host) == ["running", "shut off"]


def test_a_lab_that_is_off_is_not_suspended(host: Host) -> None:
    for one in host.domains.values():
        one.state = "shut off"
    assert suspension.suspend("net") == []
    assert not records.file("net").exists()


def test_what_does_not_start_keeps_its_memory_until_it_is_given_up(
    host: Host, told: list[dict[str, list[str]]]
) -> None:
    suspension.suspend("net")
    host.at = "start net-b"
    with pytest.raises(VirshError, match="no space"):
        suspension.resume("net")
    assert host.saved == {"net-b"}
    assert records.read("net").suspended
    host.at = "start net-b"
    told.clear()
    assert suspension.resume("net", lose=True)
    assert (states(host), host.saved) == (["running"] * 2, set())
    assert told == [{"a": ["10.1.0.2"]}], "nobody listens in one that boots"


def test_up_goes_on_as_far_as_it_does(
    host: Host, told: list[dict[str, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    suspension.suspend("net")
    host.at = "start net-a"
    suspension.carry_on("net")
    assert "does not go on yet" in capsys.readouterr().err
    assert told == []
    # What started it meanwhile told nobody the time.
    host.domains["net-a"].state, host.saved = "running", {"net-b"}
    suspension.carry_on("net")
    assert states(host) == ["running"] * 2
    assert len(told) == 1
    assert not records.read("net").suspended


def test_one_whose_memory_is_being_saved_still_goes_on(host: Host) -> None:
    """By a command that was killed, and libvirtd goes on with it until it is told not to."""
    host.domains["net-a"].state = "paused"
    said: list[str] = []
    inner = host._resume

    def resume(names: list[str], options: list[str]) -> None:
        if "domjobabort" not in said:
            raise Refused("cannot acquire state change lock (held by monitor=saving)")
        inner(names, options)

    host._resume = resume  # type: ignore[method-assign]
    host._domjobabort = lambda *_: said.append("domjobabort")  # type: ignore[attr-defined]
    part.wake(Virsh(host, "x"), DOMAINS)
    assert states(host) == ["running"] * 2


@pytest.mark.parametrize(("command", "why"), [(snapshots.take, "it is suspended")])
def test_no_snapshot_is_taken_meanwhile(
    host: Host, command: Callable[[str], object], why: str
) -> None:
    suspension.suspend("net")
    with pytest.raises(ui.Problem, match=why):
        command("net")
    assert host.saved == set(DOMAINS)


def test_drop_leaves_it_suspended(host: Host) -> None:
    suspension.suspend("net")
    snapshots.drop("net")
    assert records.read("net").suspended
    assert host.saved == set(DOMAINS)


def test_a_look_tells_it_from_one_that_is_off(host: Host) -> None:
    suspension.suspend("net")
    host.domain("other", "shut off")

    class Here(LocalShell):
        @override
        def run(
            self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
        ) -> Result:
            return host.run(argv, stdin=stdin, timeout_s=timeout_s)

    seen = census.take(Virsh(Here(), "x")).domains
    assert seen == {
        "net-a": census.SUSPENDED,
        "net-b": census.SUSPENDED,
        "other": "shut off",
    }
