"""nested-cpu: a nested hypervisor sees a CPU that can virtualize (R49, R52).

Without vmx or svm in its CPU a nested hypervisor installs, boots, and then refuses every guest. With
KVM that takes host-passthrough, or another model that is made to have the feature; under emulation
(type qemu) it takes maximum, which has svm. Xen under emulation is the exception: it can't start
with that CPU, and runs paravirtualized guests with a plainer one.
"""

from __future__ import annotations

import machines
from domain_xml import Made, Unjudgeable, domain
from inputs import note
from known import UNKNOWN, items, text, value
from pulumi_policy import (
    EnforcementLevel,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)

DOMAIN = machines.DOMAIN
MODES = {"kvm": "host-passthrough", "qemu": "maximum"}
FEATURES = {"vmx", "svm"}
PROXMOX_CPUS = {"host", "max"}


def _sees_a_cpu_that_virtualizes(args: ResourceValidationArgs, report: ReportViolation) -> None:
    kind = machines.kind(args.resource_type, args.urn, args.props)
    if kind is None:
        return
    if args.resource_type == DOMAIN:
        said = _libvirt(args, kind)
    elif args.resource_type == machines.VSPHERE_VM:
        said = _vsphere(args)
    else:
        said = _proxmox(args)
    if said:
        report(f"{args.name}: {said}", None)


def _libvirt(args: ResourceValidationArgs, kind: str) -> str:
    try:
        made = domain(args.props)
    except Unjudgeable as why:
        return str(why)
    return _words(made) or _model(made, kind)


def _words(made: Made) -> str:
    if "-cpu" in made.commandline():
        return "qemu:commandline gives -cpu, which decides over cpu.mode and is seen by nobody"
    return ""


def _model(made: Made, kind: str) -> str:
    accelerator, mode = made.get(".", "type"), made.get("cpu", "mode")
    if accelerator is None or mode is None:
        return ""
    accelerator = accelerator or "kvm"
    policies = {one.get("name"): one.get("policy", "require") for one in made.all("cpu/feature")}
    for name in sorted(FEATURES):
        if policies.get(name) in {"disable", "forbid"}:
            return f"the CPU's feature {name!r} is {policies[name]!r}; a hypervisor needs it"
    needed = MODES.get(accelerator, MODES["kvm"])
    required = any(policies.get(name) in {"require", "force"} for name in FEATURES)
    if mode == needed or (required and mode in {"host-model", "custom"}):
        return ""
    if kind == "xen" and accelerator == "qemu" and mode == "custom":
        return ""
    found = f"cpu.mode is {mode!r}" if mode else "cpu.mode is not set"
    return f"{found}; a hypervisor of type {accelerator!r} needs {needed!r}"


def _proxmox(args: ResourceValidationArgs) -> str:
    if "-cpu" in (text(args.props, "kvmArguments") or "").split():
        return "kvmArguments gives -cpu, which decides over cpu.type and is seen by nobody"
    model = text(args.props, "cpu", "type")
    flags = items(args.props, "cpu", "flags")
    if model is None or flags is None:
        return ""
    for name in sorted(FEATURES):
        if f"-{name}" in flags:
            return f"cpu.flags has '-{name}'; a hypervisor needs it"
    if model in PROXMOX_CPUS or any(f"+{name}" in flags for name in FEATURES):
        return ""
    found = f"cpu.type is {model!r}" if model else "cpu.type is not set"
    return f"{found}; a hypervisor needs 'host'"


def _vsphere(args: ResourceValidationArgs) -> str:
    enabled = value(args.props, "nestedHvEnabled")
    if enabled is UNKNOWN or enabled is True:
        return ""
    return "nestedHvEnabled is not true; a hypervisor needs hardware virtualization shown to it"


NESTED_CPU = ResourceValidationPolicy(
    name="nested-cpu",
    description="A nested hypervisor sees a CPU that can virtualize.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.HIGH,
    remediation_steps="libvirt: set cpu.mode to host-passthrough, or to maximum with type qemu. "
    "Proxmox VE: set cpu.type to host. vSphere: set nestedHvEnabled.",
    validate=[note, _sees_a_cpu_that_virtualizes],
)
