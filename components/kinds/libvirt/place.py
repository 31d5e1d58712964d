"""A place whose hypervisor is libvirt with QEMU: the outer host, and every nested KVM host.

`domain` says what the provider is told of a machine; here is what belongs together, what waits for
what, and what goes away with what.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import pulumi
import pulumi_libvirt as libvirt

from components.gates.codec import later
from components.gates.object import Object, RemoteObject
from components.gates.probes import Forward
from components.gates.secrets import Password
from components.kinds.libvirt import domain_xml, leftovers
from components.kinds.libvirt.domain import (
    FORGOTTEN,
    DirectBoot,
    Drive,
    arguments,
    as_url,
    awaited,
    has_screen,
    in_order,
    nic_args,
    stylesheet,
)
from components.kinds.libvirt.domain_xml import DiskProfile
from components.kinds.libvirt.gates.machine import Domain, MachineGate
from components.kinds.libvirt.gates.pool import Pool, PoolGate, Range
from components.kinds.libvirt.host import LIBVIRT, PLACES
from components.kinds.libvirt.network import network as made_network
from components.kinds.libvirt.ownership import CONSOLE_LOG
from components.kinds.libvirt.volumes import PRIVATE, data_drive, format_of, seed_drive
from components.media import sums
from components.place import orders as wanted
from components.place.contract import (
    Awaited,
    BootQueue,
    Build,
    Disc,
    Inside,
    Lab,
    MachineMade,
    NetworkMade,
    Opened,
    Options,
    Route,
    bound,
)
from components.place.machine import fingerprint, machine_facts
from components.place.seeds import Seeds
from components.stackfile.networks import OUTER
from components.stackfile.places import ordered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.reach.orders import Reservation
    from components.reach.shell import Target
    from components.stackfile import (
        ContainerSpec,
        GuestSpec,
        HypervisorSpec,
        MachinePlan,
        MachineSpec,
        NetworkPlan,
        PlacePlan,
    )

GIB = 1 << 30
FORWARDS = {22: 2200, 443: 4400, 8006: 8000}
"""First TCP port of a nested host that leads to that port inside it; the address's last byte is added."""
FORWARDS_OTHERS = 9000
HALF_MADE = ["*"]
"""Replace-on-changes of what pulumi-libvirt knows no update of: one whose making failed half-way is made
anew (the engine's "#initerror"), where the provider would say "doesn't support update" for ever."""


@dataclass
class LibvirtPlace:
    """One libvirt, and what a lab puts into it."""

    sticks: ClassVar[bool] = LIBVIRT.sticks
    lab: Lab
    plan: PlacePlan
    name: str
    """Prefix of the logical names of what belongs to the place itself."""
    owner: pulumi.Resource
    """Parent of what belongs to the place itself: its pool and media."""
    provider: libvirt.Provider
    target: pulumi.Input[Target]
    """How gates get to the place; secret for nested ones."""
    uri: str
    """libvirt's URI as seen from there."""
    accelerator: str
    pool_name: str
    pool_path: pulumi.Input[str]
    """Folder that is the lab's alone; see `Identity.folder`."""
    group: pulumi.Output[str | None]
    """Number of the group that QEMU runs in there, to which the pool's folder is open; see `Identity`."""
    cores: int
    """Cores that machines share while they boot."""
    inside: Inside | None = None
    queue: BootQueue = field(init=False)
    pool: libvirt.Pool = field(init=False)
    ready: PoolGate = field(init=False)
    """What everything of the place waits for."""
    hooks: pulumi.ResourceHookBinding | None = field(init=False, default=None)
    """What runs before something is made here; see `leftovers`."""
    _volumes: list[str] = field(default_factory=list)
    _media: dict[str, libvirt.Volume] = field(default_factory=dict)

    def __post_init__(self) -> None:
        width = self.lab.spec.boot.concurrency or self.cores
        self.queue = BootQueue(width)
        uuid = self.uuid("pool", self.pool_name, f"{self.name}-pool")
        if self.lab.clears:
            self.hooks = leftovers.hooks(self, uuid)
        self.pool = libvirt.Pool(
            f"{self.name}-pool",
            name=self.pool_name,
            type="dir",
            target=libvirt.PoolTargetArgs(path=self.pool_path),
            xml=libvirt.PoolXmlArgs(
                xslt=pulumi.Output.all(uuid, self.group).apply(
                    lambda known: domain_xml.pool(known[0], known[1])
                )
            ),
            # Of a lab that was made before its group was known; another stylesheet is another pool.
            opts=self.once(self.owner, ignore_changes=["xml"]),
        )
        volumes: pulumi.Output[list[str]] = pulumi.Output.from_input(self._all_volumes())
        self.ready = PoolGate(
            f"{self.name}-pool-gate",
            Pool(
                target=later(self.target),
                uri=self.uri,
                pool=later(self.pool.name),
                uuid=later(uuid),
                domains={
                    one.called: later(
                        self.uuid("domain", one.called, f"{self.name}-{one.name}-domain")
                    )
                    for one in self.plan.machines.values()
                    if one.group != "containers"
                },
                networks={
                    one.called: later(
                        self.uuid("network", one.called, f"{self.name}-{one.name}-network")
                    )
                    for one in self.plan.networks.values()
                },
                volumes=later(volumes),
                ranges=[] if self.plan.path else self._ranges(),
            ),
            self.bound(self.owner, depends_on=[self.pool]),
        )

    def _ranges(self) -> list[Range]:
        return [
            Range(one.called, one.bridge, one.subnet)
            for one in self.plan.networks.values()
            if one.subnet and one.mode not in OUTER
        ]

    async def _all_volumes(self) -> list[str]:
        """Names of all volumes of the place: this runs when the program has said all it wants."""
        return sorted(self._volumes)

    def volume(self, name: str) -> str:
        """Note that the lab makes the volume ``name``, without which it would not be removed."""
        self._volumes.append(name)
        return name

    def options(
        self, parent: pulumi.Resource | None, **more: Unpack[Options]
    ) -> pulumi.ResourceOptions:
        """Options of a resource of this libvirt."""
        found = bound(self.inside, parent, self.provider, **more)
        found.hooks = self.hooks
        return found

    def once(
        self, parent: pulumi.Resource | None, **more: Unpack[Options]
    ) -> pulumi.ResourceOptions:
        """Options of what pulumi-libvirt knows no update of, and whose name only one can have.

        Its making may have failed half-way, and so its name is free before it is made anew. A volume
        that is made while there is one of its name is that one (the provider "left it as-is"), and
        then goes with the old one, as both have one path.
        """
        more |= {"delete_before_replace": True, "replace_on_changes": HALF_MADE}
        return self.options(parent, **more)

    def bound(
        self, parent: pulumi.Resource | None, **more: Unpack[Options]
    ) -> pulumi.ResourceOptions:
        """See `NestingPlace.bound`."""
        return bound(self.inside, parent, **more)

    def uuid(self, kind: str, physical: str, logical: str) -> pulumi.Output[str]:
        """UUID of an object: by its name where it can be swept, else by what the state calls it."""
        return self.lab.identity.uuid(kind, logical if self.plan.path else physical)

    def network(
        self,
        name: str,
        plan: NetworkPlan,
        reservations: Sequence[Reservation],
        opts: pulumi.ResourceOptions,
    ) -> NetworkMade:
        """See `Place.network`."""
        return made_network(self, name, plan, reservations, opts.parent)

    def medium(self, name: str, *, iso: bool) -> libvirt.Volume:
        """Return the volume of the medium ``name``: uploaded once for the whole place."""
        if name not in self._media:
            path = self.lab.medium(name)
            suffix = "iso" if iso else "img"
            self._media[name] = libvirt.Volume(
                f"{self.name}-medium-{name}",
                # The provider does not notice that a file of the same name is another one.
                name=self.volume(f"medium-{name}-{sums.sample(path)}.{suffix}"),
                pool=self.pool.name,
                xml=PRIVATE,
                source=as_url(str(path)),
                # Without a format the provider writes qcow2, and reads back what it finds.
                format="iso" if iso else format_of(path),
                opts=self.once(self.owner, depends_on=[self.ready], ignore_changes=["xml"]),
            )
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
        drives = []
        if spec.image or plan.disk_gib:
            base = self.medium(spec.image, iso=False) if spec.image else None
            disk = self.disk(name, plan, opts.parent, base_volume_id=base.id if base else None)
            drives.append(Drive(disk, DiskProfile(plan.disk_bus or "virtio")))
        bus, _ = PLACES[spec.machine]
        drives += [
            Drive(self.medium(disc, iso=True), DiskProfile(bus, "cdrom"))
            for disc in (spec.iso, *spec.discs)
            if disc
        ]
        seeds = Seeds(self.lab, self.plan, self.target)
        seeded = seeds.make(name, spec, plan, self.bound(opts.parent))
        if seeded:
            drives.append(seed_drive(self, name, seeded, spec, plan, opts.parent))
        # Last: those that are there keep their letters when another disc or seed comes.
        drives += [
            data_drive(self, name, each, gib, plan, opts.parent)
            for each, gib in ordered(spec.disks)
        ]
        domain, password = self.domain(name, spec, plan, networks, drives, opts.parent)
        usual = awaited(plan, self.plan)
        gate = self.gate(
            name,
            plan,
            domain,
            seeded.awaited(usual) if seeded else usual,
            opts.parent,
            instance=fingerprint(machine_facts(spec, plan)),
        )
        serial = ("virsh", "-c", self.uri, "console", plan.called)
        return MachineMade(
            ready=gate,
            address=plan.address or "",
            console=gate.console,
            password=password,
            user=seeded.user if seeded else "",
            user_password=seeded.password if seeded else "",
            enter=() if seeded and seeded.opened else serial,
            serial=serial,
        )

    def container(
        self,
        name: str,
        spec: ContainerSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> MachineMade:
        """See `Place.container`: LXC, by its own tools on the nested host."""
        nic = plan.nics[0] if plan.nics else None
        made = RemoteObject(
            f"{name}-container",
            Object(
                driver="kvm.container",
                target=later(self.target),
                wanted=wanted.container(spec, plan, self.plan, self.lab),
                deadline_s=plan.ready.deadline_s,
            ),
            self.bound(
                opts.parent,
                depends_on=[*self.queue.turn(), *([networks[nic.network].ready] if nic else [])],
                delete_before_replace=True,
            ),
        )
        self.queue.joined(made)
        return MachineMade(
            ready=made,
            address=plan.address or "",
            console=f"lxc-attach -n {plan.called}",
            user="root",
            enter=("lxc-attach", "-n", plan.called),
            run=("lxc-attach", "-n", plan.called, "--"),
        )

    def route(self, plan: MachinePlan, ports: Sequence[int]) -> Route:
        """See `NestingPlace.route`: straight on the outer host, else by ports of the host around it."""
        own = plan.address or ""
        if not self.plan.path:
            return Route(own, {port: port for port in ports}, [])
        outer = self.lab.plan.machine(self.plan.path[-1])
        last = int(own.rpartition(".")[2])
        by = {port: FORWARDS.get(port, FORWARDS_OTHERS) + last for port in ports}
        return Route(
            outer.address or "",
            by,
            [Forward(port=by[port], host=own, to=port) for port in ports],
        )

    def hypervisor(
        self,
        name: str,
        spec: HypervisorSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        build: Build,
        opts: pulumi.ResourceOptions,
    ) -> Opened:
        """See `NestingPlace.hypervisor`."""
        base = self.medium(build.image, iso=False).id if build.image else None
        disk = self.disk(name, plan, opts.parent, base_volume_id=base)
        bus, _ = PLACES[spec.machine]
        drives = [
            Drive(disk, DiskProfile(plan.disk_bus or "virtio")),
            *(
                Drive(
                    self._disc(disc, opts.parent),
                    DiskProfile("usb") if disc.stick else DiskProfile(bus, "cdrom"),
                )
                for disc in build.discs
            ),
        ]
        # libvirt boots nothing that is not named, and an installer's disc once, while the disk is empty.
        told = plan if build.image else replace(plan, boot=("hd", "cdrom"))
        domain, password = self.domain(name, spec, told, networks, drives, opts.parent)
        gate = self.gate(
            name,
            plan,
            domain,
            build,
            opts.parent,
            instance=fingerprint(machine_facts(spec, plan)),
        )
        return Opened(gate, gate.reach, gate.answers, Inside(domain, disk), gate.console, password)

    def _disc(self, disc: Disc, parent: pulumi.Resource | None) -> libvirt.Volume:
        if disc.shared and disc.name in self._media:
            return self._media[disc.name]
        made = libvirt.Volume(
            f"{self.name}-disc-{disc.name}",
            name=self.volume(f"disc-{disc.name}.{'img' if disc.stick else 'iso'}"),
            pool=self.pool.name,
            xml=PRIVATE,
            source=pulumi.Output.from_input(disc.path).apply(as_url),
            format="raw" if disc.stick else "iso",
            opts=self.once(
                self.owner if disc.shared else parent,
                depends_on=[self.ready],
                ignore_changes=["xml"],
            ),
        )
        if disc.shared:
            self._media[disc.name] = made
        return made

    def disk(
        self, name: str, plan: MachinePlan, parent: pulumi.Resource | None, **base: Any
    ) -> libvirt.Volume:
        """Make the system disk of a machine: empty, or a linked clone of ``base_volume_...``."""
        return libvirt.Volume(
            f"{name}-disk",
            name=self.volume(f"{plan.called}.qcow2"),
            pool=self.pool.name,
            xml=PRIVATE,
            format="qcow2",
            size=plan.disk_gib * GIB or None,
            opts=self.once(parent, depends_on=[self.ready], ignore_changes=["xml"]),
            **base,
        )

    def domain(
        self,
        name: str,
        spec: MachineSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        drives: Sequence[Drive],
        parent: pulumi.Resource | None,
        direct: DirectBoot | None = None,
    ) -> tuple[libvirt.Domain, pulumi.Input[str]]:
        """Make the domain of a machine; return it with its console's password, empty for none."""
        drives = in_order(drives)
        password: pulumi.Input[str] = ""
        if spec.console.password and has_screen(spec):
            made = Password(f"{name}-console", opts=self.bound(parent))
            password = made.value
        uuid = self.uuid("domain", plan.called, f"{name}-domain")
        kvm = self.accelerator == "kvm"
        domain = libvirt.Domain(
            f"{name}-domain",
            arguments(
                spec,
                plan,
                kvm=kvm,
                nics=[
                    nic_args(nic, self.plan.networks[nic.network], networks[nic.network].name)
                    for nic in plan.nics
                ],
                drives=drives,
                direct=direct,
                xslt=stylesheet(spec, plan, drives, uuid, password, kvm=kvm),
            ),
            opts=self.options(
                parent,
                depends_on=[
                    self.ready,
                    *self.queue.turn(),
                    *(networks[nic.network].ready for nic in plan.nics),
                    *(drive.ready for drive in drives if drive.ready),
                ],
                delete_before_replace=True,
                replace_on_changes=FORGOTTEN,
            ),
        )
        return domain, password

    def gate(
        self,
        name: str,
        plan: MachinePlan,
        domain: libvirt.Domain,
        up: Awaited,
        parent: pulumi.Resource | None,
        *,
        instance: str,
    ) -> MachineGate:
        """Make the gate of a machine, and let the next in the queue boot once it is open."""
        gate = MachineGate(
            f"{name}-gate",
            Domain(
                target=later(self.target),
                uri=self.uri,
                domain=later(domain.name),
                instance=instance,
                probe=up.probe,
                reach=later(up.reach),
                key_folder=up.key_folder,
                console_log=CONSOLE_LOG.format(domain=plan.called),
                deadline_s=plan.ready.deadline_s,
                reset_s=plan.ready.reset_s or 0,
                stuck_s=up.stuck_s,
            ),
            self.bound(parent, depends_on=[domain]),
        )
        self.queue.joined(gate)
        return gate
