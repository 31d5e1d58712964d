"""Tests on the real host: each module has a checkout of its own, and takes its lab away again."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import Checkout

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A fresh checkout, its toolchain linked from the cache, its lab not up."""
    if shutil.which("virsh") is None:
        pytest.skip("needs libvirt: run `make host`")
    made = Checkout.make(tmp_path_factory.mktemp("checkout"))
    try:
        yield made
    finally:
        made.destroy()
