"""A place whose hypervisor is libvirt with QEMU: the outer host, and every nested KVM host.

`domain` says what the provider is told of a machine; here is what belongs together, what waits for
what, and what goes away with what.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import pulumi
import pulumi_libvirt as libvirt

from components import domain_xml
from components.domain_xml import DiskProfile
from components.gates.machine import MachineGate
from components.gates.network import NetworkGate
from components.gates.pool import PoolGate
from components.gates.secrets import Password
from components.hypervisors import wanted
from components.hypervisors.domain import (
    FORGOTTEN,
    DirectBoot,
    Drive,
    arguments,
    fingerprint,
    has_screen,
    machine_facts,
    stylesheet,
)
from components.hypervisors.handle import (
    LOCAL,
    BootQueue,
    Build,
    Disc,
    Doors,
    Inside,
    JsonMap,
    Lab,
    MachineMade,
    NetworkMade,
    Opened,
    asked,
    bound,
    pool_of,
)
from components.remote.objects import RemoteObject
from components.remote.ownership import CONSOLE_LOG
from components.remote.virsh import words_of
from components.spec import sums
from components.spec.hosts.libvirt import LibvirtHost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from components.spec import (
        ContainerSpec,
        GuestSpec,
        HypervisorSpec,
        MachinePlan,
        MachineSpec,
        NetworkPlan,
        PlacePlan,
    )

MODES = {"nat": "nat", "isolated": "none", "route": "route", "open": "open", "bridge": "bridge"}
"""Our modes in the provider's words."""
GIB = 1 << 30
FORWARDS = {22: 2200, 443: 4400, 8006: 8000}
"""First TCP port of a nested host that leads to that port inside it; the address's last byte is added."""
FORWARDS_OTHERS = 9000
HALF_MADE = ["*"]
"""Replace-on-changes of what pulumi-libvirt knows no update of: one whose making failed half-way is made
anew (the engine's "#initerror"), where the provider would say "doesn't support update" for ever."""
PRIVATE = libvirt.VolumeXmlArgs(xslt=domain_xml.PRIVATE_VOLUME)
"""How a volume is kept from other accounts; a lab's older volumes are not made again for it."""


@dataclass
class LibvirtPlace:
    """One libvirt, and what a lab puts into it."""

    sticks: ClassVar[bool] = True
    lab: Lab
    plan: PlacePlan
    name: str
    """Prefix of the logical names of what belongs to the place itself."""
    owner: pulumi.Resource
    """Parent of what belongs to the place itself: its pool and media."""
    provider: libvirt.Provider
    target: pulumi.Input[JsonMap]
    """How gates get to the place (`components.remote.shell.Target`); secret for nested ones."""
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
    _volumes: list[str] = field(default_factory=list)
    _media: dict[str, libvirt.Volume] = field(default_factory=dict)

    def __post_init__(self) -> None:
        width = self.lab.spec.boot.concurrency or self.cores
        self.queue = BootQueue(width)
        self.pool = libvirt.Pool(
            f"{self.name}-pool",
            name=self.pool_name,
            type="dir",
            target=libvirt.PoolTargetArgs(path=self.pool_path),
            xml=libvirt.PoolXmlArgs(
                xslt=pulumi.Output.all(
                    self._uuid("pool", self.pool_name, f"{self.name}-pool"), self.group
                ).apply(lambda known: domain_xml.pool(known[0], known[1]))
            ),
            # Of a lab that was made before its group was known; another stylesheet is another pool.
            opts=self.options(self.owner, ignore_changes=["xml"]),
        )
        self.ready = PoolGate(
            f"{self.name}-pool-gate",
            target=self.target,
            uri=self.uri,
            pool=self.pool.name,
            uuid=self._uuid("pool", self.pool_name, f"{self.name}-pool"),
            domains={
                one.domain_name: self._uuid(
                    "domain", one.domain_name, f"{self.name}-{one.name}-domain"
                )
                for one in self.plan.machines.values()
                if one.group != "containers"
            },
            networks={
                one.libvirt_name: self._uuid(
                    "network", one.libvirt_name, f"{self.name}-{one.name}-network"
                )
                for one in self.plan.networks.values()
            },
            volumes=pulumi.Output.from_input(self._all_volumes()),
            opts=self.bound(self.owner, depends_on=[self.pool]),
        )

    async def _all_volumes(self) -> list[str]:
        """Names of all volumes of the place: this runs when the program has said all it wants."""
        return sorted(self._volumes)

    def volume(self, name: str) -> str:
        """Note that the lab makes the volume ``name``, without which it would not be removed."""
        self._volumes.append(name)
        return name

    def options(self, parent: pulumi.Resource | None, **more: Any) -> pulumi.ResourceOptions:
        """Options of a resource of this libvirt."""
        return bound(self.inside, parent, provider=self.provider, **more)

    def bound(self, parent: pulumi.Resource | None, **more: Any) -> pulumi.ResourceOptions:
        """See `Host.bound`."""
        return bound(self.inside, parent, **more)

    def _uuid(self, kind: str, physical: str, logical: str) -> pulumi.Output[str]:
        """UUID of an object: by its name where it can be swept, else by what the state calls it."""
        return self.lab.identity.uuid(kind, logical if self.plan.path else physical)

    def _identified(self, kind: str, physical: str, logical: str) -> pulumi.Output[str]:
        uuid = self._uuid(kind, physical, logical)
        return uuid.apply(lambda value: domain_xml.identified(kind, value))

    def network(
        self,
        name: str,
        plan: NetworkPlan,
        reservations: Sequence[JsonMap],
        opts: pulumi.ResourceOptions,
    ) -> NetworkMade:
        """See `Hypervisor.network`."""
        own = plan.mode != "bridge"
        hosts = [host.xml for host in words_of(reservations)] if plan.dhcp else []
        uuid = self._uuid("network", plan.libvirt_name, f"{name}-network")
        made = libvirt.Network(
            f"{name}-network",
            name=plan.libvirt_name,
            mode=MODES[plan.mode],
            bridge=plan.bridge,
            addresses=[plan.subnet] if plan.subnet else None,
            domain=plan.domain,
            dhcp=libvirt.NetworkDhcpArgs(enabled=plan.dhcp) if own else None,
            autostart=True,
            xml=libvirt.NetworkXmlArgs(
                xslt=uuid.apply(lambda value: domain_xml.network(value, plan.gateway or "", hosts))
            ),
            # The first reservations come with the network: adding one later makes libvirt write all
            # its firewall rules again, three seconds on an emulated machine. The gate does the rest.
            opts=self.options(
                opts.parent,
                depends_on=[self.ready],
                delete_before_replace=True,
                ignore_changes=["xml"],
            ),
        )
        gate = NetworkGate(
            f"{name}-gate",
            target=self.target,
            uri=self.uri,
            network=made.name,
            instance=fingerprint(plan),
            reservations=[dict(one) for one in reservations] if plan.dhcp else [],
            opts=self.bound(opts.parent, depends_on=[made]),
        )
        return NetworkMade(name=gate.network, ready=gate)

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
                format="iso" if iso else _format(path),
                opts=self.options(self.owner, depends_on=[self.ready], ignore_changes=["xml"]),
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
        """See `Hypervisor.guest`."""
        drives = []
        if spec.image or plan.disk_gib:
            base = self.medium(spec.image, iso=False) if spec.image else None
            disk = self.disk(name, plan, opts.parent, base_volume_id=base.id if base else None)
            drives.append(Drive(disk, DiskProfile(plan.disk_bus or "virtio")))
        if spec.iso:
            bus = "ide" if spec.machine == "pc" else "sata"
            drives.append(Drive(self.medium(spec.iso, iso=True), DiskProfile(bus, "cdrom")))
        domain, password = self.domain(name, spec, plan, networks, drives, opts.parent)
        gate = self.gate(
            name,
            plan,
            domain,
            _probe(plan, self.plan),
            opts.parent,
            instance=fingerprint(machine_facts(spec, plan)),
        )
        return MachineMade(
            ready=gate,
            address=plan.address or "",
            console=gate.console,
            password=password,
            enter=("virsh", "-c", self.uri, "console", plan.domain_name),
        )

    def container(
        self,
        name: str,
        spec: ContainerSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> MachineMade:
        """See `Hypervisor.container`: LXC, by its own tools on the nested host."""
        nic = plan.nics[0] if plan.nics else None
        made = RemoteObject(
            f"{name}-container",
            driver="lxc.container",
            target=self.target,
            wanted=wanted.container(spec, plan, self.plan, self.lab),
            deadline_s=plan.ready.deadline_s,
            opts=self.bound(
                opts.parent,
                depends_on=[*self.queue.turn(), *([networks[nic.network].ready] if nic else [])],
                delete_before_replace=True,
            ),
        )
        self.queue.joined(made)
        return MachineMade(
            ready=made,
            address=plan.address or "",
            console=f"lxc-attach -n {plan.domain_name}",
            user="root",
            enter=("lxc-attach", "-n", plan.domain_name),
            run=("lxc-attach", "-n", plan.domain_name, "--"),
        )

    def doors(self, plan: MachinePlan, ports: Sequence[int]) -> Doors:
        """See `Host.doors`: straight on the outer host, else by ports of the host around it."""
        own = plan.address or ""
        if not self.plan.path:
            return Doors(own, {port: port for port in ports}, [])
        outer = self.lab.plan.machine(self.plan.path[-1])
        last = int(own.rpartition(".")[2])
        by = {port: FORWARDS.get(port, FORWARDS_OTHERS) + last for port in ports}
        return Doors(
            outer.address or "",
            by,
            [{"port": by[port], "host": own, "to": port} for port in ports],
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
        """See `Host.hypervisor`."""
        base = self.medium(build.image, iso=False).id if build.image else None
        disk = self.disk(name, plan, opts.parent, base_volume_id=base)
        bus = "ide" if spec.machine == "pc" else "sata"
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
            build.probe,
            opts.parent,
            instance=fingerprint(machine_facts(spec, plan)),
            key_folder=build.key_folder,
            reach=build.reach,
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
            opts=self.options(
                self.owner if disc.shared else parent,
                depends_on=[self.ready],
                delete_before_replace=not disc.shared,
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
            name=self.volume(f"{plan.domain_name}.qcow2"),
            pool=self.pool.name,
            xml=PRIVATE,
            format="qcow2",
            size=plan.disk_gib * GIB or None,
            opts=self.options(
                parent,
                depends_on=[self.ready],
                delete_before_replace=True,
                ignore_changes=["xml"],
                replace_on_changes=HALF_MADE,
            ),
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
        password: pulumi.Input[str] = ""
        if spec.console.password and has_screen(spec):
            made = Password(f"{name}-console", opts=self.bound(parent))
            password = made.value
        uuid = self._uuid("domain", plan.domain_name, f"{name}-domain")
        kvm = self.accelerator == "kvm"
        domain = libvirt.Domain(
            f"{name}-domain",
            arguments(
                spec,
                plan,
                kvm=kvm,
                networks={key: made.name for key, made in networks.items()},
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
        probe: JsonMap,
        parent: pulumi.Resource | None,
        *,
        instance: str,
        **reach: Any,
    ) -> MachineGate:
        """Make the gate of a machine, and let the next in the queue boot once it is open."""
        gate = MachineGate(
            f"{name}-gate",
            target=self.target,
            uri=self.uri,
            domain=domain.name,
            instance=instance,
            probe=probe,
            console_log=CONSOLE_LOG.format(domain=plan.domain_name),
            deadline_s=plan.ready.deadline_s,
            reset_s=plan.ready.reset_s or 0,
            opts=self.bound(parent, depends_on=[domain]),
            **reach,
        )
        self.queue.joined(gate)
        return gate


def outer(
    lab: Lab, *, owner: pulumi.Resource, cores: int, password: pulumi.Output[str] | None
) -> LibvirtPlace:
    """See `components.hypervisors.handle.Outer`: access to another machine is by key."""
    del password
    uri = lab.spec.host.where
    return LibvirtPlace(
        lab=lab,
        plan=lab.plan.place(),
        name="host",
        owner=owner,
        provider=libvirt.Provider(
            "host-libvirt", uri=uri, opts=pulumi.ResourceOptions(parent=owner)
        ),
        target=LOCAL,
        uri=uri,
        accelerator=lab.accelerator,
        pool_name=pool_of(lab.spec.name),
        pool_path=lab.identity.folder.apply(lambda known: known or _before(lab)),
        group=lab.identity.group,
        cores=cores,
    )


def _before(lab: Lab) -> str:
    """Folder of a lab that was made when folders had no mark: it stays there until it is taken down."""
    host = lab.spec.host
    given = host.pool_path if isinstance(host, LibvirtHost) else None
    return given or lab.plan.pool_path


def _probe(plan: MachinePlan, place: PlacePlan) -> JsonMap:
    """What `MachineGate` asks of a guest."""
    if plan.ready.probe != "lease":
        return asked(plan)
    nic = next(nic for nic in plan.nics if place.networks[nic.network].dhcp)
    network = place.networks[nic.network].libvirt_name
    return {"kind": "lease", "network": network, "mac": nic.mac, "address": nic.address or ""}


def as_url(path: str) -> str:
    """Return ``path`` as the provider takes it, who reads a URL (volume_image.go): ``#`` ends one.

    What is usual in a path stays as it is: another text is another volume.
    """
    said = f"/{path.lstrip('/')}"
    return re.sub(r"[%?#\x00-\x1f\x7f]", lambda found: quote(found[0]), said)


def _format(image: Path) -> str:
    if not image.is_file():
        return "qcow2"  # in a preview it need not be there
    with image.open("rb") as handle:
        return "qcow2" if handle.read(4) == b"QFI\xfb" else "raw"
