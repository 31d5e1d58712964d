"""What `make test` does around pytest: files in memory, and what later tiers need made meanwhile."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import _is_spread
from toolchain import testing

WAIT_S = 20.0


def _eventually(file: Path) -> bool:
    deadline = time.monotonic() + WAIT_S
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return file.exists()


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + WAIT_S
    while Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < deadline:
        # Ended, and not yet waited for by whoever took it over.
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return not Path(f"/proc/{pid}").exists()


def test_later_tiers_are_made_ready_while_the_units_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def prepare(tier: str, *, soak: bool) -> None:
        os.write(1, f"making {tier}".encode())
        (tmp_path / tier).write_text(str(soak))

    monkeypatch.setattr(testing, "_prepare", prepare)
    with testing._ahead(["double", "host"], soak=True):
        assert _eventually(tmp_path / "double"), "meanwhile"
    assert (tmp_path / "host").read_text() == "True"
    assert "making" not in capfd.readouterr().out


def test_what_fails_there_is_told_by_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(tier: str, *, soak: bool) -> None:
        raise OSError(tier, soak)

    monkeypatch.setattr(testing, "_prepare", prepare)
    with testing._ahead(["double"], soak=False):
        pass


def test_a_run_that_ends_early_leaves_nobody_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(tier: str, *, soak: bool) -> None:
        assert (tier, soak) == ("double", False)
        with subprocess.Popen(["sleep", "300"]) as child:
            (tmp_path / "new").write_text(str(child.pid))
            (tmp_path / "new").rename(tmp_path / "pid")

    monkeypatch.setattr(testing, "_prepare", prepare)

    def interrupted() -> None:
        assert _eventually(tmp_path / "pid")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), testing._ahead(["double"], soak=False):
        interrupted()
    assert _gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(os.geteuid() != 0, reason="who may not mount has the files on the disk")
def test_files_of_units_lie_in_memory_and_go_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with testing._place("unit") as place:
        if not place:
            pytest.skip("nobody may mount here")
        seen = subprocess.run(
            [*testing.MOUNT, place, "sh", "-c", f"stat -f -c %T {place}; echo 1 > {place}/file"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert seen.stdout == "tmpfs\n"
        assert list(Path(place).iterdir()) == []
    assert not Path(place).exists()
    with testing._place("host") as place:
        assert place == "", "libvirt's own processes read those"
    monkeypatch.setattr(testing, "MOUNT", ("false",))
    with testing._place("unit") as place:
        assert place == ""


def test_who_shares_nothing_is_handed_out_alone_and_all_others_by_file() -> None:
    assert _is_spread("tests/host/test_appliances.py")
    assert _is_spread("tests/double/test_closed.py"), "in a list of several lines"
    assert not _is_spread("tests/host/test_lab.py")
    assert not _is_spread("tests/unit/toolchain/test_testing.py"), "no mark at all"
