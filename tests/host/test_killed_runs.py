"""A run that is killed at any moment is put right by the next command, `pulumi up` or `make down`.

The moments come from seeded random numbers over the length of a whole `pulumi up`. A few are tried
in every test run; `pytest -m soak` tries the rest.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.checkout import Checkout

pytestmark = pytest.mark.host

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
ALWAYS = {0, 1, 2}
SEEDS = range(20)
ENDS_S = 120.0


@pytest.fixture(scope="module")
def length(checkout: Checkout) -> float:
    """Seconds that a whole deployment takes here, once everything is set up."""
    done = checkout.make_target("up")
    assert done.code == 0, done.said
    checkout.down()
    assert checkout.pulumi("stack", "init", "local").code == 0
    began = time.monotonic()
    checkout.up()
    took = time.monotonic() - began
    checkout.down()
    return took


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[] if seed in ALWAYS else [pytest.mark.soak]) for seed in SEEDS],
)
def test_a_killed_up_is_put_right(
    checkout: Checkout, length: float, seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a moment, not a secret
    number = SIGNALS[seed % len(SIGNALS)]
    moment = chance.uniform(0.2, length)
    checkout.pulumi("stack", "init", "local")
    script = ". .nestlab/env.sh && exec pulumi up --yes --skip-preview --non-interactive"
    run = checkout.start(["bash", "-c", script], tmp_path / "killed")
    with contextlib.suppress(Exception):
        run.wait(moment)
    if run.poll() is None:
        os.kill(run.pid, number)
    run.wait(ENDS_S)
    if seed % 2:
        checkout.down()
        assert checkout.left() == [], f"{number.name} after {moment:.1f} s of {length:.1f} s"
        return
    checkout.up()
    assert checkout.inside("virsh", "-q", "list", "--name").said.split() == ["ipxe"]
    checkout.down()
    assert checkout.left() == [], f"{number.name} after {moment:.1f} s of {length:.1f} s"
