"""A place whose hypervisor is libvirt with QEMU: the outer host, and every nested KVM host.

Two things here are workarounds for the provider, proved in toolchain tests: changes that it takes
and silently forgets replace the domain, and what it can't say goes through `domain_xml`.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_libvirt as libvirt

from components import domain_xml, hypervisors
from components.domain_xml import DiskProfile, DomainProfile
from components.gates.machine import MachineGate
from components.gates.network import NetworkGate
from components.gates.secrets import Password
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
from components.remote.virsh import words_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from components.spec import (
        ConsoleSpec,
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
OVMF = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")
"""UEFI firmware and the template of its variables, as Debian's package ovmf has them."""
NVRAM = "/var/lib/libvirt/qemu/nvram/{domain}_VARS.fd"
CONSOLE_LOG = "/var/log/libvirt/qemu/{domain}-console.log"
GIB = 1 << 30
FORGOTTEN = [
    "arch",
    "bootDevices",
    "emulator",
    "initrd",
    "kernel",
    "machine",
    "metadata",
    "networkInterfaces[*].mac",
    "networkInterfaces[*].networkName",
    "video",
]
"""Inputs whose change the provider accepts without doing anything (0.8: not ForceNew, not in Update)."""


@dataclass(frozen=True)
class Drive:
    """A disk or CD of a machine: a volume, and how the machine sees it."""

    volume: libvirt.Volume | libvirt.CloudInitDisk
    profile: DiskProfile


@dataclass(frozen=True)
class DirectBoot:
    """Kernel, initial RAM disk (paths on the host) and kernel arguments, instead of a boot loader."""

    kernel: pulumi.Input[str]
    initrd: pulumi.Input[str]
    cmdline: Sequence[Mapping[str, str]]


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
        console = spec.console
        password: pulumi.Input[str] = ""
        if console.password and _has_screen(spec):
            made = Password(f"{name}-console", opts=self.gate_options(parent))
            password = made.value
        domain = libvirt.Domain(
            f"{name}-domain",
            name=plan.domain_name,
            type="kvm" if self.accelerator == "kvm" else "qemu",
            cpu=libvirt.DomainCpuArgs(
                mode="host-passthrough" if self.accelerator == "kvm" else "maximum"
            ),
            machine=spec.machine,
            memory=plan.memory_mib,
            vcpu=plan.cores,
            firmware=OVMF[0] if spec.firmware == "uefi" else None,
            nvram=libvirt.DomainNvramArgs(
                file=NVRAM.format(domain=plan.domain_name), template=OVMF[1]
            )
            if spec.firmware == "uefi"
            else None,
            kernel=direct.kernel if direct else None,
            initrd=direct.initrd if direct else None,
            cmdlines=[dict(each) for each in direct.cmdline] if direct else None,
            boot_devices=[libvirt.DomainBootDeviceArgs(devs=list(plan.boot))]
            if plan.boot
            else None,
            disks=[_disk_args(drive) for drive in drives],
            network_interfaces=[
                libvirt.DomainNetworkInterfaceArgs(
                    network_name=networks[nic.network].name, mac=nic.mac.upper()
                )
                for nic in plan.nics
            ],
            graphics=_graphics(console),
            video=libvirt.DomainVideoArgs(type=spec.video if spec.video != "none" else "vga"),
            consoles=[libvirt.DomainConsoleArgs(type="pty", target_port="0", target_type="serial")],
            autostart=spec.autostart,
            xml=libvirt.DomainXmlArgs(xslt=self._profile(name, spec, plan, drives, password)),
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

    def _profile(
        self,
        name: str,
        spec: MachineSpec,
        plan: MachinePlan,
        drives: Sequence[Drive],
        password: pulumi.Input[str],
    ) -> pulumi.Output[str]:
        uuid = self._uuid("domain", plan.domain_name, f"{name}-domain")
        console = spec.console

        def render(known: Sequence[Any]) -> str:
            return domain_xml.domain(
                DomainProfile(
                    uuid=known[0],
                    nic_models=tuple(nic.model or "virtio" for nic in plan.nics),
                    disks=tuple(drive.profile for drive in drives),
                    no_video=spec.video == "none",
                    no_screen=not _has_screen(spec),
                    console_log=CONSOLE_LOG.format(domain=plan.domain_name),
                    console_port=console.port,
                    console_password=known[1],
                )
            )

        return pulumi.Output.all(uuid, password).apply(render)

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
            opts=self.gate_options(parent, depends_on=[domain]),
            **reach,
        )
        self.queue.joined(gate)
        return gate


def fingerprint(*facts: object) -> str:
    """Return a short text that changes when any of ``facts`` does.

    A replaced domain keeps its UUID, so this is what tells its gate that it is another one.
    """
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def machine_facts(spec: MachineSpec, plan: MachinePlan) -> dict[str, Any]:
    """Return what a machine is made of, without what stands inside it and how it is waited for.

    Otherwise a guest more or less in a nested host would look like another host, and in preview
    nothing would be known of all that is in it.
    """
    left_out = {"networks", "guests", "containers", "hypervisors", "ready"}
    planned = {key: value for key, value in asdict(plan).items() if key not in left_out}
    return planned | {"spec": spec.model_dump(exclude=left_out)}


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


def _disk_args(drive: Drive) -> libvirt.DomainDiskArgs:
    if drive.profile.device == "cdrom":
        return libvirt.DomainDiskArgs(file=drive.volume.id)
    # A seed's id is its volume's key and a random number.
    key = drive.volume.id.apply(lambda each: each.partition(";")[0])
    return libvirt.DomainDiskArgs(volume_id=key, scsi=drive.profile.bus == "scsi" or None)


def _has_screen(spec: MachineSpec) -> bool:
    return spec.console.type != "none" and spec.video != "none"


def _graphics(console: ConsoleSpec) -> libvirt.DomainGraphicsArgs:
    return libvirt.DomainGraphicsArgs(
        # Without any the provider adds SPICE with no password; `domain_xml` takes it away again.
        type=console.type if console.type != "none" else "vnc",
        autoport=console.port is None,
        listen_type="address",
        listen_address=console.listen,
        websocket=console.websocket,
    )


def _format(image: Path) -> str:
    with image.open("rb") as handle:
        return "qcow2" if handle.read(4) == b"QFI\xfb" else "raw"
