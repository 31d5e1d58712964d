"""What is a machine, what is a hypervisor, and of which kind: for any program, not ours alone.

A machine is a hypervisor when it is marked as one, when its installation medium is one's, or when
one of our components made it. The mark is a word in a text that every provider has for people:

    nestlab:kind=esxi      libvirt description or metadata, Proxmox VE description, vSphere annotation
    nestlab-kind-esxi      Proxmox VE tag (which takes no colon)

``nestlab:kind=guest`` says that a machine is none, whatever it is installed from. What a hypervisor's
own commands make (`REMOTE`) is never one: no component makes hypervisors so.
"""

from __future__ import annotations

import re
from typing import Any

from known import UNKNOWN, items, text, value

DOMAIN = "libvirt:index/domain:Domain"
VSPHERE_VM = "vsphere:index/virtualMachine:VirtualMachine"
PROXMOX_VMS = frozenset(
    {
        "proxmoxve:index/vmLegacy:VmLegacy",
        "proxmoxve:VM/virtualMachine:VirtualMachine",  # until pulumi-proxmoxve 7
    }
)
MACHINES = PROXMOX_VMS | {DOMAIN, VSPHERE_VM}
COMPONENT = "nestlab:index:NestedHypervisorLab"


def gate(name: str) -> str:
    """Return the type of a dynamic resource of ours."""
    return f"pulumi-python:dynamic/nestlab:{name}"


REMOTE = gate("RemoteObject")
"""What a hypervisor's own commands make: networks, media, guests, containers."""
PROXMOX_CONTAINER = "proxmoxve:index/containerLegacy:ContainerLegacy"
PROXMOX_GATE = gate("PveGuestGate")
"""Sets what pulumi-proxmoxve has no word for, in Proxmox VE's own, as ``config``."""
OUR_VERSIONS = 7.0
"""The oldest ESXi that our components install."""
UNSAID = ""
"""Kind of a hypervisor of which nobody says what it is."""

_MARK = re.compile(r"nestlab:kind=([a-z0-9]+)")
_TAG = re.compile(r"nestlab-kind-([a-z0-9]+)")
_VERSION = re.compile(r"nestlab:version=(\d+(?:\.\d+)?)")
_TEXTS = {DOMAIN: ("description", "metadata"), VSPHERE_VM: ("annotation",)}
_MEDIA = (
    (re.compile(r"proxmox-ve[_-]", re.IGNORECASE), "proxmox"),
    (re.compile(r"vmware-vmvisor|esxi[-_.\d]", re.IGNORECASE), "esxi"),
    (re.compile(r"xcp-ng[-_]|xenserver", re.IGNORECASE), "xenserver"),
    (re.compile(r"hyper-?v[-_. ]?server", re.IGNORECASE), "hyperv"),
)
"""Names that makers give to their installation media."""


def words(resource_type: str, props: Any) -> str:
    """Return the texts of a machine that may hold marks, as far as they are known."""
    fields = _TEXTS.get(resource_type, ("description",))
    return "\n".join(text(props, field) or "" for field in fields)


def kind(resource_type: str, urn: str, props: Any) -> str | None:
    """Return the kind of the hypervisor that a resource is; None when it is none."""
    if resource_type not in MACHINES:
        return None
    marked = _marked(resource_type, props)
    if marked:
        return None if marked == "guest" else marked
    if resource_type == VSPHERE_VM:
        guest = text(props, "guestId") or ""
        if guest.startswith("vmkernel"):
            return "esxi"
        if guest == "windowsHyperVGuest":
            return "hyperv"
    for name in _media(resource_type, props):
        for pattern, of in _MEDIA:
            if pattern.search(name.rpartition("/")[2]):
                return of
    return UNSAID if ours(resource_type, urn) else None


def ours(resource_type: str, urn: str) -> bool:
    """Return whether one of our components made a resource for a hypervisor of ours."""
    return urn.split("::")[2].endswith(f"{COMPONENT}${resource_type}")


def version(resource_type: str, urn: str, props: Any) -> float | None:
    """Return the version that ``nestlab:version=6.7`` states; None when nothing does."""
    found = _VERSION.search(words(resource_type, props))
    if found:
        return float(found[1])
    return OUR_VERSIONS if ours(resource_type, urn) else None


def driven(resource_type: str, props: Any) -> str:
    """Return what a hypervisor's own commands make: guest, network, ...; empty for all others."""
    if resource_type != REMOTE:
        return ""
    return (text(props, "driver") or "").rpartition(".")[2]


def _marked(resource_type: str, props: Any) -> str:
    if found := _MARK.search(words(resource_type, props)):
        return found[1]
    if resource_type in PROXMOX_VMS:
        for tag in items(props, "tags") or ():
            if isinstance(tag, str) and (found := _TAG.fullmatch(tag)):
                return found[1]
    return ""


def _media(resource_type: str, props: Any) -> list[str]:
    """Return the names of a machine's CDs, as far as they are known."""
    if resource_type == DOMAIN:
        disks = [disk for disk in items(props, "disks") or () if disk is not UNKNOWN]
        given = [value(disk, key) for disk in disks for key in ("file", "url", "volumeId")]
    elif resource_type == VSPHERE_VM:
        given = [value(cd, "path") for cd in items(props, "cdroms") or () if cd is not UNKNOWN]
    else:
        given = [value(props, "cdrom", "fileId")]
    return [name for name in given if isinstance(name, str)]
