"""media: what comes from the network is what its maker published.

A file fetched by HTTP without a checksum is whatever the server, or somebody between, sends that
day. pulumi-libvirt can't check one at all, so there media are fetched first and given as local
files. The same for the installers that our components make discs of, and for what they put into a
hypervisor by its own commands. Where ``sources`` are configured, nothing comes from anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import machines
from domain_xml import HIDDEN, Unjudgeable, domain
from known import items, text, value
from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FETCHED = {"http", "https"}
LOCAL = {"", "file"}
STORAGE = {"rbd", "iscsi", "nbd", "ssh", "gluster", "sheepdog", "vxhs", "nfs"}
"""Protocols of disks that lie on a storage system, which is not a download."""


def _is_what_was_published(args: ResourceValidationArgs, report: ReportViolation) -> None:
    judge = JUDGES.get(args.resource_type)
    if judge is None:
        return
    allowed = [str(each) for each in items(args.get_config(), "sources") or ()]
    for source, checked in judge(args):
        if said := _wrong(source, checked=checked, allowed=allowed):
            report(f"{args.name}: {said}", None)


def _wrong(source: str, *, checked: bool, allowed: list[str]) -> str:
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    if scheme in LOCAL:
        return ""
    shown = source.partition("?")[0]
    if "@" in shown:
        shown = f"{scheme}://...@{shown.rpartition('@')[2]}"
    if scheme not in FETCHED:
        return f"{shown} comes by {scheme!r}, of which no checksum is known"
    if allowed and not source.startswith(tuple(allowed)):
        return f"{shown} is none of the sources that the stack allows"
    return "" if checked else f"{shown} comes without a checksum"


def _volume(args: ResourceValidationArgs) -> list[tuple[str, bool]]:
    source = text(args.props, "source")
    return [(source, False)] if source else []


def _domain(args: ResourceValidationArgs) -> list[tuple[str, bool]]:
    try:
        made = domain(args.props)
    except Unjudgeable:
        # `console-exposure` says so, of every domain.
        return []
    found = []
    for source in made.all("devices/disk/source[@protocol]"):
        protocol = source.get("protocol", "")
        if protocol not in STORAGE:
            host = source.find("host")
            at = host.get("name", "") if host is not None else ""
            found.append((f"{protocol}://{at}{source.get('name', '')}", False))
    return [pair for pair in found if HIDDEN not in pair[0]]


def _download(args: ResourceValidationArgs) -> list[tuple[str, bool]]:
    source = text(args.props, "url")
    given = [text(args.props, key) for key in ("checksum", "checksumAlgorithm")]
    checked = all(one is None or one for one in given)
    return [(source, checked)] if source else []


def _upload(args: ResourceValidationArgs) -> list[tuple[str, bool]]:
    source = text(args.props, "sourceFile", "path")
    checksum = text(args.props, "sourceFile", "checksum")
    return [(source, checksum is None or bool(checksum))] if source else []


def _oci(args: ResourceValidationArgs) -> list[tuple[str, bool]]:
    reference = text(args.props, "reference")
    if not reference:
        return []
    return [(f"https://{reference}", "@sha256:" in reference)]


def _vsphere_ovf(args: ResourceValidationArgs) -> list[tuple[str, bool]]:
    source = text(args.props, "ovfDeploy", "remoteOvfUrl")
    return [(source, False)] if source else []


def _vsphere_item(args: ResourceValidationArgs) -> list[tuple[str, bool]]:
    source = text(args.props, "fileUrl")
    return [(source, False)] if source else []


def _vsphere_file(args: ResourceValidationArgs) -> list[tuple[str, bool]]:
    source = text(args.props, "sourceFile")
    return [(source, False)] if source else []


def _driven(args: ResourceValidationArgs) -> list[tuple[str, bool]]:
    checksum = text(args.props, "wanted", "sha256")
    # A guest's own two lie in its hypervisor, where nobody compares anything.
    checked = {"archive": checksum, "path": checksum, "iso": "", "image": ""}
    given = {key: text(args.props, "wanted", key) for key in checked}
    return [
        (source, checked[key] is None or bool(checked[key]))
        for key, source in given.items()
        if source
    ]


def _discs(args: ResourceValidationArgs) -> list[tuple[str, bool]]:
    tools = value(args.props, "tools")
    names = list(tools) if isinstance(tools, Mapping) else []
    given = [text(args.props, "iso"), *(text(args.props, "tools", name) for name in names)]
    return [(source, False) for source in given if source]


JUDGES: dict[str, Callable[[ResourceValidationArgs], list[tuple[str, bool]]]] = {
    "libvirt:index/volume:Volume": _volume,
    machines.DOMAIN: _domain,
    machines.VSPHERE_VM: _vsphere_ovf,
    "proxmoxve:download/file:File": _download,
    "proxmoxve:download/fileLegacy:FileLegacy": _download,
    "proxmoxve:index/fileLegacy:FileLegacy": _upload,
    "proxmoxve:oci/image:Image": _oci,
    "proxmoxve:oci/imageLegacy:ImageLegacy": _oci,
    "vsphere:index/contentLibraryItem:ContentLibraryItem": _vsphere_item,
    "vsphere:index/file:File": _vsphere_file,
    machines.REMOTE: _driven,
    machines.gate("InstallMedium"): _discs,
}
"""What each type fetches: address, and whether it is checked against a checksum."""

MEDIA = ResourceValidationPolicy(
    name="media",
    description="What comes from the network is checked against a checksum.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.HIGH,
    config_schema=PolicyConfigSchema(
        properties={
            "sources": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Beginnings of addresses that media may come from; default: any",
            }
        }
    ),
    remediation_steps="libvirt: fetch the file, compare its checksum, give its path. Proxmox VE: set "
    "checksum and checksumAlgorithm.",
    validate=_is_what_was_published,
)
