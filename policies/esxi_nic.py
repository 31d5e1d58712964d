"""esxi-nic: ESXi has a NIC that it has a driver for.

The installer ends with "no network adapters found" otherwise. vmxnet3 works in every version. ESXi 7
dropped e1000; e1000e has a driver from 6.5 on. So those two pass where the version is stated by a
mark ``nestlab:version=6.7`` beside that of the kind; our components' are 7.0 or newer. pulumi-libvirt makes every NIC virtio, so on
libvirt it takes a stylesheet, and what comes out of it is judged.
"""

from __future__ import annotations

import machines
from domain_xml import Unjudgeable, domain, shown
from known import UNKNOWN, items, text
from pulumi_policy import (
    EnforcementLevel,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)

BEST = "vmxnet3"
E1000_DROPPED = 7.0
E1000E_FROM = 6.5
DEFAULTS = {machines.VSPHERE_VM: ("networkInterfaces", "adapterType", BEST)}
PROXMOX = ("networkDevices", "model", "virtio")
"""Where a provider's NICs are, where their model is, and what it is by default."""


def _has_a_driver(args: ResourceValidationArgs, report: ReportViolation) -> None:
    if machines.kind(args.resource_type, args.urn, args.props) != "esxi":
        return
    try:
        models = _models(args)
    except Unjudgeable as why:
        report(f"{args.name}: {why}", None)
        return
    if models is None:
        return
    if not models:
        report(f"{args.name}: it has no NIC; ESXi does not install without one", None)
    allowed = _allowed(machines.version(args.resource_type, args.urn, args.props))
    for number, model in enumerate(models):
        if model is not None and model.lower() not in allowed:
            report(
                f"{args.name}: NIC {number} is {model or 'of no model'!r}; "
                f"ESXi has drivers for {' and '.join(allowed)}",
                None,
            )


def _allowed(version: float | None) -> list[str]:
    allowed = [BEST]
    if version is not None and version < E1000_DROPPED:
        allowed.append("e1000")
    if version is not None and version >= E1000E_FROM:
        allowed.append("e1000e")
    return allowed


def _models(args: ResourceValidationArgs) -> list[str | None] | None:
    """Return the model of each NIC, None for one or all that are not known yet."""
    if args.resource_type == machines.DOMAIN:
        given = items(args.props, "networkInterfaces")
        made = domain(args.props)
        if not made.settled or given is None or UNKNOWN in given:
            return None
        nics = made.all("devices/interface")
        drawn = [nic.find("model") for nic in nics]
        return [shown(model.get("type")) if model is not None else "" for model in drawn]
    field, key, default = DEFAULTS.get(args.resource_type, PROXMOX)
    found = items(args.props, field)
    if found is None:
        return None
    models = [None if nic is UNKNOWN else text(nic, key) for nic in found]
    return [default if model == "" else model for model in models]


ESXI_NIC = ResourceValidationPolicy(
    name="esxi-nic",
    description="ESXi has a NIC that it has a driver for.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.HIGH,
    remediation_steps="Make every NIC vmxnet3: on libvirt by xml.xslt, on Proxmox VE by "
    "networkDevices[].model, on vSphere by networkInterfaces[].adapterType.",
    validate=_has_a_driver,
)
