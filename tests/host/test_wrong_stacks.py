"""Ten wrong stacks through the real engine: each is refused in words, and nothing is created.

The unit tests hold the exact text of every refusal; here it is what a user sees, and what does not
happen on the host.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from components.stackfile import SpecError, load
from components.stackfile.allow import Allowed
from tests.support.checkout import virsh

if TYPE_CHECKING:
    from tests.support.checkout import Checkout

pytestmark = pytest.mark.host

CASES = Path(__file__).parent.parent / "cases" / "refused"
CHOSEN = (
    "files_missing",
    "guests_together_too_large",
    "kind_minimums",
    "names_used_twice",
    "nested_too_deep",
    "subnets_overlap",
    "unknown_fields_name_the_nearest",
    "unknown_kind",
    "unknown_template",
    "wrong_types",
)


def on_the_host() -> list[str]:
    """Everything that libvirt has on this machine."""
    return [virsh(what, "--all") for what in ("list", "net-list", "pool-list")]


def expected(lab: object, ready: Checkout) -> list[str]:
    """The problems, as the spec words them for what the engine hands over.

    The engine sorts mappings and turns 2.0 into 2, so the case's own text may differ in a line.
    """
    text = json.dumps(lab, sort_keys=True).replace("2.0", "2")
    allowed = Allowed.read(ready.root, ready.environment())
    with pytest.raises(SpecError) as refused:
        load(json.loads(text), root=ready.root, allowed=allowed)
    return str(refused.value).splitlines()


@pytest.fixture(scope="module")
def ready(checkout: Checkout) -> Checkout:
    """A checkout with its toolchain and facts."""
    checkout.prepare("toolchain", "host", "image")
    assert checkout.pulumi("stack", "init", "local").code == 0
    return checkout


@pytest.mark.parametrize("case", CHOSEN)
def test_a_wrong_stack_is_refused_and_nothing_is_created(ready: Checkout, case: str) -> None:
    lab = yaml.safe_load((CASES / f"{case}.yaml").read_text())
    text = yaml.safe_dump({"config": {"nestlab:lab": lab}}, sort_keys=False)
    before = on_the_host()
    whole = ready.settings.read_text()
    ready.settings.write_text(text)
    try:
        done = ready.pulumi("up", "--yes", "--skip-preview")
    finally:
        ready.settings.write_text(whole)
    assert done.code != 0
    assert "Traceback" not in done.said
    for line in expected(lab, ready):
        assert line in done.said, done.said
    assert on_the_host() == before
