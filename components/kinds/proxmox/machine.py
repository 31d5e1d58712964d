"""Machines and containers of Proxmox VE in the provider's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi_proxmoxve as px

from components.gates.api import MARK

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

    from components.place.contract import NetworkMade
    from components.stackfile import MachinePlan, MachineSpec, NetworkPlan, NicPlan

SCSI = {"virtio-scsi": "virtio-scsi-pci", "lsilogic": "lsi"}
CPUS = {
    (True, True): "host",
    (True, False): "x86-64-v2-AES",
    (False, True): "qemu64",
    (False, False): "kvm64",
}
"""CPU types by whether they run on KVM, and whether they show hardware virtualization: emulated, qemu64 has
svm (QEMU, target/i386/cpu.c). Proxmox VE takes no flag for it before 9.1."""
AGENT_TIMEOUT = "5s"
VGA = {"virtio": "virtio", "vga": "std", "qxl": "qxl", "cirrus": "cirrus", "none": "none"}


def described(owner: pulumi.Output[str]) -> pulumi.Output[str]:
    """Return the description of what is ``owner``'s."""
    return owner.apply(lambda value: MARK.format(owner=value))


def tag_of(kind: str) -> str:
    """Return what tells people and policies of which kind a machine is; known in preview too."""
    return f"nestlab-kind-{kind}"


def hardware(spec: MachineSpec, plan: MachinePlan, *, disks: str, kvm: bool) -> dict[str, Any]:
    """Return what a machine is, without its drives and cards, as arguments of ``VmLegacy``."""
    uefi = spec.firmware == "uefi"
    return {
        "machine": "q35" if spec.machine == "q35" else "pc",
        "bios": "ovmf" if uefi else "seabios",
        "efi_disk": px.VmLegacyEfiDiskArgs(datastore_id=disks, type="4m") if uefi else None,
        "cpu": px.VmLegacyCpuArgs(
            cores=plan.cores, type=CPUS[kvm, spec.nested is not False], sockets=1
        ),
        "memory": px.VmLegacyMemoryArgs(dedicated=plan.memory_mib),
        "scsi_hardware": SCSI[plan.hardware.scsi],
        "operating_system": px.VmLegacyOperatingSystemArgs(
            type="win11" if plan.hardware.hyperv else "l26"
        ),
        "vga": px.VmLegacyVgaArgs(type=VGA[spec.video]),
        "serial_devices": [px.VmLegacySerialDeviceArgs(device="socket")],
        "agent": agent(spec),
    }


def agent(spec: MachineSpec) -> px.VmLegacyAgentArgs:
    """Return whether the node speaks to the machine's agent.

    The provider asks that for its addresses, and waits as long for one that is not installed (15 minutes by itself).
    """
    if not getattr(spec, "agent", False):
        return px.VmLegacyAgentArgs(enabled=False)
    return px.VmLegacyAgentArgs(enabled=True, timeout=AGENT_TIMEOUT)


def drive(
    storage: str, interface: str, gib: int, image: pulumi.Input[str] | None = None
) -> list[px.VmLegacyDiskArgs]:
    """Return a machine's disk, if it has one: empty, or with what is on ``image``."""
    disk = px.VmLegacyDiskArgs(
        interface=interface, datastore_id=storage, size=gib, import_from=image
    )
    return [disk] if gib else []


def devices(
    plan: MachinePlan, networks: Mapping[str, NetworkMade]
) -> list[px.VmLegacyNetworkDeviceArgs]:
    """Return a machine's network cards."""
    return [
        px.VmLegacyNetworkDeviceArgs(
            bridge=networks[nic.network].name, mac_address=nic.mac.upper(), model=nic.model
        )
        for nic in plan.nics
    ]


def interfaces(
    nic: NicPlan | None, networks: Mapping[str, NetworkMade]
) -> list[px.ContainerLegacyNetworkInterfaceArgs]:
    """Return a container's network card, if it has one."""
    if nic is None:
        return []
    return [
        px.ContainerLegacyNetworkInterfaceArgs(
            name="eth0", bridge=networks[nic.network].name, mac_address=nic.mac.upper()
        )
    ]


def address(nic: NicPlan, net: NetworkPlan) -> px.ContainerLegacyInitializationIpConfigArgs:
    """Return the address that a container gives itself: the planned one, else what DHCP says."""
    static = nic.address and net.prefix
    return px.ContainerLegacyInitializationIpConfigArgs(
        ipv4=px.ContainerLegacyInitializationIpConfigIpv4Args(
            address=f"{nic.address}/{net.prefix}" if static else "dhcp",
            gateway=net.gateway if static else None,
        )
    )
