"""What `make bench` does where something does not work: it goes on, counts it, and ends with figures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.bench import __main__ as bench
from tests.bench import processes
from tests.support.checkout import Checkout, Done

if TYPE_CHECKING:
    from collections.abc import Callable

DOMAIN = """
<domain><devices>
  <disk type='volume' device='disk'><source pool='nestlab-a' volume='a-kvm1.qcow2'/></disk>
  <disk type='volume' device='disk'><source pool='nestlab-a' volume='a-kvm1-seed.img'/><readonly/></disk>
  <disk type='file' device='cdrom'><source file='/pool/medium-ipxe-ed4ad4f5.iso'/><readonly/></disk>
  <disk type='file' device='floppy'/>
</devices></domain>
"""


def test_the_plain_side_takes_names_from_the_definition() -> None:
    found = bench.sources(DOMAIN, lambda pool, volume: f"/{pool}/{volume}\n")
    assert found == {
        "disk": Path("/nestlab-a/a-kvm1.qcow2"),
        "seed": Path("/nestlab-a/a-kvm1-seed.img"),
        "cdrom": Path("/pool/medium-ipxe-ed4ad4f5.iso"),
    }


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(bench.Failed, match="no/such"):
        bench.must("ls", "/no/such")


def hangs(what: str) -> subprocess.TimeoutExpired:
    return subprocess.TimeoutExpired(["virsh", what], 300)


@pytest.mark.parametrize(
    "failing", [bench.Failed, AssertionError, OSError, KeyError, ValueError, hangs]
)
def test_what_fails_is_counted_and_the_rest_goes_on(
    failing: Callable[[str], Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = bench.Figures()
    with figures.counted("round 1"):
        raise failing("the guest has no lease")
    with figures.counted("round 2"):
        figures.add("make up", 30.0)
    figures.compare("make up / plain virsh", "make up", "plain virsh")
    assert figures.failed == ["round 1"]
    assert "round 1 failed: " in capsys.readouterr().err
    assert "make up" in figures.table()


def test_there_is_a_word_even_when_nothing_was_measured() -> None:
    assert bench.Figures().table() == "nothing could be measured"


def test_a_command_of_the_lab_that_fails_is_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkout, "run", lambda *_, **__: Done(1, "error: no such stack"))
    figures = bench.Figures()
    with figures.counted("no-op"):
        figures.time("no-op", lambda: bench.script(Checkout(tmp_path), "pulumi up"))
    assert figures.failed == ["no-op"]
    assert not figures.taken


def test_three_hundred_guests_have_addresses() -> None:
    lab: dict[str, Any] = {
        "networks": {"lab": {"subnet": "10.183.57.0/24"}},
        "hypervisors": {"kvm1": {}},
    }
    bench.guests(lab, bench.MANY)
    bench._roomy(lab)
    assert len(lab["guests"]) == 300
    assert lab["networks"]["lab"]["subnet"] == "10.183.48.0/20"


EATS = "import subprocess, sys, time; held = b'x' * (80 << 20); print(flush=True); time.sleep(60)"
STARTS = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {EATS!r}])"


def test_the_memory_of_all_that_was_started_is_weighed() -> None:
    figures = bench.Figures()

    def act() -> None:
        with subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE) as started:
            assert started.stdout
            started.stdout.readline()  # the one below has taken it
            until_seen = processes.EVERY_S * 5
            with pytest.raises(subprocess.TimeoutExpired):
                started.wait(until_seen)
            for pid, *_ in processes.below(started.pid):
                os.kill(pid, signal.SIGKILL)

    figures.weigh("two", act)
    mib = int(figures.memory["two"].split()[0])
    assert 80 < mib < 160
    assert f"memory, two: {mib} MiB (" in figures.table()


HALVES = (
    "import mmap, os, time; shared = mmap.mmap(-1, 80 << 20); os.fork()\n"
    "for page in range(0, 80 << 20, mmap.PAGESIZE): shared[page] = 1\n"
    "print(flush=True); time.sleep(60)"
)
"""Two processes that have 80 MiB in common, and little more each."""


def test_what_processes_share_is_weighed_once_and_what_has_ended_no_more() -> None:
    def act(seconds: float) -> None:
        with subprocess.Popen([sys.executable, "-c", HALVES], stdout=subprocess.PIPE) as started:
            assert started.stdout
            for _ in range(2):
                started.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                started.wait(seconds)
            for pid, *_ in [*processes.below(started.pid)]:
                os.kill(pid, signal.SIGKILL)
            started.kill()

    with processes.Shares() as taken:
        for _ in range(2):
            act(processes.SHARES_EVERY_S * 5)
    assert 80 <= taken.mib < 150, "twice 80 MiB were there, one after the other, and each for two"
    assert taken.most().startswith("python3")


def test_held_guests_do_nothing_and_go_on_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "RUNNING", tmp_path)
    with subprocess.Popen(["sleep", "60"]) as guest, subprocess.Popen(["sleep", "60"]) as other:
        try:
            (tmp_path / "t1-g1.pid").write_text(f"{guest.pid}\n")
            (tmp_path / "t10-g1.pid").write_text(f"{other.pid}\n")
            with processes.held("t1"):
                _, stopped = os.waitpid(guest.pid, os.WUNTRACED)
                assert os.WIFSTOPPED(stopped)
                assert os.waitpid(other.pid, os.WUNTRACED | os.WNOHANG) == (0, 0)
            _, goes_on = os.waitpid(guest.pid, os.WCONTINUED)
            assert os.WIFCONTINUED(goes_on)
        finally:
            guest.kill()
            other.kill()


def test_guests_go_on_when_what_was_measured_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "RUNNING", tmp_path)
    figures = bench.Figures()
    with subprocess.Popen(["sleep", "60"]) as guest:
        (tmp_path / "t1-g1.pid").write_text(f"{guest.pid}\n")
        with figures.counted("no-op"), processes.held("t1"):
            raise bench.Failed("no answer")
        guest.terminate()
        assert guest.wait(10) == -signal.SIGTERM, "a stopped one would not end"
    assert figures.failed == ["no-op"]


def test_one_that_is_stopped_tells_what_it_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    away: list[str] = []

    def nested(_: object, __: object, figures: bench.Figures) -> None:
        figures.add("make up", 30.0)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sys, "argv", ["bench"])
    monkeypatch.setattr(Checkout, "make", lambda *_, **__: Checkout(tmp_path))
    monkeypatch.setattr(Checkout, "destroy", lambda *_: away.append("lab"))
    monkeypatch.setattr(bench, "nested", nested)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            bench.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
    assert "make up   30.00" in capsys.readouterr().out
    assert away == ["lab"]
