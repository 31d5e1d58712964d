"""Objects made with a hypervisor's own command line over SSH, as one dynamic resource.

Where a hypervisor has no Pulumi provider that can be had, its commands are the API. A *driver* knows
them, for networks, media, guests or containers; this resource gives every driver the same life:
idempotent create (a retry after a cut connection makes no second guest), a diff that looks at the
real thing, update in place or replace. `components.place.orders` says what a driver is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pulumi.dynamic import DiffResult
from typing_extensions import override

from components.gates import probes
from components.gates.base import BorderResource, Gate, Made, Named, Secret, Unasked
from components.gates.codec import has_unknown
from components.gates.keys import remove_keys, write_keys
from components.gates.probes import Probe
from components.reach.driver import driver_of, shrinks
from components.reach.orders import ContainerOrder, GuestOrder, MediumOrder, NetworkOrder, Order
from components.reach.shell import NOWHERE, Target, Unreachable, keep, shell_of
from components.reach.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pulumi

    from components.gates.base import Props
    from components.reach.shell import Shell


NO_PROBE = Probe(kind="none")


@dataclass(frozen=True, kw_only=True)
class Object(Named):
    """Properties of a remote object."""

    driver: str
    """Kind and what it is, such as "xen.guest"."""
    target: Target
    """The hypervisor; secret for nested ones."""
    wanted: Order
    deadline_s: Unasked[float]
    probe: Probe = NO_PROBE
    """How a guest that is entered is asked whether it is itself."""
    reach: Secret[Target] = NOWHERE
    """The inside of a guest; empty for what nobody enters."""
    key_folder: str = ""
    """Where files with its keys go that other programs read; empty for none."""
    answers: Made[str] = None
    called: Made[str] = None


@dataclass(frozen=True, kw_only=True)
class _Network(Object):
    wanted: NetworkOrder


@dataclass(frozen=True, kw_only=True)
class _Medium(Object):
    wanted: MediumOrder


@dataclass(frozen=True, kw_only=True)
class _Guest(Object):
    wanted: GuestOrder


@dataclass(frozen=True, kw_only=True)
class _Container(Object):
    wanted: ContainerOrder


@dataclass(frozen=True)
class _Here:
    """Where a guest lives, as a probe asks for it."""

    shell: Shell


SHAPES: dict[str, type[Object]] = {
    "network": _Network,
    "medium": _Medium,
    "guest": _Guest,
    "container": _Container,
}
"""By the last word of the driver's name."""


class RemoteObjectProvider(Gate[Object]):
    """Gives a driver the life cycle of a resource."""

    @override
    def shape_of(self, props: Props) -> type[Object]:
        return SHAPES[props["driver"].rpartition(".")[2]]

    @override
    def problems(self, news: Object) -> Iterable[tuple[str, str]]:
        wanted = news.wanted
        problem = "" if has_unknown(wanted) else driver_of(news.driver).problem(wanted)
        if problem:
            yield "wanted", problem

    @override
    def forbidden(self, olds: Object, news: Object) -> Iterable[tuple[str, str]]:
        if isinstance(olds.wanted, GuestOrder) and isinstance(news.wanted, GuestOrder):
            had = {disk.name: disk.gib for disk in olds.wanted.disks}
            for disk in news.wanted.disks:
                if disk.gib < had.get(disk.name, 0):
                    yield "wanted", shrinks(news.wanted.name, disk.name, had[disk.name], disk.gib)

    @override
    def look(self, props: Object) -> Seen:
        shell = shell_of(props.target)
        seen = driver_of(props.driver).glance(shell, props.wanted)
        if seen.ok and props.reach != NOWHERE:
            return probes.glance(props, _Here(shell))
        return seen

    @override
    def picture(self, props: Object) -> bytes:
        return driver_of(props.driver).picture(shell_of(props.target), props.wanted)

    @override
    def mend(self, olds: Object | None, news: Object) -> Object:
        driver, shell, wanted = driver_of(news.driver), shell_of(news.target), news.wanted
        driver.ensure(shell, wanted)
        write_keys(news.key_folder, news.reach)

        def patiently() -> Seen:
            try:
                seen = driver.look(shell, wanted)
                return _answers(shell, news, seen) if seen.ok else seen
            except Unreachable as silent:
                return Seen(ok=False, text=str(silent))

        try:
            seen = wait_for(news.name, patiently, deadline_s=news.deadline_s)
        except NotReady as late:
            raise NotReady(f"{late}\n  look at it on {shell.name}") from None
        keep(shell)
        return replace(news, answers=seen.text, called=driver.called(wanted))

    @override
    def retire(self, props: Object) -> None:
        remove_keys(props.key_folder)
        driver_of(props.driver).remove(shell_of(props.target), props.wanted)

    @override
    def end(self, props: Object) -> None:
        # Nobody else removes it: a place that does not answer is a failure. With its whole place it
        # is not asked for (deleted_with).
        self.retire(props)

    @override
    def compare(self, olds: Object, news: Object) -> DiffResult:
        found = super().compare(olds, news)
        old, new = olds.wanted, news.wanted
        # What is known tells already: in a preview a network that is off may not be.
        if any(
            getattr(old, key) != getattr(new, key) and not has_unknown(getattr(new, key))
            for key in driver_of(olds.driver).replaced_by
        ):
            say(f"{olds.name}: made anew, what is in it is lost")
            return DiffResult(changes=True, replaces=["wanted"], delete_before_replace=True)
        return found


def _answers(shell: Shell, made: Object, seen: Seen) -> Seen:
    """Ask whether a guest that was ``seen`` to run is up, from the hypervisor it runs on."""
    order = made.wanted
    if made.reach != NOWHERE:
        return probes.probe(made, _Here(shell))
    if not isinstance(order, GuestOrder) or order.ready.probe != "tcp":
        return seen
    host, port = order.ready.host, order.ready.port
    if shell.connects(host, port):
        return Seen(ok=True, text=f"{host}:{port} answers")
    return Seen(ok=False, text=f"{order.name} runs, and {host}:{port} takes no connection yet")


class RemoteObject(BorderResource, module="nestlab", name="RemoteObject"):
    """An object made by a driver; done when it is as wanted, and runs if it is something that runs."""

    answers: pulumi.Output[str]
    """What was seen of it when it was last waited for."""
    called: pulumi.Output[str]
    """What others of the same place call it: a network's name, a medium's path there."""

    def __init__(
        self, name: str, props: Object, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        shape = SHAPES[props.driver.rpartition(".")[2]]
        super().__init__(RemoteObjectProvider(), name, shape(**vars(props)), opts)
