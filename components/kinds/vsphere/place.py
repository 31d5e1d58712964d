"""vSphere as the outer host of a lab: one ESXi host that a vCenter manages (R162 to R177).

Guests and their media are pulumi-vsphere's. Gates do what that provider does not: look again, start,
mend, networks that outlive a `refresh`, a second CD, the boot order. Left out: a nested ESXi behind a
vCenter, whose joining no test double takes part in; it is managed on its own (`esxi`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Unpack

import pulumi
import pulumi_vsphere as vs

from components.gates.api import MARK
from components.gates.codec import later
from components.kinds.vsphere.gates.guest import Guest, VsphereGuestGate
from components.kinds.vsphere.gates.network import PortGroup, VsphereNetworkGate
from components.kinds.vsphere.gates.slot import Slot, VsphereSlot
from components.kinds.vsphere.hardware import FOLDER, Nic, Wanted
from components.kinds.vsphere.host import HOST
from components.kinds.vsphere.machine import PATIENCE, cards, disks, memory_of
from components.media import sums
from components.place.contract import (
    BootQueue,
    Inside,
    MachineMade,
    NetworkMade,
    Opened,
    Route,
    asked,
)
from components.place.machine import fingerprint, machine_facts
from components.place.seeds import Seeds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.kinds.vsphere.api import Api
    from components.kinds.vsphere.gates.node import VsphereNode
    from components.kinds.vsphere.host import VsphereHost
    from components.place.contract import Awaited, Build, Disc, Lab, Options
    from components.place.seeds import Seeded
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

TOGETHER = 4
"""Most machines of one lab that start at the same time on a host, where the stack says nothing."""
SCSI = {"virtio-scsi": "pvscsi", "lsilogic": "lsilogic"}
GUEST = "otherGuest64"
SYSTEMS = {"esxi": "vmkernel65Guest", "hyperv": "windows9Server64Guest"}
"""What vSphere is told that a hypervisor is, by kind."""
SYSTEM = "otherLinux64Guest"
DIGITS = 8


@dataclass
class VspherePlace:
    """One host, and what a lab puts onto it."""

    sticks: ClassVar[bool] = HOST.offers.sticks
    lab: Lab
    plan: PlacePlan
    owner: pulumi.Resource
    """Parent of what belongs to the place itself: its media."""
    host: VsphereHost
    provider: vs.Provider
    api: pulumi.Input[Api]
    """How its gates reach it, secret."""
    node: VsphereNode
    on: pulumi.Input[str]
    """Name of that host. What hosts of a vCenter share is called after it too: a lab that moves to
    another one has both for a while."""
    target: pulumi.Input[Target]
    """From where guests are asked whether they are up."""
    cores: int
    """Cores that machines share while they boot."""
    queue: BootQueue = field(init=False)
    _files: dict[str, vs.File] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = BootQueue(self.lab.spec.boot.concurrency or self.cores)

    def options(
        self, parent: pulumi.Resource | None, **more: Unpack[Options]
    ) -> pulumi.ResourceOptions:
        """Options of a resource of this host: on another host it is another one."""
        return pulumi.ResourceOptions(
            parent=parent, provider=self.provider, replace_with=[self.node], **more
        )

    def bound(
        self, parent: pulumi.Resource | None, **more: Unpack[Options]
    ) -> pulumi.ResourceOptions:
        """See `NestingPlace.bound`."""
        return pulumi.ResourceOptions(parent=parent, **more)

    def route(self, plan: MachinePlan, ports: Sequence[int]) -> Route:
        """See `NestingPlace.route`: a nested hypervisor is on a network that is reached."""
        return Route(plan.address or "", {port: port for port in ports}, [])

    def network(
        self,
        name: str,
        plan: NetworkPlan,
        reservations: Sequence[Reservation],
        opts: pulumi.ResourceOptions,
    ) -> NetworkMade:
        """See `Place.network`: a port group; nobody hands out addresses on it.

        Its machines may pretend to be others, as frames of guests of guests do, only where a nested
        hypervisor is on it; such a stack states it in ``nestlab:spoofing``.
        """
        del reservations
        own = plan.mode != "bridge"
        switch = plan.bridge or self.host.switch

        def digits(uuid: str, on: str) -> str:
            # On another switch it is another one: a port group does not move.
            return fingerprint(uuid, on, "" if own else switch)[:DIGITS]

        mark = pulumi.Output.all(self._own("network", name), self.on).apply(
            lambda known: digits(*known)
        )
        spoofing = any(
            machine.group == "hypervisors" and any(nic.network == plan.name for nic in machine.nics)
            for machine in self.plan.machines.values()
        )
        gate = VsphereNetworkGate(
            f"{name}-gate",
            PortGroup(
                api=later(self.api),
                datacenter=self.host.datacenter,
                host=later(self.node.host),
                group=later(mark.apply(lambda each: f"{plan.called}-{each}")),
                switch=later(mark.apply(lambda each: f"nl{each}")) if own else switch,
                own=own,
                allowPromiscuous=spoofing,
                allowForgedTransmits=spoofing,
                allowMacChanges=spoofing,
            ),
            self.bound(opts.parent),
        )
        return NetworkMade(name=gate.network, ready=gate)

    def _file(self, key: str, path: pulumi.Input[str], content: pulumi.Input[str] = "") -> vs.File:
        """Return a medium on the datastore, uploaded once: another content has another name.

        The provider would not notice that a file has another content. ``content`` tells it, else the file does.
        """
        if key not in self._files:
            local = pulumi.Output.from_input(path)
            self._files[key] = vs.File(
                f"{self.lab.prefix}host-{key}",
                datacenter=self.host.datacenter,
                datastore=self.host.datastore,
                source_file=local,
                destination_file=pulumi.Output.all(local, self.on, content).apply(
                    lambda known: f"{FOLDER}/{self.lab.plan.name}-{key}-{_digest(*known)}.iso"
                ),
                create_directories=True,
                # Known by then, as is the endpoint.
                opts=self.options(self.owner, depends_on=[self.node]),
            )
        return self._files[key]

    def guest(
        self,
        name: str,
        spec: GuestSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> MachineMade:
        """See `Place.guest`."""
        _no_image(name, spec.image or "")
        media = [spec.iso, *spec.discs] if spec.iso else spec.discs
        cds = [self._file(f"medium-{medium}", str(self.lab.medium(medium))) for medium in media]
        seeds = Seeds(self.lab, self.plan, self.target)
        seeded = seeds.make(name, spec, plan, self.bound(opts.parent))
        seed = self._seed(plan, seeded) if seeded else None
        _, gate = self._machine(
            name,
            spec,
            plan,
            networks,
            opts.parent,
            cds=[*cds, seed] if seed else cds,
            boot=plan.boot,
            up=seeded.awaited(asked(plan)) if seeded else asked(plan),
            seed=seed,
        )
        return MachineMade(
            ready=gate,
            address=plan.address or "",
            console=self._screen(),
            user=seeded.user if seeded else "",
            user_password=seeded.password if seeded else "",
        )

    def _seed(self, plan: MachinePlan, seeded: Seeded) -> vs.File:
        """Return the disc with a guest's configuration, in its last CD drive: NoCloud, as in every other place.

        cloud-init's VMware datasource (its documentation, Datasources, VMware) reads ``guestinfo`` without a disc,
        where VMware's tools are in the guest. But that is `extra_config` of the provider: it stands in the machine's
        own file, and is told to whoever may look at the machine and to each program in it, private host key included.
        """
        return self._file(f"seed-{plan.name}-{seeded.mark}", seeded.disc, seeded.sha256)

    def _screen(self) -> str:
        return f"https://{self.host.server}/ui"

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
            ValueError: vSphere has none; the spec refuses such a lab first.
        """
        del spec, plan, networks, opts
        raise ValueError(f"{name}: vSphere has no containers")

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
        _no_image(name, build.image)
        discs = [self._disc(disc) for disc in build.discs]
        made, gate = self._machine(
            name,
            spec,
            plan,
            networks,
            opts.parent,
            cds=discs,
            # The empty disk is passed over at the first boot, and boots at the second.
            boot=("hd", "cdrom") if discs else ("hd",),
            up=build,
            kind=spec.kind,
        )
        return Opened(gate, gate.reach, gate.answers, Inside(gate, made), self._screen(), "")

    def _disc(self, disc: Disc) -> vs.File:
        return self._file(f"disc-{disc.name}", disc.path)

    def _machine(
        self,
        name: str,
        spec: MachineSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        parent: pulumi.Resource | None,
        *,
        cds: Sequence[vs.File],
        boot: Sequence[str],
        up: Awaited,
        kind: str = "",
        seed: vs.File | None = None,
    ) -> tuple[vs.VirtualMachine, VsphereGuestGate]:
        if not plan.nics:
            raise ValueError(f"{name}: the vSphere provider makes no machine without a NIC")
        made = self._vm(name, spec, plan, networks, parent, cds=cds, kind=kind)
        gate = VsphereGuestGate(
            f"{name}-gate",
            Guest(
                api=later(self.api),
                datacenter=self.host.datacenter,
                host=later(self.node.host),
                pool=later(self.node.pool),
                store=later(self.node.store),
                uuid=later(made.id),
                called=plan.called,
                layer=plan.layer,
                instance=fingerprint(machine_facts(spec, plan)),
                wanted=_wanted(plan, networks, cds, boot, seed),
                probe=up.probe,
                reach=later(up.reach),
                key_folder=up.key_folder,
                target=later(self.target),
                deadline_s=plan.ready.deadline_s,
            ),
            self.bound(parent, depends_on=[made]),
        )
        self.queue.joined(gate)
        return made, gate

    def _vm(
        self,
        name: str,
        spec: MachineSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        parent: pulumi.Resource | None,
        *,
        cds: Sequence[vs.File],
        kind: str,
    ) -> vs.VirtualMachine:
        owner = self._own("domain", name)
        slot = self._slot(name, plan.called, owner, parent)
        return vs.VirtualMachine(
            f"{name}-vm",
            name=plan.called,
            annotation=owner.apply(
                lambda value: f"{MARK.format(owner=value)} nestlab:kind={kind or 'guest'}"
            ),
            resource_pool_id=self.node.pool,
            host_system_id=self.node.host,
            datastore_id=self.node.store,
            guest_id=SYSTEMS.get(kind, SYSTEM) if kind else GUEST,
            num_cpus=plan.cores,
            num_cores_per_socket=plan.cores,
            memory=memory_of(plan),
            nested_hv_enabled=bool(kind) if spec.nested is None else spec.nested,
            firmware="efi" if spec.firmware == "uefi" else "bios",
            scsi_type=SCSI[plan.hardware.scsi],
            sata_controller_count=1 if plan.disk_bus == "sata" else None,
            disks=disks(spec, plan),
            # Its gate puts further ones in: the provider knows one drive.
            cdroms=[
                vs.VirtualMachineCdromArgs(datastore_id=self.node.store, path=cd.destination_file)
                for cd in cds[:1]
            ],
            **cards(plan, networks),
            **PATIENCE,
            opts=self.options(
                parent,
                depends_on=[
                    slot,
                    *self.queue.turn(),
                    *(networks[nic.network].ready for nic in plan.nics),
                ],
                delete_before_replace=True,
                # The provider says it has changed it, and has not.
                replace_on_changes=["networkInterfaces[*].macAddress"],
                ignore_changes=["cdroms"] if len(cds) > 1 else None,
            ),
        )

    def _slot(
        self, name: str, called: str, owner: pulumi.Output[str], parent: pulumi.Resource | None
    ) -> VsphereSlot:
        return VsphereSlot(
            f"{name}-slot",
            Slot(
                api=later(self.api),
                server=self.host.server,
                datacenter=self.host.datacenter,
                called=called,
                owner=later(owner),
            ),
            self.bound(parent),
        )

    def _own(self, kind: str, name: str) -> pulumi.Output[str]:
        return self.lab.identity.uuid(kind, name)


def _wanted(
    plan: MachinePlan,
    networks: Mapping[str, NetworkMade],
    cds: Sequence[vs.File],
    boot: Sequence[str],
    seed: vs.File | None,
) -> Wanted:
    return Wanted(
        memory_mib=memory_of(plan),
        cores=plan.cores,
        nics=[
            Nic(
                mac=nic.mac,
                model=nic.model or "vmxnet3",
                network=later(networks[nic.network].name),
            )
            for nic in plan.nics
        ],
        cds=[later(cd.destination_file) for cd in cds],
        boot=list(boot),
        seed=later(seed.destination_file) if seed else "",
    )


def _digest(path: str, on: str, content: str) -> str:
    return fingerprint(content or sums.sample(Path(path)), on)[:DIGITS]


def _no_image(name: str, image: str) -> None:
    if image:
        raise ValueError(f"{name}: vSphere makes no disks from images ({image})")
