"""Objects made with a hypervisor's own command line over SSH, as one dynamic resource.

Where a hypervisor has no Pulumi provider that can be had, its commands are the API. A *driver* knows
them, for networks, media, guests or containers; this resource gives every driver the same life:
idempotent create (a retry after a cut connection makes no second guest), a diff that looks at the
real thing, update in place or replace. `components.hypervisors.wanted` says what a driver is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulumi.dynamic import CheckFailure, CheckResult, DiffResult, Resource
from typing_extensions import override

from components.gates.base import Gate, Props, has_unknown
from components.remote.driver import Driver, DriverError, driver_of
from components.remote.shell import Unreachable, keep, shell_of
from components.remote.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

    from components.remote.shell import Shell


class RemoteObjectProvider(Gate):
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
        try:
            return driver_of(props["driver"]).glance(shell_of(props["target"]), props["wanted"])
        except DriverError as refused:
            return Seen(ok=False, text=str(refused))

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        driver, shell, wanted = driver_of(news["driver"]), shell_of(news["target"]), news["wanted"]
        driver.ensure(shell, wanted)

        def patiently() -> Seen:
            try:
                seen = driver.look(shell, wanted)
                return _answers(shell, wanted) if seen.ok and _asks(wanted) else seen
            except Unreachable as silent:
                return Seen(ok=False, text=str(silent))

        try:
            seen = wait_for(news["name"], patiently, deadline_s=float(news["deadline_s"]))
        except NotReady as late:
            raise NotReady(f"{late}\n  look at it on {shell.name}") from None
        keep(shell)
        return {**news, "answers": seen.text, "called": _called(driver, wanted)}

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


def _asks(wanted: Props) -> bool:
    return (wanted.get("ready") or {}).get("probe") == "tcp"


def _answers(shell: Shell, wanted: Props) -> Seen:
    """Ask whether a guest that runs takes a connection, from the hypervisor it runs on."""
    host, port = wanted["ready"]["host"], int(wanted["ready"]["port"])
    if shell.connects(host, port):
        return Seen(ok=True, text=f"{host}:{port} answers")
    return Seen(ok=False, text=f"{wanted['name']} runs, and {host}:{port} takes no connection yet")


def _called(driver: Driver, wanted: Props) -> str:
    """What others of the same place call it: its name, or what the driver makes of it."""
    name: str = getattr(driver, "called", lambda each: each["name"])(wanted)
    return name


class RemoteObject(Resource, module="nestlab", name="RemoteObject"):
    """An object made by a driver; done when it is as wanted, and runs if it is something that runs."""

    answers: pulumi.Output[str]
    """What was seen of it when it was last waited for."""
    called: pulumi.Output[str]
    """What others of the same place call it: a network's name, a medium's path there."""

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
            "called": None,
        }
        super().__init__(RemoteObjectProvider(), name, props, opts)
