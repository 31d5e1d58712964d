"""Proxmox VE: installed from its ISO, and as a place; nested, or the outer host of a lab (R112).

Guests and containers are pulumi-proxmoxve's (its classic resources, which upstream calls fit for use).
Gates do what it does not: look again, start, mend, set what it has no word for (R131's KVM switch, a second CD).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Unpack

import pulumi
import pulumi_proxmoxve as px

from components.gates.codec import later
from components.kinds.proxmox.data import all_disks
from components.kinds.proxmox.gates.guest import Again, Guest, PveGuestGate
from components.kinds.proxmox.gates.network import Bridge, PveNetworkGate
from components.kinds.proxmox.gates.slot import PveSlot, Slot
from components.kinds.proxmox.gates.storage import PveStorage, Storage
from components.kinds.proxmox.gates.template import PveTemplate, Template
from components.kinds.proxmox.host import HOST
from components.kinds.proxmox.machine import (
    SCSI,
    address,
    described,
    devices,
    drive,
    hardware,
    interfaces,
    tag_of,
)
from components.kinds.proxmox.numbers import number, vmids
from components.kinds.proxmox.seed import as_cd, further_drives
from components.kinds.proxmox.uploads import IMPORT, uploaded, virtual_gib
from components.media import sums
from components.place.contract import (
    RUNS,
    BootQueue,
    Inside,
    MachineMade,
    NetworkMade,
    Opened,
    Route,
    asked,
    bound,
)
from components.place.machine import fingerprint, machine_facts
from components.place.seeds import Seeds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.kinds.proxmox.api import Api
    from components.place.contract import Awaited, Build, Lab, Options
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

FILES = "local"
"""Storage of a node that holds ISOs and templates, as its installer makes it."""
DISKS = "local-lvm"
"""Storage of a node that holds disks, likewise (R124)."""
UPLINK = "vmbr0"
GUEST = "guest"
"""Kind of what is no hypervisor, whatever component made it."""
TEMPLATE_MIB = 64
"""A template is never started; its clones are given their own."""


@dataclass(frozen=True)
class _Template:
    """What guests are cloned from."""

    made: px.VmLegacy
    ready: PveTemplate
    gib: int  # of its disk


@dataclass
class ProxmoxPlace:
    """One node, and what a lab puts onto it."""

    sticks: ClassVar[bool] = HOST.offers.sticks
    lab: Lab
    plan: PlacePlan
    name: str
    """Prefix of the logical names of what belongs to the place itself."""
    owner: pulumi.Resource | None
    """Parent of what belongs to the place itself: its media."""
    provider: px.Provider
    api: pulumi.Input[Api]
    """How its gates reach it, secret."""
    target: pulumi.Input[Target]
    """From where guests are asked whether they are up."""
    node: pulumi.Input[str]
    cores: int
    """Cores that machines share while they boot."""
    kvm: bool = True
    """Whether guests use hardware virtualization."""
    files: str = FILES
    disks: str = DISKS
    uplink: str = UPLINK
    """Bridge that networks of mode bridge join where the stack names none."""
    linked: bool = True
    """Whether guests made from an image share its disk, which not every storage can."""
    web: str = ""
    """Its web interface, https://HOST:PORT; empty where none is known."""
    ours: bool = False
    """Whether the lab made the node, and so may set it up."""
    inside: Inside | None = None
    queue: BootQueue = field(init=False)
    _media: dict[str, px.FileLegacy] = field(default_factory=dict)
    _imports: PveStorage | None = None
    _templates: dict[str, _Template] = field(default_factory=dict)
    _vmids: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.queue = BootQueue(self.lab.spec.boot.concurrency or self.cores)
        self._vmids = vmids(self.lab.plan.name, self.plan)

    def options(
        self, parent: pulumi.Resource | None, **more: Unpack[Options]
    ) -> pulumi.ResourceOptions:
        """Options of a resource of this node."""
        return bound(self.inside, parent, self.provider, **more)

    def bound(
        self, parent: pulumi.Resource | None, **more: Unpack[Options]
    ) -> pulumi.ResourceOptions:
        """See `NestingPlace.bound`."""
        return bound(self.inside, parent, **more)

    def route(self, plan: MachinePlan, ports: Sequence[int]) -> Route:
        """See `NestingPlace.route`: on the outer host a nested hypervisor is on a network that is reached."""
        return Route(plan.address or "", {port: port for port in ports}, [])

    def network(
        self,
        name: str,
        plan: NetworkPlan,
        reservations: Sequence[Reservation],
        opts: pulumi.ResourceOptions,
    ) -> NetworkMade:
        """See `Place.network`: a Linux bridge; nobody hands out addresses on it."""
        del reservations
        own = plan.mode != "bridge"
        gate = PveNetworkGate(
            f"{name}-gate",
            Bridge(
                api=later(self.api),
                node=later(self.node),
                bridge=plan.bridge or self.uplink,
                cidr=f"{plan.gateway}/{plan.prefix}" if own else "",
                owner=later(self._own("network", name)) if own else "",
            ),
            self.bound(opts.parent),
        )
        return NetworkMade(name=gate.network, ready=gate)

    def medium(self, name: str, content: str) -> px.FileLegacy:
        """Return the file of the medium or template ``name``: uploaded once for the whole place."""
        spec = self.lab.spec
        path = (spec.templates if content == "vztmpl" else spec.media)[name].path
        return self._file(f"medium-{name}", self.lab.file(path), content)

    def _file(
        self, name: str, path: Path | pulumi.Input[str], content: str, ending: str = ""
    ) -> px.FileLegacy:
        if name not in self._media:
            if isinstance(path, Path):
                # The provider does not notice that a file of the same name is another one.
                ending = f"-{sums.sample(path)}{uploaded(path, content)}"
            self._media[name] = px.FileLegacy(
                f"{self.name}-{name}",
                node_name=self.node,
                datastore_id=self.files,
                content_type=content,
                source_file=px.FileLegacySourceFileArgs(
                    path=path if isinstance(path, pulumi.Output) else str(path),
                    # Media of several labs lie in one folder.
                    file_name=f"{self.lab.plan.name}-{name}{ending}",
                ),
                overwrite=True,
                opts=self.options(
                    self.owner,
                    depends_on=[self._importing()] if content == IMPORT else [],
                    delete_before_replace=True,
                ),
            )
        return self._media[name]

    def _importing(self) -> PveStorage:
        """Return what makes the storage of files take disk images; somebody's cluster has to by itself."""
        if self._imports is None:
            self._imports = PveStorage(
                f"{self.name}-imports",
                Storage(
                    api=later(self.api),
                    node=later(self.node),
                    storage=self.files,
                    content=IMPORT,
                    ours=self.ours,
                ),
                self.bound(self.owner),
            )
        return self._imports

    def guest(
        self,
        name: str,
        spec: GuestSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> MachineMade:
        """See `Place.guest`."""
        own = self.bound(opts.parent)
        seeded = Seeds(self.lab, self.plan, self.target).make(name, spec, plan, own)
        gate = self._machine(
            name,
            spec,
            plan,
            networks,
            opts.parent,
            cd=self.medium(spec.iso, "iso").id if spec.iso else None,
            image=spec.image or "",
            boot=plan.boot,
            up=seeded.awaited(asked(plan)) if seeded else asked(plan),
            config=further_drives(self, name, seeded, spec, plan, opts.parent),
        )
        serial = ("qm", "terminal", str(self._vmids[plan.name])) if self.plan.path else ()
        return MachineMade(
            ready=gate,
            address=plan.address or "",
            console=self._screen("kvm", plan),
            user=seeded.user if seeded else "",
            user_password=seeded.password if seeded else "",
            enter=() if seeded and seeded.opened else serial,
            serial=serial,
        )

    def _machine(
        self,
        name: str,
        spec: MachineSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        parent: pulumi.Resource | None,
        *,
        cd: pulumi.Input[str] | None,
        image: str,
        boot: Sequence[str],
        up: Awaited,
        config: Mapping[str, pulumi.Input[str]] | None = None,
    ) -> PveGuestGate:
        vmid = self._vmids[plan.name]
        slot = self._slot(name, "qemu", vmid, owner := self._own("domain", name), parent)
        bus = plan.disk_bus or "scsi"
        source = self._template(image, bus) if image else None
        first = drive(self.disks, f"{bus}0", plan.disk_gib or (source.gib if source else 0))
        drives = {"cdrom": "ide2", "hd": f"{bus}0", "network": "net0"}
        extra: dict[str, str | int] = {key: later(each) for key, each in (config or {}).items()}
        if not self.kvm:
            extra["kvm"] = 0
        made = px.VmLegacy(
            f"{name}-vm",
            node_name=self.node,
            vm_id=vmid,
            name=plan.called,
            description=described(owner),
            tags=[tag_of(getattr(spec, "kind", GUEST))],
            # What the provider can't set its gate does, and starts it; that a refresh sees it run stops nothing.
            started=not extra,
            on_boot=spec.autostart,
            stop_on_destroy=True,
            **hardware(spec, plan, disks=self.disks, kvm=self.kvm),
            clone=px.VmLegacyCloneArgs(vm_id=source.made.vm_id, full=not self.linked)
            if source
            else None,
            disks=all_disks(self, name, spec, vmid, first, slot, parent),
            cdrom=px.VmLegacyCdromArgs(file_id=cd, interface="ide2") if cd is not None else None,
            network_devices=devices(plan, networks),
            boot_orders=[drives[each] for each in boot],
            opts=self._after(
                [slot, *([source.ready] if source else [])],
                plan,
                networks,
                parent,
                ignore_changes=["started"],
            ),
        )
        anew = Again(clone=later(source.made.vm_id), linked=self.linked) if source else Again()
        return self._gate(name, spec, plan, made, parent, up, kind="qemu", again=anew, config=extra)

    def _after(
        self,
        first: Sequence[pulumi.Resource],
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        parent: pulumi.Resource | None,
        ignore_changes: list[str] | None = None,
    ) -> pulumi.ResourceOptions:
        """Options of a machine that is made after ``first``, its networks, and those before it in the queue."""
        return self.options(
            parent,
            depends_on=[
                *first,
                *self.queue.turn(),
                *(networks[nic.network].ready for nic in plan.nics),
            ],
            delete_before_replace=True,
            ignore_changes=ignore_changes,
        )

    def _template(self, image: str, bus: str) -> _Template:
        """Return the template that guests with a disk of ``image`` are cloned from: one for each bus."""
        key = f"{image}-{bus}"
        if key in self._templates:
            return self._templates[key]
        name = f"{self.name}-template-{key}"
        vmid = number(self.lab.plan.name, self.plan, f"template/{key}", set(self._vmids.values()))
        self._vmids[f"template/{key}"] = vmid
        medium, gib = self.medium(image, IMPORT), virtual_gib(self.lab.medium(image))
        owner = self._own("template", name)
        slot = self._slot(name, "qemu", vmid, owner, self.owner)
        made = px.VmLegacy(
            f"{name}-vm",
            node_name=self.node,
            vm_id=vmid,
            name=f"{self.lab.plan.name}-template-{key}",
            description=described(owner),
            tags=[tag_of(GUEST)],
            template=True,
            started=False,
            on_boot=False,
            cpu=px.VmLegacyCpuArgs(cores=1, type="qemu64", sockets=1),
            memory=px.VmLegacyMemoryArgs(dedicated=TEMPLATE_MIB),
            scsi_hardware=SCSI["virtio-scsi"],
            disks=drive(self.disks, f"{bus}0", gib, medium.id),
            operating_system=px.VmLegacyOperatingSystemArgs(type="l26"),
            agent=px.VmLegacyAgentArgs(enabled=False),
            opts=self.options(self.owner, depends_on=[slot], delete_before_replace=True),
        )
        ready = PveTemplate(
            f"{name}-gate",
            Template(
                api=later(self.api),
                node=later(self.node),
                vmid=vmid,
                again=Again(image=later(medium.id)),
                instance=fingerprint(key, gib),
            ),
            self.bound(self.owner, depends_on=[made]),
        )
        self._templates[key] = _Template(made, ready, gib)
        return self._templates[key]

    def container(
        self,
        name: str,
        spec: ContainerSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> MachineMade:
        """See `Place.container`: LXC, from the lab's own template (R127)."""
        vmid, owner = self._vmids[plan.name], self._own("container", name)
        slot = self._slot(name, "lxc", vmid, owner, opts.parent)
        template = self.medium(spec.template, "vztmpl")
        nic = plan.nics[0] if plan.nics else None
        made = px.ContainerLegacy(
            f"{name}-ct",
            node_name=self.node,
            vm_id=vmid,
            description=described(owner),
            started=True,
            start_on_boot=spec.autostart,
            unprivileged=True,
            cpu=px.ContainerLegacyCpuArgs(cores=plan.cores),
            memory=px.ContainerLegacyMemoryArgs(dedicated=plan.memory_mib, swap=0),
            disk=px.ContainerLegacyDiskArgs(datastore_id=self.disks, size=4),
            operating_system=px.ContainerLegacyOperatingSystemArgs(
                template_file_id=template.id, type="unmanaged"
            ),
            network_interfaces=interfaces(nic, networks),
            initialization=px.ContainerLegacyInitializationArgs(
                hostname=plan.called,
                ip_configs=[address(nic, self.plan.networks[nic.network])] if nic else None,
            ),
            opts=self._after([slot], plan, networks, opts.parent),
        )
        again = Again(template=later(template.id))
        gate = self._gate(name, spec, plan, made, opts.parent, RUNS, kind="lxc", again=again)
        return MachineMade(
            ready=gate,
            address=plan.address or "",
            console=self._screen("lxc", plan),
            user="root" if self.plan.path else "",
            enter=("pct", "enter", str(vmid)) if self.plan.path else (),
            run=("pct", "exec", str(vmid), "--") if self.plan.path else (),
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
        discs = [self._file(f"disc-{disc.name}", disc.path, "iso", ".iso") for disc in build.discs]
        more = {
            f"ide{number}": disc.id.apply(as_cd)
            # The provider knows one CD drive, ide2.
            for number, disc in zip((0, 1, 3), discs[1:], strict=False)
        }
        gate = self._machine(
            name,
            spec,
            plan,
            networks,
            opts.parent,
            cd=discs[0].id if discs else None,
            image=build.image,
            # The empty disk is passed over at the first boot, and boots at the second.
            boot=("hd", "cdrom") if discs else ("hd",),
            up=build,
            config=more,
        )
        inside, screen = Inside(gate, gate), self._screen("kvm", plan)
        return Opened(gate, gate.reach, gate.answers, inside, screen, "")

    def _screen(self, console: str, plan: MachinePlan) -> pulumi.Input[str]:
        """Return the page of the web interface that shows a machine's screen."""
        page = f"{self.web}/?console={console}&novnc=1&vmid={self._vmids[plan.name]}&node="
        return pulumi.Output.concat(page, self.node) if self.web else ""

    def _own(self, kind: str, name: str) -> pulumi.Output[str]:
        return self.lab.identity.uuid(kind, name)

    def _slot(
        self,
        name: str,
        kind: str,
        vmid: int,
        owner: pulumi.Output[str],
        parent: pulumi.Resource | None,
    ) -> PveSlot:
        slot = Slot(
            api=later(self.api), node=later(self.node), kind=kind, vmid=vmid, owner=later(owner)
        )
        return PveSlot(f"{name}-slot", slot, self.bound(parent))

    def _gate(
        self,
        name: str,
        spec: ContainerSpec | MachineSpec,
        plan: MachinePlan,
        made: pulumi.Resource,
        parent: pulumi.Resource | None,
        up: Awaited,
        *,
        kind: str,
        again: Again,
        config: Mapping[str, str | int] | None = None,
    ) -> PveGuestGate:
        gate = PveGuestGate(
            f"{name}-gate",
            Guest(
                api=later(self.api),
                node=later(self.node),
                kind=kind,
                vmid=self._vmids[plan.name],
                instance=fingerprint(machine_facts(spec, plan)),
                config=dict(config or {}),
                probe=up.probe,
                again=again,
                reach=later(up.reach),
                key_folder=up.key_folder,
                target=later(self.target),
                deadline_s=plan.ready.deadline_s,
            ),
            self.bound(parent, depends_on=[made]),
        )
        self.queue.joined(gate)
        return gate
