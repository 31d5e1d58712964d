"""Guests made with a hypervisor's own command line over SSH, as one dynamic resource.

Where a hypervisor has no Pulumi provider that can be had, its commands are the API. A *driver* knows
them; this resource gives every driver the same life: idempotent create (a retry after a cut
connection makes no second guest), a diff that looks at the real thing, update in place or replace.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from pulumi.dynamic import CheckFailure, CheckResult, DiffResult, Resource
from typing_extensions import override

from components.gates.base import Gate, Props, has_unknown
from components.remote.shell import Unreachable, shell_of
from components.remote.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

    from components.remote.shell import Shell


class DriverError(Exception):
    """A hypervisor's command refused; the message names the command and holds its words."""


class Driver(Protocol):
    """The commands of one hypervisor. ``wanted`` is the driver's own plain data, with a "name"."""

    replaced_by: tuple[str, ...]
    """Keys of ``wanted`` whose change can't be made on an existing guest."""

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """Look whether the guest exists, is as wanted, and runs."""
        ...

    def glance(self, shell: Shell, wanted: Props) -> Seen:
        """The same, as cheaply as can be: it is asked on every diff."""
        ...

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """Make the guest, or what is missing of it, and start it; may be repeated at any point."""
        ...

    def remove(self, shell: Shell, wanted: Props) -> None:
        """Stop the guest and remove all of it; nothing happens when it is not there."""
        ...

    def problem(self, wanted: Props) -> str:
        """Say why ``wanted`` can't be made, found and remedy; empty when it can."""
        ...


def driver_of(name: str) -> Driver:
    """Return the driver called ``name``: a module of `components.remote.drivers`."""
    driver: Driver = import_module(f"components.remote.drivers.{name}").DRIVER
    return driver


class RemoteGuestProvider(Gate):
    """Gives a driver the life cycle of a resource."""

    inputs = ("name", "driver", "target", "wanted", "deadline_s")
    unasked = ("deadline_s",)

    @override
    def check(self, _olds: Props, news: Props) -> CheckResult:
        wanted = news["wanted"]
        problem = "" if has_unknown(wanted) else driver_of(news["driver"]).problem(wanted)
        return CheckResult(news, [CheckFailure("wanted", problem)] if problem else [])

    @override
    def look(self, props: Props) -> Seen:
        return driver_of(props["driver"]).glance(shell_of(props["target"]), props["wanted"])

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        driver, shell, wanted = driver_of(news["driver"]), shell_of(news["target"]), news["wanted"]
        driver.ensure(shell, wanted)

        def patiently() -> Seen:
            try:
                return driver.look(shell, wanted)
            except Unreachable as silent:
                return Seen(ok=False, text=str(silent))

        try:
            seen = wait_for(news["name"], patiently, deadline_s=float(news["deadline_s"]))
        except NotReady as late:
            raise NotReady(f"{late}\n  look at it on {shell.name}") from None
        return {**news, "answers": seen.text}

    @override
    def retire(self, props: Props) -> None:
        driver_of(props["driver"]).remove(shell_of(props["target"]), props["wanted"])

    @override
    def delete(self, _id: str, _props: Props) -> None:
        # Nobody else removes it: a place that does not answer is a failure. With its whole place it
        # is not asked for (deleted_with).
        self.retire(_props)

    @override
    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        found = super().diff(_id, _olds, _news)
        old, new = _olds.get("wanted") or {}, _news.get("wanted") or {}
        hard = driver_of(_olds["driver"]).replaced_by
        if not has_unknown(new) and any(old.get(key) != new.get(key) for key in hard):
            say(f"{_olds['name']}: made anew, what is in it is lost")
            return DiffResult(changes=True, replaces=["wanted"], delete_before_replace=True)
        return found


class RemoteGuest(Resource, module="nestlab", name="RemoteGuest"):
    """A guest or container made by a driver; done when it runs."""

    answers: pulumi.Output[str]
    """What was seen of it when it was last waited for."""

    def __init__(
        self,
        name: str,
        *,
        driver: str,
        target: pulumi.Input[Mapping[str, Any]],
        wanted: Mapping[str, Any],
        deadline_s: float,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "driver": driver,
            "target": target,
            "wanted": dict(wanted),
            "deadline_s": deadline_s,
            "answers": None,
        }
        super().__init__(RemoteGuestProvider(), name, props, opts)
