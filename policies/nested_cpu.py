"""nested-cpu: a nested hypervisor sees a CPU that can virtualize (R49, R52).

Without vmx or svm in its CPU a nested hypervisor installs, boots, and then refuses every guest. With
KVM that takes host-passthrough, or another model that is made to have the feature; under emulation
(type qemu) it takes maximum, which has svm. Xen under emulation is the exception: it stops at boot
with that CPU, and its paravirtual guests need no more than the one model that it was seen to run with
(R96). On Proxmox VE what a gate of ours sets in the host's own words is judged too.

A stack may ask for one without, to show the difference (R49): in our stack file by ``nested: false``, in others by
naming it in ``nestlab:unnested``, or in this policy's configuration in ``unnested``. That holds for kinds whose
guests can do without, and is no way round: the CPU has to be the one that others have, with both features off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import machines
import stated
from domain_xml import Made, Unjudgeable, domain
from inputs import note
from known import UNKNOWN, items, number, text, value
from limits import LIMITS
from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

DOMAIN = machines.DOMAIN
MODES = {"kvm": "host-passthrough", "qemu": "maximum"}
FEATURES = {"vmx", "svm"}
PROXMOX_CPUS = {"host", "max"}
SPARING = {kind for kind, needs in LIMITS.items() if needs.spares}
XEN_MODEL = "Nehalem"
"""Of the CPUs that QEMU emulates."""


def _sees_a_cpu_that_virtualizes(args: ResourceValidationArgs, report: ReportViolation) -> None:
    kind = machines.kind(args.resource_type, args.urn, args.props)
    if kind is None and not _is_gate(args):
        return
    without = kind in SPARING and _asked_without(args)
    if args.resource_type == machines.PROXMOX_GATE:
        said = _set_later(args)
    elif args.resource_type == DOMAIN:
        said = _libvirt(args, kind or "", without=without)
    elif args.resource_type == machines.VSPHERE_VM:
        said = _vsphere(args, without=without)
    else:
        said = _proxmox(args, without=without)
    if said:
        report(f"{args.name}: {said}", None)


def _asked_without(args: ResourceValidationArgs) -> bool:
    """Whether the stack says that the machine is shown no hardware virtualization."""
    logical = args.name.removesuffix("-domain").removesuffix("-vm")
    named = stated.names(args.get_config(), "unnested", args.urn)
    ours = machines.ours(args.resource_type, args.urn) and logical in stated.unnested(args.urn)
    return ours or args.name in named or logical in named


def _libvirt(args: ResourceValidationArgs, kind: str, *, without: bool) -> str:
    try:
        made = domain(args.props)
    except Unjudgeable as why:
        return str(why)
    return _words(made) or _model(made, kind, without=without)


def _words(made: Made) -> str:
    if "-cpu" in made.commandline():
        return "qemu:commandline gives -cpu, which decides over cpu.mode and is seen by nobody"
    return ""


def _model(made: Made, kind: str, *, without: bool) -> str:
    accelerator, mode = made.get(".", "type"), made.get("cpu", "mode")
    if accelerator is None or mode is None:
        return ""
    accelerator = accelerator or "kvm"
    if (kind, accelerator) == ("xen", "qemu"):
        return _xen(made, mode)
    policies = {one.get("name"): one.get("policy", "require") for one in made.all("cpu/feature")}
    if without:
        return _hidden(made, MODES.get(accelerator, MODES["kvm"]), policies)
    for name in sorted(FEATURES):
        if policies.get(name) in {"disable", "forbid"}:
            return f"the CPU's feature {name!r} is {policies[name]!r}; a hypervisor needs it"
    needed = MODES.get(accelerator, MODES["kvm"])
    required = any(policies.get(name) in {"require", "force"} for name in FEATURES)
    if mode == needed or (required and mode in {"host-model", "custom"}):
        return ""
    found = f"cpu.mode is {mode!r}" if mode else "cpu.mode is not set"
    return f"{found}; a hypervisor of type {accelerator!r} needs {needed!r}"


def _hidden(made: Made, needed: str, policies: Mapping[str | None, str]) -> str:
    """Judge the CPU of one that the stack shows no hardware virtualization."""
    mode = made.get("cpu", "mode")
    if mode != needed:
        return f"cpu.mode is {mode!r}; shown no hardware virtualization, it has {needed!r} all the same"
    left = [name for name in sorted(FEATURES) if policies.get(name) not in {"disable", "forbid"}]
    if not left or not made.settled:
        return ""
    return f"the stack shows it no hardware virtualization, and the CPU's feature {left[0]!r} is not disabled"


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


def _proxmox(args: ResourceValidationArgs, *, without: bool) -> str:
    if "-cpu" in (text(args.props, "kvmArguments") or "").split():
        return "kvmArguments gives -cpu, which decides over cpu.type and is seen by nobody"
    model = text(args.props, "cpu", "type")
    flags = items(args.props, "cpu", "flags")
    if model is None or flags is None:
        return ""
    if without:
        shows = model in PROXMOX_CPUS or any(f"+{name}" in flags for name in FEATURES)
        shown = "the stack shows it no hardware virtualization, and"
        return (
            f"{shown} cpu.type is {model!r}, flags {', '.join(map(str, flags))!r}" if shows else ""
        )
    for name in sorted(FEATURES):
        if f"-{name}" in flags:
            return f"cpu.flags has '-{name}'; a hypervisor needs it"
    if model in PROXMOX_CPUS or any(f"+{name}" in flags for name in FEATURES):
        return ""
    found = f"cpu.type is {model!r}" if model else "cpu.type is not set"
    return f"{found}; a hypervisor needs 'host'"


def _vsphere(args: ResourceValidationArgs, *, without: bool) -> str:
    enabled = value(args.props, "nestedHvEnabled")
    if without:
        shown = "the stack shows it no hardware virtualization, and nestedHvEnabled is true"
        return shown if enabled is True else ""
    if enabled is UNKNOWN or enabled is True:
        return ""
    return "nestedHvEnabled is not true; a hypervisor needs hardware virtualization shown to it"


NESTED_CPU = ResourceValidationPolicy(
    name="nested-cpu",
    description="A nested hypervisor sees a CPU that can virtualize.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.HIGH,
    config_schema=PolicyConfigSchema(
        properties={
            "unnested": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Machines that are shown no hardware virtualization, as the stack calls them",
            }
        }
    ),
    remediation_steps="libvirt: set cpu.mode to host-passthrough, or to maximum with type qemu "
    "(Xen: to custom, and by xml.xslt the model Nehalem). Proxmox VE: set cpu.type to host. vSphere: set nestedHvEnabled. "
    "One that is to have none: `nested: false` in our stack file, or its name in nestlab:unnested.",
    validate=[note, _sees_a_cpu_that_virtualizes],
)
