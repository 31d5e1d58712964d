"""States of earlier layouts are this layout's own: brought up without a change, mended, and destroyed.

A failure here means that a provider has another module path, a resource another URN or a property
another name, so that a lab which somebody has is made anew, or can't even be taken down.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.kept import STATES, make

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.double, pytest.mark.spread]
ANEW = ("created", "deleted", "replaced")


@pytest.mark.parametrize("kept", sorted(STATES.iterdir()), ids=lambda kept: kept.name)
def test_a_kept_state_is_brought_up_mended_and_destroyed(kept: Path, tmp_path: Path) -> None:
    with ExitStack() as running:
        lab = make(kept.name, tmp_path, running)
        lab.give_back(kept)
        assert lab.left(), "the world is there"
        urns = {each["urn"] for each in lab.states()["deployment"]["resources"]}
        # A later layout may see, and mend, what an earlier one left; it makes nothing anew.
        first = lab.project.pulumi("up", "--yes", "--skip-preview")
        assert not any(word in first for word in ANEW), first
        lab.project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
        assert {each["urn"] for each in lab.states()["deployment"]["resources"]} == urns

        lab.harm()
        said = lab.project.pulumi("up", "--yes", "--skip-preview")
        assert "1 updated" in said, said
        assert not any(word in said for word in ANEW), said

        lab.project.pulumi("destroy", "--yes", "--skip-preview")
        assert lab.left() == set()
