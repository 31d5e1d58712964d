"""What pulumi-libvirt can't say about a domain, network or pool, as XSLT over the XML it makes.

A pure module: from typed profiles to text. It must not touch what the provider manages itself
(names, sizes, boot order), or every `pulumi up` would show a change. The provider hard-wires virtio
NICs, IDE CD drives (which q35 lacks), no UUID and no password; here is where that is undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = """\
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:output omit-xml-declaration="yes" indent="yes"/>
<xsl:template match="@*|node()"><xsl:copy><xsl:apply-templates select="@*|node()"/></xsl:copy></xsl:template>
"""
TAIL = "</xsl:stylesheet>\n"
FOLDER_MODE = "0710"
"""Of a pool's folder."""
PRIVATE_VOLUME = (
    HEAD
    + '<xsl:template match="/volume/target/permissions/mode"><mode>0600</mode></xsl:template>\n'
    + TAIL
)
"""Stylesheet of a volume that its owner alone reads: root, and QEMU while libvirt lends it to a machine.
The provider itself writes 644 (terraform-provider-libvirt, volume_def.go)."""

DISK_NAMES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "ide": "hd", "usb": "sd"}
"""Device name by bus, libvirt's rule for ``target dev``."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ENLIGHTENMENTS = """\
<hyperv mode="custom"><relaxed state="on"/><vapic state="on"/>\
<spinlocks state="on" retries="8191"/><vpindex state="on"/><runtime state="on"/><synic state="on"/>\
<stimer state="on"><direct state="on"/></stimer><reset state="on"/><frequencies state="on"/>\
<tlbflush state="on"/><ipi state="on"/></hyperv>"""
"""What a nested Hyper-V needs, synthetic timers in direct mode above all (QEMU's manual, "Hyper-V
Enlightenments"); no evmcs, which is Intel's alone."""


@dataclass(frozen=True)
class DiskProfile:
    """One disk, in the order of the provider's ``disks``."""

    bus: str
    """virtio, scsi, sata, ide or usb."""
    device: str = "disk"
    """disk or cdrom."""
    readonly: bool = False


@dataclass(frozen=True)
class DomainProfile:
    """The part of a domain that goes through XSLT."""

    uuid: str
    nic_models: tuple[str, ...] = ()
    """Model of each NIC, in order: virtio, e1000, e1000e, vmxnet3, rtl8139."""
    disks: tuple[DiskProfile, ...] = ()
    no_video: bool = False
    no_screen: bool = False
    """No VNC or SPICE server."""
    console_log: str = ""
    """File that the serial console is also written to; empty for none."""
    console_port: int | None = None
    """TCP port of the screen; None lets libvirt choose."""
    console_password: str = ""
    """Password of the screen; a secret, so the sheet made with it is one."""
    cpu_model: str = ""
    """CPU model, libvirt's name, where the provider was told mode custom; empty in other modes."""
    cpu_without: tuple[str, ...] = ()
    """CPU features switched off, libvirt's names."""
    hyperv: bool = False
    """Hyper-V's enlightenments, and its clock."""
    hidden: bool = False
    """KVM's own signature is kept from the machine."""
    scsi: str = "virtio-scsi"
    """Model of the SCSI controller."""
    localtime: bool = False


def _insert(parent: str, xml: str) -> str:
    """Template that appends ``xml`` to the element ``parent`` (an XPath)."""
    return (
        f'<xsl:template match="{parent}"><xsl:copy>'
        f'<xsl:apply-templates select="@*|node()"/>{xml}</xsl:copy></xsl:template>\n'
    )


def identified(kind: str, uuid: str, extra: str = "", more: str = "") -> str:
    """Stylesheet that gives a ``kind`` ("domain", "network", "pool") its UUID, and elements ``more``."""
    return HEAD + _insert(f"/{kind}", f"<uuid>{uuid}</uuid>{more}") + extra + TAIL


def pool(uuid: str, group: str | None) -> str:
    """Stylesheet that gives a pool its UUID, and its folder to root and the ``group`` that QEMU runs in.

    QEMU goes into the folder to the files that libvirt gave it, and nobody else does; without a group,
    everybody may who knows a name. (libvirt's storage pool format, "target": permissions.)
    """
    if not group:
        return identified("pool", uuid)
    owner = f"<mode>{FOLDER_MODE}</mode><owner>0</owner><group>{escape(group)}</group>"
    return identified("pool", uuid, _insert("/pool/target", f"<permissions>{owner}</permissions>"))


def network(uuid: str, gateway: str, hosts: Sequence[str]) -> str:
    """Stylesheet that gives a network its UUID and, where its address is ``gateway``, reservations.

    ``hosts`` are elements of libvirt's network format. They hold for a network that is being made:
    later ones are changed in place, and the provider is told to ignore this stylesheet then.
    """
    if not hosts:
        return identified("network", uuid)
    served = f"/network/ip[@address='{gateway}']/dhcp"
    return identified("network", uuid, _insert(served, "".join(hosts)))


def domain(profile: DomainProfile) -> str:
    """Stylesheet that makes a domain what ``profile`` says."""
    parts = [
        *_nics(profile.nic_models),
        *_disks(profile.disks),
        *_usb(profile.disks),
        *_serial(profile.console_log),
        *_screen(profile),
        *_cpu(profile),
        *_features(profile),
    ]
    if profile.scsi != "virtio-scsi":
        at = "/domain/devices/controller[@type='scsi']/@model"
        model = _attribute("model", profile.scsi)
        parts.append(f'<xsl:template match="{at}">{model}</xsl:template>\n')
    return identified("domain", profile.uuid, "".join(parts), _clock(profile))


def _cpu(profile: DomainProfile) -> list[str]:
    if not profile.cpu_model and not profile.cpu_without:
        return []
    attributes = inside = ""
    if profile.cpu_model:
        # What QEMU can't emulate of a model is left out: real CPUs of that name had it.
        attributes = _attribute("match", "exact") + _attribute("check", "none")
        inside = f'<model fallback="forbid">{escape(profile.cpu_model)}</model>'
    for name in profile.cpu_without:
        inside += f'<feature policy="disable" name={quoteattr(name)}/>'
    return [
        (
            '<xsl:template match="/domain/cpu"><xsl:copy><xsl:apply-templates select="@*"/>'
            f'{attributes}<xsl:apply-templates select="node()"/>{inside}</xsl:copy></xsl:template>\n'
        )
    ]


def _features(profile: DomainProfile) -> list[str]:
    inside = ENLIGHTENMENTS if profile.hyperv else ""
    if profile.hidden:
        inside += '<kvm><hidden state="on"/></kvm>'
    return [_insert("/domain/features", inside)] if inside else []


def _clock(profile: DomainProfile) -> str:
    if not profile.hyperv and not profile.localtime:
        return ""
    offset = "localtime" if profile.localtime else "utc"
    timers = '<timer name="hpet" present="no"/>'
    if profile.hyperv:
        timers += '<timer name="hypervclock" present="yes"/>'
    return f'<clock offset="{offset}">{timers}</clock>'


def _nics(models: tuple[str, ...]) -> list[str]:
    return [
        f'<xsl:template match="/domain/devices/interface[{number}]/model/@type">'
        f"{_attribute('type', model)}</xsl:template>\n"
        for number, model in enumerate(models, 1)
        if model != "virtio"
    ]


def _disks(disks: tuple[DiskProfile, ...]) -> list[str]:
    """Rewrite bus and device of every disk; names count by prefix, which sata and scsi share."""
    used: dict[str, int] = {}
    templates = []
    for number, disk in enumerate(disks, 1):
        prefix = DISK_NAMES[disk.bus]
        letter = LETTERS[used.setdefault(prefix, 0)]
        used[prefix] += 1
        at = f"/domain/devices/disk[{number}]"
        target = f"<target dev={quoteattr(prefix + letter)} bus={quoteattr(disk.bus)}/>"
        templates += [
            f'<xsl:template match="{at}/target">{target}</xsl:template>\n',
            f'<xsl:template match="{at}/@device">{_attribute("device", disk.device)}</xsl:template>\n',
        ]
        if disk.readonly:
            templates.append(_insert(at, "<readonly/>"))
    return templates


def _usb(disks: tuple[DiskProfile, ...]) -> list[str]:
    # As QEMU's -usb makes them on q35, with which packer-maas installs ESXi 7.0 to 9.0. EHCI alone would
    # be put behind a bridge, the whole set is at its chipset's place.
    parts = ['<controller type="usb" index="0" model="ich9-ehci1"/>']
    parts += [
        f'<controller type="usb" index="0" model="ich9-uhci{number}"><master startport="{port}"/></controller>'
        for number, port in ((1, 0), (2, 2), (3, 4))
    ]
    used = any(disk.bus == "usb" for disk in disks)
    return [_insert("/domain/devices", "".join(parts))] if used else []


def _serial(log: str) -> list[str]:
    if not log:
        return []
    # In an attribute written out, XSLT takes braces for an expression.
    file = quoteattr(log.replace("{", "{{").replace("}", "}}"))
    return [_insert("/domain/devices/console", f'<log file={file} append="off"/>')]


def _screen(profile: DomainProfile) -> list[str]:
    at = "/domain/devices/graphics"
    video = "/domain/devices/video/model/@type"
    # Removing the element would not do: libvirt adds an adapter to a domain without one.
    blind = f'<xsl:template match="{video}">{_attribute("type", "none")}</xsl:template>\n'
    parts = [blind] if profile.no_video else []
    if profile.no_screen:
        return [*parts, f'<xsl:template match="{at}"/>\n']
    attributes = ""
    if profile.console_port is not None:
        attributes += _attribute("port", str(profile.console_port)) + _attribute("autoport", "no")
    if profile.console_password:
        attributes += _attribute("passwd", profile.console_password)
    if not attributes:
        return parts
    return [
        *parts,
        (
            f'<xsl:template match="{at}"><xsl:copy><xsl:apply-templates select="@*"/>{attributes}'
            '<xsl:apply-templates select="node()"/></xsl:copy></xsl:template>\n'
        ),
    ]


def _attribute(name: str, value: str) -> str:
    # Without xsl:text a value of blanks would be taken for indentation.
    return f"<xsl:attribute name={quoteattr(name)}><xsl:text>{escape(value)}</xsl:text></xsl:attribute>"
