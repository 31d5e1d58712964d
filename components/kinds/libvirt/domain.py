"""A machine of libvirt in the provider's words.

Two things are workarounds for the provider (pulumi-libvirt 0.5.4): changes that it takes and silently
forgets have to replace the domain, and what it can't say goes through `domain_xml`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import pulumi
import pulumi_libvirt as libvirt

from components.gates.probes import Probe
from components.kinds.libvirt import domain_xml
from components.kinds.libvirt.domain_xml import DiskProfile, DomainProfile
from components.kinds.libvirt.ownership import CONSOLE_LOG
from components.place.contract import Awaited, asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.stackfile import (
        ConsoleSpec,
        MachinePlan,
        MachineSpec,
        NetworkPlan,
        PlacePlan,
    )
    from components.stackfile.plan import NicPlan

OVMF = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")
"""UEFI firmware and the template of its variables, as Debian's package ovmf has them."""
NVRAM = "/var/lib/libvirt/qemu/nvram/{domain}_VARS.fd"
FORGOTTEN = [
    "arch",
    "bootDevices",
    "disks",
    "emulator",
    "initrd",
    "kernel",
    "machine",
    "metadata",
    "networkInterfaces[*].bridge",
    "networkInterfaces[*].mac",
    "networkInterfaces[*].networkName",
    "video",
]
"""Inputs whose change the provider accepts without doing anything (0.8: not ForceNew, not in Update)."""


@dataclass(frozen=True)
class Drive:
    """A disk or CD of a machine: a volume, and how the machine sees it."""

    volume: libvirt.Volume
    profile: DiskProfile
    ready: pulumi.Resource | None = None
    """What it has to be before the machine gets it; None: no more than made."""


@dataclass(frozen=True)
class DirectBoot:
    """Kernel, initial RAM disk (paths on the host) and kernel arguments, instead of a boot loader."""

    kernel: pulumi.Input[str]
    initrd: pulumi.Input[str]
    cmdline: pulumi.Input[Sequence[Mapping[str, str]]]


def arguments(
    spec: MachineSpec,
    plan: MachinePlan,
    *,
    kvm: bool,
    nics: Sequence[libvirt.DomainNetworkInterfaceArgs],
    drives: Sequence[Drive],
    direct: DirectBoot | None,
    xslt: pulumi.Input[str],
) -> libvirt.DomainArgs:
    """Return what the provider is told of a machine.

    Without ``kvm`` it is emulated, with a CPU that can virtualize all the same. ``nics`` are `nic_args`.
    """
    uefi = spec.firmware == "uefi"
    nvram = libvirt.DomainNvramArgs(file=NVRAM.format(domain=plan.called), template=OVMF[1])
    return libvirt.DomainArgs(
        name=plan.called,
        description=described(spec),
        type="kvm" if kvm else "qemu",
        cpu=libvirt.DomainCpuArgs(mode=_cpu_mode(plan, kvm=kvm)),
        machine=spec.machine,
        memory=plan.memory_mib,
        vcpu=plan.cores,
        firmware=OVMF[0] if uefi else None,
        nvram=nvram if uefi else None,
        kernel=direct.kernel if direct else None,
        initrd=direct.initrd if direct else None,
        cmdlines=direct.cmdline if direct else None,
        boot_devices=[libvirt.DomainBootDeviceArgs(devs=list(plan.boot))] if plan.boot else None,
        disks=[_disk_args(drive) for drive in drives],
        network_interfaces=list(nics),
        graphics=_graphics(spec.console),
        video=libvirt.DomainVideoArgs(type=spec.video if spec.video != "none" else "vga"),
        consoles=[libvirt.DomainConsoleArgs(type="pty", target_port="0", target_type="serial")],
        autostart=spec.autostart,
        xml=libvirt.DomainXmlArgs(xslt=xslt),
    )


def in_order(drives: Sequence[Drive]) -> list[Drive]:
    """Return drives in the order in which libvirt has them: those of a bus stand together.

    So it inserts each (conf/domain_conf.c, virDomainDiskInsert), and the provider, which reads them back, takes another
    order for other disks, with which it would make the domain anew at each `pulumi up`.
    """
    buses = list(dict.fromkeys(drive.profile.bus for drive in drives))
    return sorted(drives, key=lambda drive: buses.index(drive.profile.bus))


def nic_args(
    nic: NicPlan, network: NetworkPlan, name: pulumi.Input[str]
) -> libvirt.DomainNetworkInterfaceArgs:
    """Return what the provider is told of a NIC on ``network``, which libvirt calls ``name``."""
    mac = nic.mac.upper()
    if network.mode == "macvtap" and network.uplink:
        return libvirt.DomainNetworkInterfaceArgs(macvtap=network.uplink.nic, mac=mac)
    if network.mode == "bridge":
        # Of a running domain libvirt names the bridge, and the provider, which reads that back, would make the
        # domain anew at each `pulumi up`. Not before the network is there.
        bridge = pulumi.Output.from_input(name).apply(lambda _: network.bridge)
        return libvirt.DomainNetworkInterfaceArgs(bridge=bridge, mac=mac)
    return libvirt.DomainNetworkInterfaceArgs(network_name=name, mac=mac)


def described(spec: MachineSpec) -> str | None:
    """Return what tells people, and policies, which kind of hypervisor a machine is, and what its CPU lacks.

    The stylesheet, which takes that from the CPU, is no more than secret to who reads a preview.
    """
    kind = getattr(spec, "kind", "")
    said = [f"nestlab:kind={kind}"] if kind else []
    said += ["without hardware virtualization (nested: false)"] if spec.nested is False else []
    return " ".join(said) or None


def _cpu_mode(plan: MachinePlan, *, kvm: bool) -> str:
    if kvm:
        return "host-passthrough"
    return "custom" if plan.hardware.cpu else "maximum"


def stylesheet(
    spec: MachineSpec,
    plan: MachinePlan,
    drives: Sequence[Drive],
    uuid: pulumi.Input[str],
    password: pulumi.Input[str],
    *,
    kvm: bool,
) -> pulumi.Output[str]:
    """Return the rest of a machine as XSLT; a secret when ``password`` is."""
    hardware = plan.hardware

    def render(known: Sequence[str]) -> str:
        return domain_xml.domain(
            DomainProfile(
                uuid=known[0],
                nic_models=tuple(nic.model or "virtio" for nic in plan.nics),
                disks=tuple(drive.profile for drive in drives),
                no_video=spec.video == "none",
                no_screen=not has_screen(spec),
                console_log=CONSOLE_LOG.format(domain=plan.called),
                console_port=spec.console.port,
                console_password=known[1],
                cpu_model="" if kvm else hardware.cpu,
                cpu_without=hardware.cpu_without,
                # QEMU's emulation has no part in either.
                hyperv=hardware.hyperv and kvm,
                hidden=hardware.hidden and kvm,
                scsi=hardware.scsi,
                localtime=hardware.localtime,
            )
        )

    return pulumi.Output.all(uuid, password).apply(render)


def _disk_args(drive: Drive) -> libvirt.DomainDiskArgs:
    if drive.profile.device == "cdrom":
        return libvirt.DomainDiskArgs(file=drive.volume.id)
    return libvirt.DomainDiskArgs(
        volume_id=drive.volume.id, scsi=drive.profile.bus == "scsi" or None
    )


def has_screen(spec: MachineSpec) -> bool:
    """Whether the machine has a screen that can be looked at from elsewhere."""
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


def awaited(plan: MachinePlan, place: PlacePlan) -> Awaited:
    """What `MachineGate` asks of a guest."""
    if plan.ready.probe != "lease":
        return asked(plan)
    nic = next(nic for nic in plan.nics if place.networks[nic.network].dhcp)
    network = place.networks[nic.network].called
    lease = Probe(kind="libvirt.lease", network=network, mac=nic.mac, address=nic.address or "")
    return Awaited(probe=lease)


def as_url(path: str) -> str:
    """Return ``path`` as the provider takes it, who reads a URL (volume_image.go): ``#`` ends one.

    What is usual in a path stays as it is: another text is another volume.
    """
    said = f"/{path.lstrip('/')}"
    return re.sub(r"[%?#\x00-\x1f\x7f]", lambda found: quote(found[0]), said)
