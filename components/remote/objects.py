"""Objects made with a hypervisor's own command line over SSH, as one dynamic resource.

Where a hypervisor has no Pulumi provider that can be had, its commands are the API. A *driver* knows
them, for networks, media, guests or containers; this resource gives every driver the same life:
idempotent create (a retry after a cut connection makes no second guest), a diff that looks at the
real thing, update in place or replace. `components.hypervisors.wanted` says what a driver is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from pulumi.dynamic import DiffResult
from typing_extensions import override

from components.gates.base import BorderResource, Gate, Props
from components.gates.codec import has_unknown
from components.remote.driver import Driver, DriverError, driver_of
from components.remote.shell import Target, Unreachable, keep, shell_of
from components.remote.waiting import NotReady, Seen, say, wait_for
from components.remote.wanted import Container, Guest, Medium, Network

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pulumi

    from components.remote.shell import Shell


class _Object(TypedDict):
    name: str
    driver: str
    target: Target
    deadline_s: float
    answers: str | None
    called: str | None


class _Network(_Object):
    wanted: Network


class _Medium(_Object):
    wanted: Medium


class _Guest(_Object):
    wanted: Guest


class _Container(_Object):
    wanted: Container


SHAPES = {"network": _Network, "medium": _Medium, "guest": _Guest, "container": _Container}
"""By the last word of the driver's name."""


class RemoteObjectProvider(Gate):
    """Gives a driver the life cycle of a resource."""

    inputs = ("name", "driver", "target", "wanted", "deadline_s")
    unasked = ("deadline_s",)

    @override
    def shape_of(self, props: Props) -> Any:
        return SHAPES[props["driver"].rpartition(".")[2]]

    @override
    def problems(self, news: Props) -> Iterable[tuple[str, str]]:
        wanted = news["wanted"]
        problem = "" if has_unknown(wanted) else driver_of(news["driver"]).problem(wanted)
        if problem:
            yield "wanted", problem

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
            seen = wait_for(news["name"], patiently, deadline_s=news["deadline_s"])
        except NotReady as late:
            raise NotReady(f"{late}\n  look at it on {shell.name}") from None
        keep(shell)
        return {**news, "answers": seen.text, "called": _called(driver, wanted)}

    @override
    def retire(self, props: Props) -> None:
        driver_of(props["driver"]).remove(shell_of(props["target"]), props["wanted"])

    @override
    def end(self, props: Props) -> None:
        # Nobody else removes it: a place that does not answer is a failure. With its whole place it
        # is not asked for (deleted_with).
        self.retire(props)

    @override
    def compare(self, olds: Props, news: Props) -> DiffResult:
        found = super().compare(olds, news)
        old, new = olds.get("wanted") or {}, news.get("wanted") or {}
        hard = driver_of(olds["driver"]).replaced_by
        # What is known tells already: in a preview a network that is off may not be.
        if any(old.get(key) != new.get(key) and not has_unknown(new.get(key)) for key in hard):
            say(f"{olds['name']}: made anew, what is in it is lost")
            return DiffResult(changes=True, replaces=["wanted"], delete_before_replace=True)
        return found


def _asks(wanted: Props) -> bool:
    return (wanted.get("ready") or {}).get("probe") == "tcp"


def _answers(shell: Shell, wanted: Props) -> Seen:
    """Ask whether a guest that runs takes a connection, from the hypervisor it runs on."""
    host, port = wanted["ready"]["host"], wanted["ready"]["port"]
    if shell.connects(host, port):
        return Seen(ok=True, text=f"{host}:{port} answers")
    return Seen(ok=False, text=f"{wanted['name']} runs, and {host}:{port} takes no connection yet")


def _called(driver: Driver, wanted: Props) -> str:
    """What others of the same place call it: its name, or what the driver makes of it."""
    name: str = getattr(driver, "called", lambda each: each["name"])(wanted)
    return name


class RemoteObject(BorderResource, module="nestlab", name="RemoteObject"):
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
