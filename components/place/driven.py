"""A place whose hypervisor is driven by its own commands over SSH (XenServer, Hyper-V, Xen, ...).

What a driver is given says `wanted`; here is what belongs together, what waits for what, and what
goes away with what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from components.gates.codec import later
from components.gates.object import Object, RemoteObject
from components.gates.secrets import Password
from components.place import installation as installed
from components.place import orders as wanted
from components.place.contract import (
    RUNS,
    BootQueue,
    HypervisorMade,
    MachineMade,
    NetworkMade,
    bound,
)
from components.place.seeds import Seeds
from components.reach.driver import console_of
from components.stackfile.registry import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pulumi

    from components.place.contract import Awaited, Inside, Installer, Lab, NestingPlace
    from components.place.installation import Installation
    from components.place.seeds import Seeded
    from components.reach.orders import Order, Reservation
    from components.reach.shell import Target
    from components.stackfile import (
        ContainerSpec,
        GuestSpec,
        MachinePlan,
        NetworkPlan,
        PlacePlan,
    )


@dataclass(frozen=True)
class Screen:
    """How a guest of a kind is looked at."""

    console: pulumi.Input[str] = ""
    """Its screen as a URI, or empty."""
    protected: bool = False
    """Whether the screen asks for a password, which is generated then."""


def no_screen(spec: GuestSpec, plan: MachinePlan) -> Screen:
    """Return the screen of a guest of a kind whose screens are not ours to open."""
    del spec, plan
    return Screen()


@dataclass
class CommandPlace:
    """One hypervisor with a driver, and what a lab puts into it."""

    lab: Lab
    plan: PlacePlan
    name: str
    """Prefix of the logical names of what belongs to the place itself."""
    owner: pulumi.Resource | None
    """Parent of what belongs to the place itself: its media."""
    driver: str
    """Module of `components.reach.drivers`."""
    target: pulumi.Input[Target]
    """Secret."""
    store: str
    """Folder of the place for media and disks, absolute, with forward slashes."""
    cores: int
    """Cores that machines share while they boot."""
    inside: Inside | None
    screen: Callable[[GuestSpec, MachinePlan], Screen] = no_screen
    queue: BootQueue = field(init=False)
    _media: dict[str, RemoteObject] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = BootQueue(self.lab.spec.boot.concurrency or self.cores)

    def _object(
        self,
        name: str,
        what: str,
        made_of: Order,
        parent: pulumi.Resource | None,
        depends_on: Sequence[pulumi.Input[pulumi.Resource]] = (),
        deadline_s: float = 0,
        up: Awaited = RUNS,
    ) -> RemoteObject:
        return RemoteObject(
            f"{name}-{what}",
            Object(
                driver=f"{self.driver}.{what}",
                target=later(self.target),
                wanted=made_of,
                deadline_s=deadline_s or self.lab.spec.boot.lease_s,
                probe=up.probe,
                reach=later(up.reach),
                key_folder=up.key_folder,
            ),
            bound(self.inside, parent, depends_on=list(depends_on), delete_before_replace=True),
        )

    def _own(self, what: str, name: str) -> pulumi.Output[str]:
        return self.lab.identity.uuid(what, name)

    def network(
        self,
        name: str,
        plan: NetworkPlan,
        reservations: Sequence[Reservation],
        opts: pulumi.ResourceOptions,
    ) -> NetworkMade:
        """See `Place.network`."""
        made_of = wanted.network(plan, reservations, self._own("network", f"{name}-network"))
        made = self._object(name, "network", made_of, opts.parent)
        return NetworkMade(name=made.called, ready=made)

    def medium(self, name: str, *, iso: bool) -> RemoteObject:
        """Return the medium ``name`` of the lab, uploaded once for the whole place."""
        if name not in self._media:
            spec = self.lab.spec.media[name]
            path = self.lab.medium(name)
            logical = f"{self.name}-{name}"
            made_of = wanted.medium(
                f"{name}.{'iso' if iso else path.suffix.lstrip('.') or 'img'}",
                path,
                spec.sha256 or "",
                self.store,
                self._own("medium", f"{logical}-medium"),
            )
            self._media[name] = self._object(logical, "medium", made_of, self.owner)
        return self._media[name]

    def guest(
        self,
        name: str,
        spec: GuestSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> MachineMade:
        """See `Place.guest`."""
        screen = self.screen(spec, plan)
        password: pulumi.Input[str] = ""
        if screen.protected and spec.console.password:
            made_up = Password(f"{name}-console", opts=bound(self.inside, opts.parent))
            password = made_up.value
        iso = self.medium(spec.iso, iso=True) if spec.iso else None
        image = self.medium(spec.image, iso=False) if spec.image else None
        seeds = Seeds(self.lab, self.plan, self.target)
        seeded = seeds.make(name, spec, plan, bound(self.inside, opts.parent))
        seed = self._seed(name, seeded, opts.parent) if seeded else None
        owner = self._own("domain", f"{name}-guest")
        made_of = wanted.guest(
            spec,
            plan,
            networks,
            iso=iso.called if iso else "",
            image=image.called if image else "",
            password=password,
            store=self.store,
            owner=owner,
            seed=seed.called if seed else "",
            discs=[self.medium(disc, iso=True).called for disc in spec.discs],
        )
        made = self._object(
            name,
            "guest",
            made_of,
            opts.parent,
            [*self.queue.turn(), *(networks[nic.network].ready for nic in plan.nics)],
            plan.ready.deadline_s,
            seeded.awaited(RUNS) if seeded else RUNS,
        )
        self.queue.joined(made)
        serial = self._console(plan.called, owner)
        return MachineMade(
            ready=made,
            address=plan.address or "",
            console=screen.console,
            password=password,
            user=seeded.user if seeded else "",
            user_password=seeded.password if seeded else "",
            enter=() if seeded and seeded.opened else serial,
            serial=serial,
        )

    def _console(self, called: str, owner: pulumi.Output[str]) -> pulumi.Output[Sequence[str]]:
        """Return what opens the text console of a guest."""
        return owner.apply(lambda known: console_of(self.driver, called, self.store, known))

    def _seed(self, name: str, seeded: Seeded, parent: pulumi.Resource | None) -> RemoteObject:
        """Upload a seed; another configuration's is another object, so the guest has it before the old one goes."""
        logical = f"{name}-seed-{seeded.mark}"
        owner = self._own("medium", f"{logical}-medium")
        return self._object(
            logical, "medium", wanted.seed(seeded, "iso", self.store, owner), parent
        )

    def container(
        self,
        name: str,
        spec: ContainerSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> MachineMade:
        """See `Place.container`.

        Raises:
            ValueError: the kind has none; the spec refuses such a lab first.
        """
        del spec, plan, networks, opts
        raise ValueError(f"{name}: {self.plan.kind} has no containers")


@dataclass(frozen=True)
class Commands:
    """A kind that is driven by its own commands: what is the same for all hypervisors of it."""

    driver: str
    """Module of `components.reach.drivers`."""
    store: str
    """Folder for media and disks, absolute, with forward slashes."""
    screen: Callable[[GuestSpec, MachinePlan], Screen] = no_screen

    def at(
        self,
        name: str,
        *,
        lab: Lab,
        plan: PlacePlan,
        target: pulumi.Input[Target],
        cores: int,
        owner: pulumi.Resource | None,
        inside: Inside | None,
    ) -> CommandPlace:
        """Return the place of ``plan`` that answers at ``target``."""
        return CommandPlace(
            lab=lab,
            plan=plan,
            name=name,
            owner=owner,
            driver=self.driver,
            target=target,
            store=self.store,
            cores=cores,
            inside=inside,
            screen=self.screen,
        )


def kind(recipe: Callable[[Any], Installation], commands: Commands, url: str = "") -> Installer:
    """Return what installs a kind that is driven by its own commands.

    ``recipe`` is made of what the stack says of one hypervisor (its kind's model); ``url`` is its web
    interface with ``{address}`` in it, empty for none.
    """

    def install(
        name: str,
        *,
        lab: Lab,
        host: NestingPlace,
        spec: Any,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> HypervisorMade:
        made_of = recipe(spec)
        made = installed.install(
            name,
            made_of,
            lab=lab,
            host=host,
            spec=spec,
            plan=plan,
            networks=networks,
            opts=opts,
        )
        opened = made.opened
        place = commands.at(
            name,
            lab=lab,
            plan=lab.plan.place(*plan.path),
            target=opened.reach,
            cores=plan.cores,
            owner=opts.parent,
            inside=opened.inside,
        )
        return opened.made(
            plan,
            place,
            user=KINDS[spec.kind].user,
            user_password=made.password,
            url=url.format(address=plan.address or ""),
        )

    return install
