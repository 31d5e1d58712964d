"""What the laws share: the cases, each with a host that is as it was when it was new."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from components.reach.driver import driver_of
from tests.contract.kinds import cases
from tests.unit.components.conftest import alone

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.reach.driver import Driver
    from components.reach.waiting import Seen
    from tests.contract.case import Case, Host

__all__ = ["alone"]

CASES = {case.name: case for case in cases()}


@dataclass(frozen=True)
class Trial:
    """A case with its driver, its host and its order."""

    case: Case[Any, Any]
    driver: Driver[Any]
    order: Any
    afresh: Callable[[], Any]
    """Make the host as it was before anything was ordered, and return it."""

    def ensure(self, host: Host, order: Any = None) -> None:
        self.driver.ensure(host.shell(), order or self.order)

    def remove(self, host: Host, order: Any = None) -> None:
        self.driver.remove(host.shell(), order or self.order)

    def look(self, host: Host, order: Any = None) -> Seen:
        return self.driver.look(host.shell(), order or self.order)

    def made(self) -> Any:
        """Return the host with what is ordered."""
        host = self.afresh()
        self.ensure(host)
        return host

    def contents(self, host: Host) -> dict[str, Any]:
        return self.case.plain(host.contents())

    def same(self, host: Host, before: dict[str, Any], why: str) -> None:
        """Assert that the host holds what it did ``before``."""
        assert differences(self.contents(host), before) == [], why

    def satisfied(self, host: Host, order: Any = None) -> None:
        """Assert that a look and a glance find nothing to do."""
        wanted = order or self.order
        for seen in (self.look(host, wanted), self.driver.glance(host.shell(), wanted)):
            assert seen.ok, seen.text


def differences(one: object, other: object, at: str = "") -> list[str]:
    """Return where two hosts' contents are not the same: in words that a failure is read by."""
    if one == other:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [
            each
            for key in keys
            for each in differences(one.get(key), other.get(key), f"{at}/{key}")
        ]
    return [f"{at}: {one!r} and {other!r}"]


@pytest.fixture(scope="session")
def hosts() -> dict[str, tuple[Any, Callable[[], Any]]]:
    """Each case's order and what makes its host as it was: a host is made once."""
    return {}


@pytest.fixture(params=CASES)
def trial(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    hosts: dict[str, tuple[Any, Callable[[], Any]]],
) -> Trial:
    case = CASES[request.param]
    # Nothing here is to survive a power cut.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for where, value in case.patience.items():
        monkeypatch.setattr(where, value)
    if case.name not in hosts:
        folder = tmp_path_factory.mktemp(case.name.replace(".", "-").replace(" ", "-"))
        files = folder / "files"
        files.mkdir()
        hosts[case.name] = (case.order(files), case.host(folder / "host").keep())
    order, afresh = hosts[case.name]
    return Trial(case, driver_of(case.name.partition(" ")[0]), order, afresh)
