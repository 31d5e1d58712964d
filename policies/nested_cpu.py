"""nested-cpu: a nested hypervisor sees a CPU that can virtualize (R49, R52).

Without vmx or svm in its CPU a nested hypervisor installs, boots, and then refuses every guest. With
KVM that takes host-passthrough; under emulation (type qemu) it takes maximum, which has svm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from known import text
from pulumi_policy import EnforcementLevel, ResourceValidationPolicy, Severity

if TYPE_CHECKING:
    from pulumi_policy import ReportViolation, ResourceValidationArgs

DOMAIN = "libvirt:index/domain:Domain"
HYPERVISOR = f"nestlab:index:NestedHypervisorLab${DOMAIN}"
"""The end of the qualified type of the domain that is a nested hypervisor itself."""
MODES = {"kvm": "host-passthrough", "qemu": "maximum"}


def _sees_a_cpu_that_virtualizes(args: ResourceValidationArgs, report: ReportViolation) -> None:
    if args.resource_type != DOMAIN or not args.urn.split("::")[2].endswith(HYPERVISOR):
        return
    kind = text(args.props, "type")
    mode = text(args.props, "cpu", "mode")
    if kind is None or mode is None:
        return
    needed = MODES.get(kind or "kvm", MODES["kvm"])
    if mode != needed:
        found = f"cpu.mode is {mode!r}" if mode else "cpu.mode is not set"
        report(
            f"{args.name}: {found}; a hypervisor of type {kind or 'kvm'!r} needs {needed!r}", None
        )


NESTED_CPU = ResourceValidationPolicy(
    name="nested-cpu",
    description="A nested hypervisor sees a CPU that can virtualize.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.HIGH,
    remediation_steps="Set cpu.mode to host-passthrough, or to maximum with type qemu.",
    validate=_sees_a_cpu_that_virtualizes,
)
