"""nested-cpu: a nested hypervisor sees a CPU that can virtualize (R49, R52).

Without vmx or svm in its CPU a nested hypervisor installs, boots, and then refuses every guest. With
KVM that takes host-passthrough, or another model that is made to have the feature; under emulation
(type qemu) it takes maximum, which has svm. Xen under emulation is the exception: it stops at boot
with that CPU, and its paravirtual guests need no more than the one model that it was seen to run with
(R96). On Proxmox VE what a gate of ours sets in the host's own words is judged too.
"""

from __future__ import annotations

import machines
from domain_xml import Made, Unjudgeable, domain
from inputs import note
from known import UNKNOWN, items, number, text, value
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
XEN_MODEL = "Nehalem"
"""Of the CPUs that QEMU emulates."""


def _sees_a_cpu_that_virtualizes(args: ResourceValidationArgs, report: ReportViolation) -> None:
    kind = machines.kind(args.resource_type, args.urn, args.props)
    if kind is None and not _is_gate(args):
        return
    if args.resource_type == machines.PROXMOX_GATE:
        said = _set_later(args)
    elif args.resource_type == DOMAIN:
        said = _libvirt(args, kind or "")
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
    if (kind, accelerator) == ("xen", "qemu"):
        return _xen(made, mode)
    policies = {one.get("name"): one.get("policy", "require") for one in made.all("cpu/feature")}
    for name in sorted(FEATURES):
        if policies.get(name) in {"disable", "forbid"}:
            return f"the CPU's feature {name!r} is {policies[name]!r}; a hypervisor needs it"
    needed = MODES.get(accelerator, MODES["kvm"])
    required = any(policies.get(name) in {"require", "force"} for name in FEATURES)
    if mode == needed or (required and mode in {"host-model", "custom"}):
        return ""
    found = f"cpu.mode is {mode!r}" if mode else "cpu.mode is not set"
    return f"{found}; a hypervisor of type {accelerator!r} needs {needed!r}"


def _xen(made: Made, mode: str) -> str:
    if mode != "custom":
        return (
            f"cpu.mode is {mode!r}; emulated, Xen needs 'custom' with the model {XEN_MODEL!r}, and "
            "stops at boot with more"
        )
    model = made.get("cpu/model")
    if model == XEN_MODEL or model is None or not made.settled:
        return ""
    return f"the CPU's model is {model!r}; emulated, Xen needs {XEN_MODEL!r}"


def _is_gate(args: ResourceValidationArgs) -> bool:
    # Of the guests inside, whose gates have this type too, it is none of our business.
    return args.resource_type == machines.PROXMOX_GATE and machines.ours(
        args.resource_type, args.urn
    )


def _set_later(args: ResourceValidationArgs) -> str:
    """Judge what is set after the provider has made the machine."""
    if "-cpu" in (text(args.props, "config", "args") or "").split():
        return "config.args gives -cpu, which decides over cpu.type and is seen by nobody"
    if number(args.props, "config", "kvm", default=1) == 0:
        return "config.kvm is 0: a hypervisor needs hardware virtualization"
    model = text(args.props, "config", "cpu")
    if model and model.split(",")[0].removeprefix("cputype=") not in PROXMOX_CPUS:
        return f"config.cpu is {model!r}; a hypervisor needs 'host'"
    return ""


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
    remediation_steps="libvirt: set cpu.mode to host-passthrough, or to maximum with type qemu "
    "(Xen: to custom, and by xml.xslt the model Nehalem). Proxmox VE: set cpu.type to host. vSphere: set nestedHvEnabled.",
    validate=[note, _sees_a_cpu_that_virtualizes],
)
