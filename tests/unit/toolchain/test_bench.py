"""What `make bench` does where something does not work: it goes on, counts it, and ends with figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bench import __main__ as bench

if TYPE_CHECKING:
    from collections.abc import Callable

DOMAIN = """
<domain><devices>
  <disk type='volume' device='disk'><source pool='nestlab-a' volume='a-kvm1.qcow2'/></disk>
  <disk type='file' device='cdrom'><source file='/pool/medium-ipxe-ed4ad4f5.iso'/></disk>
  <disk type='file' device='floppy'/>
</devices></domain>
"""


def test_the_plain_side_takes_names_from_the_definition() -> None:
    found = bench.sources(DOMAIN, lambda pool, volume: f"/{pool}/{volume}\n")
    assert found == {
        "disk": Path("/nestlab-a/a-kvm1.qcow2"),
        "cdrom": Path("/pool/medium-ipxe-ed4ad4f5.iso"),
    }


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(bench.Failed, match="no/such"):
        bench.must("ls", "/no/such")


@pytest.mark.parametrize("failing", [bench.Failed, AssertionError, OSError, KeyError])
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
