"""vSphere as the outer host of a lab: one ESXi host that a vCenter manages (R162 to R177).

Guests and their media are pulumi-vsphere's. Gates do what that provider does not: look again, start,
mend, networks that outlive a `refresh`, a second CD, the boot order. Left out: a nested ESXi behind a
vCenter, whose joining no test double takes part in; it is managed on its own (`esxi`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pulumi
import pulumi_vsphere as vs

from components.gates.api import MARK
from components.gates.vsphere import (
    VsphereGuestGate,
    VsphereNetworkGate,
    VsphereNode,
    VsphereSlot,
)
from components.hypervisors import cluster
from components.hypervisors.domain import fingerprint, machine_facts
from components.hypervisors.handle import (
    LOCAL,
    BootQueue,
    Doors,
    Inside,
    MachineMade,
    NetworkMade,
    Opened,
    asked,
)
from components.remote.vsphere_hardware import UNCHECKED
from components.spec import sums
from components.spec.hosts.vsphere import VsphereHost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.hypervisors.handle import Build, Disc, JsonMap, Lab
    from components.remote.vsphere import Api
    from components.spec import (
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
FOLDER = "nestlab"
"""Of the datastore, for the media of all labs."""
STEP_MIB = 4
"""vSphere gives memory in steps of so much."""
SCSI = {"virtio-scsi": "pvscsi", "lsilogic": "lsilogic"}
GUEST = "otherGuest64"
SYSTEMS = {"esxi": "vmkernel65Guest", "hyperv": "windows9Server64Guest"}
"""What vSphere is told that a hypervisor is, by kind."""
SYSTEM = "otherLinux64Guest"
STATIC = range(0x40)
"""Fourth byte of the addresses behind 00:50:56 that vSphere lets people give."""
DIGITS = 8


@dataclass
class VspherePlace:
    """One host, and what a lab puts onto it."""

    sticks: ClassVar[bool] = False
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
    target: pulumi.Input[JsonMap]
    """From where guests are asked whether they are up (`components.remote.shell.Target`)."""
    cores: int
    """Cores that machines share while they boot."""
    queue: BootQueue = field(init=False)
    _files: dict[str, vs.File] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = BootQueue(self.lab.spec.boot.concurrency or self.cores)

    def options(self, parent: pulumi.Resource | None, **more: Any) -> pulumi.ResourceOptions:
        """Options of a resource of this host: on another host it is another one."""
        return pulumi.ResourceOptions(
            parent=parent, provider=self.provider, replace_with=[self.node], **more
        )

    def bound(self, parent: pulumi.Resource | None, **more: Any) -> pulumi.ResourceOptions:
        """See `Host.bound`."""
        return pulumi.ResourceOptions(parent=parent, **more)

    def doors(self, plan: MachinePlan, ports: Sequence[int]) -> Doors:
        """See `Host.doors`: a nested hypervisor is on a network that is reached."""
        return Doors(plan.address or "", {port: port for port in ports}, [])

    def network(
        self,
        name: str,
        plan: NetworkPlan,
        reservations: Sequence[JsonMap],
        opts: pulumi.ResourceOptions,
    ) -> NetworkMade:
        """See `Hypervisor.network`: a port group; nobody hands out addresses on it.

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
        gate = VsphereNetworkGate(
            f"{name}-gate",
            api=self.api,
            datacenter=self.host.datacenter,
            host=self.node.host,
            group=mark.apply(lambda each: f"{plan.libvirt_name}-{each}"),
            switch=mark.apply(lambda each: f"nl{each}") if own else switch,
            own=own,
            spoofing=any(
                machine.group == "hypervisors"
                and any(nic.network == plan.name for nic in machine.nics)
                for machine in self.plan.machines.values()
            ),
            opts=self.bound(opts.parent),
        )
        return NetworkMade(name=gate.network, ready=gate)

    def _file(self, key: str, path: pulumi.Input[str]) -> vs.File:
        """Return a medium on the datastore, uploaded once: another content has another name.

        The provider would not notice that a file has another content.
        """
        if key not in self._files:
            local = pulumi.Output.from_input(path)
            self._files[key] = vs.File(
                f"host-{key}",
                datacenter=self.host.datacenter,
                datastore=self.host.datastore,
                source_file=local,
                destination_file=pulumi.Output.all(local, self.on).apply(
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
        """See `Hypervisor.guest`."""
        _no_image(name, spec.image or "")
        cds = []
        if spec.iso:
            cds.append(self._file(f"medium-{spec.iso}", str(self.lab.medium(spec.iso))))
        _, gate = self._machine(
            name,
            spec,
            plan,
            networks,
            opts.parent,
            cds=cds,
            boot=plan.boot,
            probe=asked(plan),
        )
        return MachineMade(ready=gate, address=plan.address or "", console=self._screen())

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
        """See `Hypervisor.container`.

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
        """See `Host.hypervisor`."""
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
            probe=build.probe,
            kind=spec.kind,
            reach=build.reach,
            key_folder=build.key_folder,
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
        probe: JsonMap,
        kind: str = "",
        **reach: Any,
    ) -> tuple[vs.VirtualMachine, VsphereGuestGate]:
        if not plan.nics:
            raise ValueError(f"{name}: the vSphere provider makes no machine without a NIC")
        owner = self._own("domain", name)
        memory_mib = -(-plan.memory_mib // STEP_MIB) * STEP_MIB
        slot = VsphereSlot(
            f"{name}-slot",
            api=self.api,
            server=self.host.server,
            datacenter=self.host.datacenter,
            called=plan.domain_name,
            owner=owner,
            opts=self.bound(parent),
        )
        made = vs.VirtualMachine(
            f"{name}-vm",
            name=plan.domain_name,
            annotation=owner.apply(
                lambda value: f"{MARK.format(owner=value)} nestlab:kind={kind or 'guest'}"
            ),
            resource_pool_id=self.node.pool,
            host_system_id=self.node.host,
            datastore_id=self.node.store,
            guest_id=SYSTEMS.get(kind, SYSTEM) if kind else GUEST,
            num_cpus=plan.cores,
            num_cores_per_socket=plan.cores,
            memory=memory_mib,
            nested_hv_enabled=bool(kind),
            firmware="efi" if spec.firmware == "uefi" else "bios",
            scsi_type=SCSI[plan.hardware.scsi],
            sata_controller_count=1 if plan.disk_bus == "sata" else None,
            # The provider makes no machine without a disk.
            disks=[
                vs.VirtualMachineDiskArgs(
                    label="disk0",
                    size=max(1, plan.disk_gib),
                    thin_provisioned=True,
                    controller_type=plan.disk_bus,
                )
            ],
            # Its gate puts further ones in: the provider knows one drive.
            cdroms=[
                vs.VirtualMachineCdromArgs(datastore_id=self.node.store, path=cd.destination_file)
                for cd in cds[:1]
            ],
            network_interfaces=[
                vs.VirtualMachineNetworkInterfaceArgs(
                    network_id=_id_of(networks[nic.network]),
                    adapter_type=nic.model,
                    use_static_mac=True,
                    mac_address=nic.mac,
                )
                for nic in plan.nics
            ],
            extra_config={
                f"ethernet{number}{UNCHECKED}": "FALSE"
                for number, nic in enumerate(plan.nics)
                if not _is_vmwares(nic.mac)
            },
            wait_for_guest_ip_timeout=0,
            wait_for_guest_net_timeout=0,
            shutdown_wait_timeout=1,
            force_power_off=True,
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
        gate = VsphereGuestGate(
            f"{name}-gate",
            api=self.api,
            datacenter=self.host.datacenter,
            node=self.node,
            uuid=made.id,
            called=plan.domain_name,
            layer=plan.layer,
            instance=fingerprint(machine_facts(spec, plan)),
            memory_mib=memory_mib,
            cores=plan.cores,
            nics=[
                {
                    "mac": nic.mac,
                    "model": nic.model or "vmxnet3",
                    "network": networks[nic.network].name,
                }
                for nic in plan.nics
            ],
            cds=[cd.destination_file for cd in cds],
            boot=boot,
            probe=probe,
            target=self.target,
            deadline_s=plan.ready.deadline_s,
            opts=self.bound(parent, depends_on=[made]),
            **reach,
        )
        self.queue.joined(gate)
        return made, gate

    def _own(self, kind: str, name: str) -> pulumi.Output[str]:
        return self.lab.identity.uuid(kind, name)


def _digest(path: str, on: str) -> str:
    return fingerprint(sums.sample(Path(path)), on)[:DIGITS]


def _id_of(network: NetworkMade) -> pulumi.Output[str]:
    gate = network.ready
    if not isinstance(gate, VsphereNetworkGate):
        raise TypeError("a machine on vSphere is on a network of the same place")
    return gate.network_id


def _no_image(name: str, image: str) -> None:
    if image:
        raise ValueError(f"{name}: vSphere makes no disks from images ({image})")


def _is_vmwares(mac: str) -> bool:
    return mac.startswith("00:50:56:") and int(mac[9:11], 16) in STATIC


def outer(
    lab: Lab, *, owner: pulumi.Resource, cores: int, password: pulumi.Output[str] | None
) -> VspherePlace:
    """See `components.hypervisors.handle.Outer`: one host of a vCenter, chosen by the lab's name."""
    del cores  # those of this machine
    host = lab.spec.host
    if not isinstance(host, VsphereHost) or password is None:
        raise TypeError("a vCenter is an outer host of kind vsphere, with a password")
    name, node_cores = cluster.node(lab, host, owner)

    def known(secret: str) -> Api:
        return {
            "server": host.server,
            "user": host.user,
            "password": secret,
            "insecure": host.insecure,
        }

    api: pulumi.Output[Api] = pulumi.Output.secret(password.apply(known))
    node = VsphereNode(
        "host-node",
        api=api,
        server=host.server,
        datacenter=host.datacenter,
        node=name,
        datastore=host.datastore,
        opts=pulumi.ResourceOptions(parent=owner),
    )
    provider = vs.Provider(
        "host-vsphere",
        vsphere_server=node.endpoint,
        user=host.user,
        password=password,
        allow_unverified_ssl=host.insecure,
        opts=pulumi.ResourceOptions(parent=owner),
    )
    return VspherePlace(
        lab=lab,
        plan=lab.plan.place(),
        owner=owner,
        host=host,
        provider=provider,
        api=api,
        node=node,
        on=name,
        target=LOCAL,
        cores=min(node_cores, TOGETHER),
    )
