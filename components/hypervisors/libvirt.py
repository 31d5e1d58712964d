"""A place whose hypervisor is libvirt with QEMU: the outer host, and every nested KVM host.

`domain` says what the provider is told of a machine; here is what belongs together, what waits for
what, and what goes away with what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_libvirt as libvirt

from components import domain_xml, hypervisors
from components.domain_xml import DiskProfile
from components.gates.machine import MachineGate
from components.gates.network import NetworkGate
from components.gates.secrets import Password
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
    BootQueue,
    HypervisorMade,
    Inside,
    JsonMap,
    Lab,
    MachineMade,
    NetworkMade,
)
from components.remote.guests import RemoteGuest
from components.remote.ownership import CONSOLE_LOG
from components.remote.virsh import words_of

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


@dataclass
class LibvirtPlace:
    """One libvirt, and what a lab puts into it."""

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
    pool_path: str
    cores: int
    """Cores that machines share while they boot."""
    inside: Inside | None = None
    queue: BootQueue = field(init=False)
    pool: libvirt.Pool = field(init=False)
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
                xslt=self._identified("pool", self.pool_name, f"{self.name}-pool")
            ),
            opts=self.options(self.owner),
        )

    def options(self, parent: pulumi.Resource | None, **more: Any) -> pulumi.ResourceOptions:
        """Options of a resource of this libvirt: what is inside a guest goes and is lost with it."""
        return pulumi.ResourceOptions(provider=self.provider, **self._bound(parent, more))

    def gate_options(self, parent: pulumi.Resource | None, **more: Any) -> pulumi.ResourceOptions:
        """Options of a gate of this place."""
        return pulumi.ResourceOptions(**self._bound(parent, more))

    def _bound(self, parent: pulumi.Resource | None, more: dict[str, Any]) -> dict[str, Any]:
        bound: dict[str, Any] = {"parent": parent, **more}
        if self.inside:
            bound["deleted_with"] = self.inside.domain
            bound["replace_with"] = [self.inside.disk]
        return bound

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
            opts=self.options(opts.parent, delete_before_replace=True, ignore_changes=["xml"]),
        )
        gate = NetworkGate(
            f"{name}-gate",
            target=self.target,
            uri=self.uri,
            network=made.name,
            instance=fingerprint(plan),
            reservations=[dict(one) for one in reservations] if plan.dhcp else [],
            opts=self.gate_options(opts.parent, depends_on=[made]),
        )
        return NetworkMade(name=gate.network, ready=gate)

    def medium(self, name: str, *, iso: bool) -> libvirt.Volume:
        """Return the volume of the medium ``name``: uploaded once for the whole place."""
        if name not in self._media:
            path = (self.lab.root / self.lab.spec.media[name].path).expanduser()
            suffix = "iso" if iso else "img"
            self._media[name] = libvirt.Volume(
                f"{self.name}-medium-{name}",
                name=f"medium-{name}.{suffix}",
                pool=self.pool.name,
                source=str(path),
                # Without a format the provider writes qcow2, and reads back what it finds.
                format="iso" if iso else _format(path),
                opts=self.options(self.owner),
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
        template = self.lab.spec.templates.get(spec.template)
        nic = plan.nics[0] if plan.nics else None
        net = self.plan.networks[nic.network] if nic else None
        wanted = {
            "name": plan.domain_name,
            "template": spec.template if template is None else "",
            "archive": str((self.lab.root / template.path).expanduser()) if template else "",
            "sha256": (template.sha256 or "") if template else "",
            "memory_mib": plan.memory_mib,
            "cores": plan.cores,
            "command": list(spec.command or ()),
            "autostart": spec.autostart,
            "bridge": net.bridge if net else "",
            "mac": nic.mac if nic else "",
            "address": f"{nic.address}/{net.prefix}" if nic and net and nic.address else "",
            "gateway": (net.gateway or "") if net else "",
        }
        made = RemoteGuest(
            f"{name}-container",
            driver="lxc",
            target=self.target,
            wanted=wanted,
            deadline_s=plan.ready.deadline_s,
            opts=self.gate_options(
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
        )

    def nested(
        self,
        name: str,
        spec: HypervisorSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> HypervisorMade:
        """See `Hypervisor.nested`."""
        install = hypervisors.installer(spec.kind)
        return install(
            name, lab=self.lab, host=self, spec=spec, plan=plan, networks=networks, opts=opts
        )

    def disk(
        self, name: str, plan: MachinePlan, parent: pulumi.Resource | None, **base: Any
    ) -> libvirt.Volume:
        """Make the system disk of a machine: empty, or a linked clone of ``base_volume_...``."""
        return libvirt.Volume(
            f"{name}-disk",
            name=f"{plan.domain_name}.qcow2",
            pool=self.pool.name,
            format="qcow2",
            size=plan.disk_gib * GIB or None,
            opts=self.options(parent, delete_before_replace=True),
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
            made = Password(f"{name}-console", opts=self.gate_options(parent))
            password = made.value
        uuid = self._uuid("domain", plan.domain_name, f"{name}-domain")
        domain = libvirt.Domain(
            f"{name}-domain",
            arguments(
                spec,
                plan,
                kvm=self.accelerator == "kvm",
                networks={key: made.name for key, made in networks.items()},
                drives=drives,
                direct=direct,
                xslt=stylesheet(spec, plan, drives, uuid, password),
            ),
            opts=self.options(
                parent,
                depends_on=[
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
            opts=self.gate_options(parent, depends_on=[domain]),
            **reach,
        )
        self.queue.joined(gate)
        return gate


def _probe(plan: MachinePlan, place: PlacePlan) -> JsonMap:
    """What `MachineGate` asks of a guest."""
    kind = plan.ready.probe
    if kind == "tcp":
        return {"kind": "tcp", "host": plan.address or "", "port": plan.ready.port or 0}
    if kind == "lease":
        nic = next(nic for nic in plan.nics if place.networks[nic.network].dhcp)
        network = place.networks[nic.network].libvirt_name
        return {"kind": "lease", "network": network, "mac": nic.mac}
    return {"kind": "none"}


def _format(image: Path) -> str:
    with image.open("rb") as handle:
        return "qcow2" if handle.read(4) == b"QFI\xfb" else "raw"
