"""Proxmox VE: installed from its ISO, and as a place; nested, or the outer host of a lab (R112).

Guests and containers are pulumi-proxmoxve's (its classic resources, the ones that upstream calls fit
for use). Gates do what that provider does not: look again, start, mend, and set what it has no word
for (the KVM switch of R131, a second CD).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pulumi
import pulumi_proxmoxve as px

from components.gates.api import MARK
from components.gates.probes import proxmox as probe
from components.gates.pve import PveGuestGate, PveNetworkGate, PveSlot, PveStorage, PveTemplate
from components.hypervisors import cluster, installed
from components.hypervisors.domain import fingerprint, machine_facts
from components.hypervisors.handle import (
    LOCAL,
    BootQueue,
    Doors,
    HypervisorMade,
    Inside,
    MachineMade,
    NetworkMade,
    Opened,
    asked,
    bound,
)
from components.hypervisors.installed import Recipe
from components.spec import files, sums
from components.spec.hosts.proxmox import ProxmoxHost
from components.spec.images import QCOW2_MARK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.hypervisors.handle import Build, Disc, Host, JsonMap, Lab
    from components.remote.pve import Api
    from components.spec import (
        ContainerSpec,
        GuestSpec,
        HypervisorSpec,
        MachinePlan,
        MachineSpec,
        NetworkPlan,
        PlacePlan,
    )
    from components.spec.kinds.proxmox import ProxmoxSpec

PORT = 8006
FILES = "local"
"""Storage of a node that holds ISOs and templates, as its installer makes it."""
DISKS = "local-lvm"
"""Storage of a node that holds disks, likewise (R124)."""
IMPORT = "import"
"""Content of a storage: disk images that guests are made from."""
ENDINGS = {"qcow2": ".qcow2", "raw": ".raw", "vmdk": ".vmdk"}
PACKED = {
    b"\x1f\x8b": ".tar.gz",
    b"\xfd7zXZ": ".tar.xz",
    b"BZh": ".tar.bz2",
    b"(\xb5/\xfd": ".tar.zst",
}
UPLINK = "vmbr0"
GUEST = "guest"
"""Kind of what is no hypervisor, whatever component made it."""
TOGETHER = 4
"""Most machines of one lab that start at the same time on a cluster, where the stack says nothing."""
GIB = 1 << 30
TEMPLATE_MIB = 64
"""A template is never started; its clones are given their own."""
VMIDS = range(1_000, 10_000)
"""Below 100 numbers are Proxmox' own; to 999 they are left to whoever makes guests by hand."""
CLUSTER_VMIDS = range(100_000, 1_000_000_000)
"""On a cluster, which labs share: so many that two of a thousand labs hardly ever meet."""
SCSI = {"virtio-scsi": "virtio-scsi-pci", "lsilogic": "lsi"}
VGA = {"virtio": "virtio", "vga": "std", "qxl": "qxl", "cirrus": "cirrus", "none": "none"}


@dataclass(frozen=True)
class _Template:
    """What guests are cloned from."""

    made: px.VmLegacy
    ready: PveTemplate
    gib: int
    """Size of its disk."""


@dataclass
class ProxmoxPlace:
    """One node, and what a lab puts onto it."""

    sticks: ClassVar[bool] = False
    lab: Lab
    plan: PlacePlan
    name: str
    """Prefix of the logical names of what belongs to the place itself."""
    owner: pulumi.Resource | None
    """Parent of what belongs to the place itself: its media."""
    provider: px.Provider
    api: pulumi.Input[Api]
    """How its gates reach it, secret."""
    target: pulumi.Input[JsonMap]
    """From where guests are asked whether they are up (`components.remote.shell.Target`)."""
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

    def options(self, parent: pulumi.Resource | None, **more: Any) -> pulumi.ResourceOptions:
        """Options of a resource of this node."""
        return bound(self.inside, parent, provider=self.provider, **more)

    def bound(self, parent: pulumi.Resource | None, **more: Any) -> pulumi.ResourceOptions:
        """See `Host.bound`."""
        return bound(self.inside, parent, **more)

    def doors(self, plan: MachinePlan, ports: Sequence[int]) -> Doors:
        """See `Host.doors`: on the outer host a nested hypervisor is on a network that is reached."""
        return Doors(plan.address or "", {port: port for port in ports}, [])

    def network(
        self,
        name: str,
        plan: NetworkPlan,
        reservations: Sequence[JsonMap],
        opts: pulumi.ResourceOptions,
    ) -> NetworkMade:
        """See `Hypervisor.network`: a Linux bridge; nobody hands out addresses on it."""
        del reservations
        own = plan.mode != "bridge"
        gate = PveNetworkGate(
            f"{name}-gate",
            api=self.api,
            node=self.node,
            bridge=plan.bridge or self.uplink,
            cidr=f"{plan.gateway}/{plan.prefix}" if own else "",
            owner=self._own("network", name) if own else "",
            opts=self.bound(opts.parent),
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
                api=self.api,
                node=self.node,
                storage=self.files,
                content=IMPORT,
                ours=self.ours,
                opts=self.bound(self.owner),
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
        """See `Hypervisor.guest`."""
        iso = self.medium(spec.iso, "iso").id if spec.iso else None
        gate = self._machine(
            name,
            spec,
            plan,
            networks,
            opts.parent,
            cd=iso,
            image=spec.image or "",
            boot=plan.boot,
            probe=asked(plan),
        )
        vmid = str(self._vmids[plan.name])
        return MachineMade(
            ready=gate,
            address=plan.address or "",
            console=self._screen("kvm", plan),
            enter=("qm", "terminal", vmid) if self.plan.path else (),
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
        probe: JsonMap,
        config: Mapping[str, pulumi.Input[str]] | None = None,
        **gate: Any,
    ) -> PveGuestGate:
        vmid, hardware = self._vmids[plan.name], plan.hardware
        owner = self._own("domain", name)
        slot = self._slot(name, "qemu", vmid, owner, parent)
        bus = plan.disk_bus or "scsi"
        disk = f"{bus}0"
        source = self._template(image, bus) if image else None
        devices = {"cdrom": "ide2", "hd": disk, "network": "net0"}
        uefi = spec.firmware == "uefi"
        extra: dict[str, pulumi.Input[str | int]] = dict(config or {})
        if not self.kvm:
            extra["kvm"] = 0
        made = px.VmLegacy(
            f"{name}-vm",
            node_name=self.node,
            vm_id=vmid,
            name=plan.domain_name,
            description=_described(owner),
            tags=[_tag(getattr(spec, "kind", GUEST))],
            # Where there is something that the provider can't set, its gate does, and starts it.
            started=not extra,
            on_boot=spec.autostart,
            stop_on_destroy=True,
            machine="q35" if spec.machine == "q35" else "pc",
            bios="ovmf" if uefi else "seabios",
            efi_disk=px.VmLegacyEfiDiskArgs(datastore_id=self.disks, type="4m") if uefi else None,
            cpu=px.VmLegacyCpuArgs(
                cores=plan.cores, type="host" if self.kvm else "qemu64", sockets=1
            ),
            memory=px.VmLegacyMemoryArgs(dedicated=plan.memory_mib),
            scsi_hardware=SCSI[hardware.scsi],
            clone=px.VmLegacyCloneArgs(vm_id=source.made.vm_id, full=not self.linked)
            if source
            else None,
            disks=self._disk(disk, plan.disk_gib or (source.gib if source else 0)),
            cdrom=px.VmLegacyCdromArgs(file_id=cd, interface="ide2") if cd is not None else None,
            network_devices=[
                px.VmLegacyNetworkDeviceArgs(
                    bridge=networks[nic.network].name,
                    mac_address=nic.mac.upper(),
                    model=nic.model,
                )
                for nic in plan.nics
            ],
            boot_orders=[devices[each] for each in boot],
            operating_system=px.VmLegacyOperatingSystemArgs(
                type="win11" if hardware.hyperv else "l26"
            ),
            vga=px.VmLegacyVgaArgs(type=VGA[spec.video]),
            serial_devices=[px.VmLegacySerialDeviceArgs(device="socket")],
            agent=px.VmLegacyAgentArgs(enabled=False),
            opts=self.options(
                parent,
                depends_on=[
                    slot,
                    *([source.ready] if source else []),
                    *self.queue.turn(),
                    *(networks[nic.network].ready for nic in plan.nics),
                ],
                delete_before_replace=True,
                # Or a refresh, which sees that it runs, would have it stopped by the next up.
                ignore_changes=["started"] if extra else None,
            ),
        )
        again = {"clone": source.made.vm_id, "linked": self.linked} if source else {}
        return self._gate(
            name,
            "qemu",
            spec,
            plan,
            made,
            parent,
            probe=probe,
            config=extra,
            again=again,
            **gate,
        )

    def _disk(
        self, interface: str, gib: int, image: pulumi.Input[str] | None = None
    ) -> list[px.VmLegacyDiskArgs]:
        disk = px.VmLegacyDiskArgs(
            interface=interface, datastore_id=self.disks, size=gib, import_from=image
        )
        return [disk] if gib else []

    def _template(self, image: str, bus: str) -> _Template:
        """Return the template that guests with a disk of ``image`` are cloned from: one for each bus."""
        key = f"{image}-{bus}"
        if key in self._templates:
            return self._templates[key]
        name = f"{self.name}-template-{key}"
        vmid = number(self.lab.plan.name, self.plan, f"template/{key}", set(self._vmids.values()))
        self._vmids[f"template/{key}"] = vmid
        medium, gib = self.medium(image, IMPORT), self._gib(image)
        owner = self._own("template", name)
        slot = self._slot(name, "qemu", vmid, owner, self.owner)
        made = px.VmLegacy(
            f"{name}-vm",
            node_name=self.node,
            vm_id=vmid,
            name=f"{self.lab.plan.name}-template-{key}",
            description=_described(owner),
            tags=[_tag(GUEST)],
            template=True,
            started=False,
            on_boot=False,
            cpu=px.VmLegacyCpuArgs(cores=1, type="qemu64", sockets=1),
            memory=px.VmLegacyMemoryArgs(dedicated=TEMPLATE_MIB),
            scsi_hardware=SCSI["virtio-scsi"],
            disks=self._disk(f"{bus}0", gib, medium.id),
            operating_system=px.VmLegacyOperatingSystemArgs(type="l26"),
            agent=px.VmLegacyAgentArgs(enabled=False),
            opts=self.options(self.owner, depends_on=[slot], delete_before_replace=True),
        )
        ready = PveTemplate(
            f"{name}-gate",
            api=self.api,
            node=self.node,
            vmid=vmid,
            image=medium.id,
            instance=fingerprint(key, gib),
            opts=self.bound(self.owner, depends_on=[made]),
        )
        self._templates[key] = _Template(made, ready, gib)
        return self._templates[key]

    def _gib(self, image: str) -> int:
        """Return how large a disk that is made from ``image`` is at least."""
        path = self.lab.medium(image)
        # In a preview it need not be there.
        return virtual_gib(path) if path.is_file() else 1

    def container(
        self,
        name: str,
        spec: ContainerSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> MachineMade:
        """See `Hypervisor.container`: LXC, from the lab's own template (R127)."""
        vmid, owner = self._vmids[plan.name], self._own("container", name)
        slot = self._slot(name, "lxc", vmid, owner, opts.parent)
        template = self.medium(spec.template, "vztmpl")
        nic = plan.nics[0] if plan.nics else None
        net = self.plan.networks[nic.network] if nic else None
        static = nic is not None and net is not None and nic.address and net.prefix
        ip = px.ContainerLegacyInitializationIpConfigArgs(
            ipv4=px.ContainerLegacyInitializationIpConfigIpv4Args(
                address=f"{nic.address}/{net.prefix}" if static and nic and net else "dhcp",
                gateway=net.gateway if static and net else None,
            )
        )
        made = px.ContainerLegacy(
            f"{name}-ct",
            node_name=self.node,
            vm_id=vmid,
            description=_described(owner),
            started=True,
            start_on_boot=spec.autostart,
            unprivileged=True,
            cpu=px.ContainerLegacyCpuArgs(cores=plan.cores),
            memory=px.ContainerLegacyMemoryArgs(dedicated=plan.memory_mib, swap=0),
            disk=px.ContainerLegacyDiskArgs(datastore_id=self.disks, size=4),
            operating_system=px.ContainerLegacyOperatingSystemArgs(
                template_file_id=template.id, type="unmanaged"
            ),
            network_interfaces=[
                px.ContainerLegacyNetworkInterfaceArgs(
                    name="eth0", bridge=networks[nic.network].name, mac_address=nic.mac.upper()
                )
            ]
            if nic
            else [],
            initialization=px.ContainerLegacyInitializationArgs(
                hostname=plan.domain_name, ip_configs=[ip] if nic else None
            ),
            opts=self.options(
                opts.parent,
                depends_on=[
                    slot,
                    *self.queue.turn(),
                    *([networks[nic.network].ready] if nic else []),
                ],
                delete_before_replace=True,
            ),
        )
        gate = self._gate(
            name,
            "lxc",
            spec,
            plan,
            made,
            opts.parent,
            probe={"kind": "none"},
            config={},
            again={"template": template.id},
        )
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
        """See `Host.hypervisor`."""
        discs = [self._disc(disc) for disc in build.discs]
        more = {
            f"ide{number}": disc.id.apply(lambda volume: f"{volume},media=cdrom")
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
            probe=build.probe,
            config=more,
            reach=build.reach,
            key_folder=build.key_folder,
        )
        screen = self._screen("kvm", plan)
        return Opened(gate, gate.reach, gate.answers, Inside(gate, gate), screen, "")

    def _disc(self, disc: Disc) -> px.FileLegacy:
        return self._file(f"disc-{disc.name}", disc.path, "iso", ".iso")

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
        return PveSlot(
            f"{name}-slot",
            api=self.api,
            node=self.node,
            kind=kind,
            vmid=vmid,
            owner=owner,
            opts=self.bound(parent),
        )

    def _gate(
        self,
        name: str,
        kind: str,
        spec: Any,
        plan: MachinePlan,
        made: pulumi.Resource,
        parent: pulumi.Resource | None,
        *,
        probe: JsonMap,
        config: Mapping[str, pulumi.Input[str | int]],
        **reach: Any,
    ) -> PveGuestGate:
        gate = PveGuestGate(
            f"{name}-gate",
            api=self.api,
            node=self.node,
            kind=kind,
            vmid=self._vmids[plan.name],
            instance=fingerprint(machine_facts(spec, plan)),
            probe=probe,
            target=self.target,
            deadline_s=plan.ready.deadline_s,
            config=config,
            opts=self.bound(parent, depends_on=[made]),
            **reach,
        )
        self.queue.joined(gate)
        return gate


def vmids(lab: str, place: PlacePlan) -> dict[str, int]:
    """Return the number of each machine of a node: by its name, so that it stays (see `addresses`).

    The order in which names give way is theirs, as it is for addresses.
    """
    found: dict[str, int] = {}
    for name in sorted(place.machines):
        found[name] = number(lab, place, name, set(found.values()))
    return found


def number(lab: str, place: PlacePlan, name: str, taken: set[int]) -> int:
    """Return the number for what is called ``name`` on a node, not one of ``taken``."""
    room = VMIDS if place.path else CLUSTER_VMIDS
    seed = f"{lab}/{'/'.join(place.path)}/{name}"
    offset = int.from_bytes(sha256(seed.encode()).digest()[:8]) % len(room)
    while room[offset] in taken:
        offset = (offset + 1) % len(room)
    return room[offset]


def virtual_gib(image: Path) -> int:
    """Return the size of the disk that a qcow2 or raw image is, GiB, rounded up."""
    with image.open("rb") as handle:
        head = handle.read(32)
    qcow2 = head.startswith(QCOW2_MARK)
    size = int.from_bytes(head[24:32]) if qcow2 else image.stat().st_size
    return max(1, -(-size // GIB))


def uploaded(path: Path, content: str) -> str:
    """Return the ending that a file is uploaded with, by what is in it.

    Proxmox VE refuses others, in whatever case, and takes it for what a disk image is: a
    ``noble-server-cloudimg-amd64.img`` is a qcow2 (PVE/Storage.pm, ``UPLOAD_IMPORT_EXT_RE_1``).
    """
    if content == "iso":
        return ".iso"
    if not files.there(path):  # in a preview
        return ".qcow2" if content == IMPORT else ".tar.xz"
    if content == IMPORT:
        return ENDINGS.get(files.glance(str(path)).form, ".raw")
    with files.opened(path) as stream:
        head = stream.read(8)
    return next((end for mark, end in PACKED.items() if head.startswith(mark)), ".tar")


def _described(owner: pulumi.Output[str]) -> pulumi.Output[str]:
    return owner.apply(lambda value: MARK.format(owner=value))


def _tag(kind: str) -> str:
    """Return what tells people and policies of which kind a machine is; known in preview too."""
    return f"nestlab-kind-{kind}"


def install(
    name: str,
    *,
    lab: Lab,
    host: Host,
    spec: ProxmoxSpec,
    plan: MachinePlan,
    networks: Mapping[str, NetworkMade],
    opts: pulumi.ResourceOptions,
) -> HypervisorMade:
    """Make a nested Proxmox VE on ``host``."""
    made = installed.install(
        name,
        Recipe(
            media="proxmox",
            user="root",
            api=PORT,
            disk="vda" if plan.disk_bus == "virtio" else "sda",
            options={"filesystem": spec.filesystem},
            probe={
                "kind": "proxmox",
                "commands": [{"argv": ["pveversion"], "holds": "pve-manager"}],
                "node": plan.name,
                "storages": [FILES, DISKS],
            },
        ),
        lab=lab,
        host=host,
        spec=spec,
        plan=plan,
        networks=networks,
        opts=opts,
    )
    opened = made.opened
    # Known only when the gate is open: a provider with a known address connects in preview too.
    known = opened.answers.apply(lambda _: made.url)
    provider = px.Provider(
        f"{name}-proxmox",
        endpoint=known.apply(lambda each: f"{each}/"),
        username=probe.USER,
        password=made.password,
        insecure=True,
        opts=host.bound(opts.parent),
    )
    api: pulumi.Output[Api] = pulumi.Output.all(known, made.password).apply(
        lambda each: {"url": each[0], "user": probe.USER, "password": each[1], "insecure": True}
    )
    place = ProxmoxPlace(
        lab=lab,
        plan=lab.plan.place(*plan.path),
        name=name,
        owner=opts.parent,
        provider=provider,
        api=api,
        target=opened.reach,
        node=plan.name,
        cores=plan.cores,
        kvm=spec.kvm,
        web=f"https://{plan.address}:{PORT}",
        ours=True,
        inside=opened.inside,
    )
    return opened.made(
        plan, place, user="root", login=made.password, url=f"https://{plan.address}:{PORT}"
    )


INSTALLER = install


def outer(
    lab: Lab, *, owner: pulumi.Resource, cores: int, password: pulumi.Output[str] | None
) -> ProxmoxPlace:
    """See `components.hypervisors.handle.Outer`: one node of a cluster, chosen by the lab's name."""
    del cores  # those of this machine
    host = lab.spec.host
    if not isinstance(host, ProxmoxHost) or password is None:
        raise TypeError("a Proxmox VE cluster is an outer host of kind proxmox, with a password")
    node, node_cores = cluster.node(lab, host, owner)
    token = "!" in host.user
    entry: JsonMap = (
        {"api_token": password.apply(lambda secret: f"{host.user}={secret}")}
        if token
        else {"username": host.user, "password": password}
    )
    provider = px.Provider(
        "host-proxmox",
        endpoint=f"{host.endpoint}/",
        insecure=host.insecure,
        opts=pulumi.ResourceOptions(parent=owner),
        **entry,
    )

    def known(secret: str) -> Api:
        return {
            "url": host.endpoint,
            "user": host.user,
            "password": secret,
            "insecure": host.insecure,
        }

    return ProxmoxPlace(
        lab=lab,
        plan=lab.plan.place(),
        name="host",
        owner=owner,
        provider=provider,
        api=pulumi.Output.secret(password.apply(known)),
        target=LOCAL,
        node=node,
        cores=min(node_cores, TOGETHER),
        files=host.files,
        disks=host.disks,
        uplink=host.uplink,
        linked=host.linked,
        web=host.endpoint,
    )
