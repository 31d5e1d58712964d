"""nested-cpu: a nested hypervisor whose CPU can't virtualize is stopped, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pulumi_policy import ResourceValidationArgs
from pulumi_policy.proxy import unknown_checking_proxy
from pulumi_policy.secret import Secret

from tests.policy.judging import (
    HYPERVISOR,
    PROXMOX,
    UNKNOWN,
    VSPHERE,
    Res,
    attribute,
    judge,
    lab,
    machine,
    sheet,
    stack_config,
)

from nested_cpu import DOMAIN, NESTED_CPU  # isort: skip - the pack's folder comes with judging

HOST = f"nestlab:index:OuterHost$nestlab:index:NestedHypervisorLab${DOMAIN}"
GUEST = f"nestlab:index:NestedHypervisorLab$nestlab:index:GuestFromIso${DOMAIN}"


def violations(props: dict[str, Any], *, chain: str = HOST, kind: str = DOMAIN) -> list[str]:
    """What the rule says of one resource, its inputs proxied as the analyzer proxies them."""
    said: list[str] = []
    urn = f"urn:pulumi:local::nestlab::{chain}::kvm1-domain"
    options: Any = None
    args = ResourceValidationArgs(
        kind, unknown_checking_proxy(props), urn, "kvm1-domain", options, None
    )

    def report(message: str, _urn: str | None = None) -> None:
        said.append(message)

    NESTED_CPU.validate(args, report)
    return said


@pytest.mark.parametrize(("kind", "mode"), [("kvm", "host-passthrough"), ("qemu", "maximum")])
def test_a_cpu_that_virtualizes_passes(kind: str, mode: str) -> None:
    assert violations({"type": kind, "cpu": {"mode": mode}}) == []


@pytest.mark.parametrize(
    "props",
    [
        {"type": "kvm", "cpu": {"mode": "host-model"}},
        {"type": "kvm", "cpu": {"mode": "maximum"}},
        {"type": "kvm"},
        {"type": "qemu", "cpu": {"mode": "host-passthrough"}},
        {"cpu": {"mode": "custom"}},
    ],
)
def test_a_cpu_that_does_not_is_named_with_what_it_needs(props: dict[str, Any]) -> None:
    (said,) = violations(props)
    assert said.startswith("kvm1-domain: cpu.mode is ")
    assert said.endswith(
        "needs 'maximum'" if props.get("type") == "qemu" else "needs 'host-passthrough'"
    )


def test_guests_and_other_resources_are_not_its_business() -> None:
    assert violations({"type": "kvm"}, chain=GUEST) == []
    assert violations({"type": "kvm"}, kind="libvirt:index/volume:Volume") == []


def test_what_is_not_known_yet_is_not_judged() -> None:
    assert violations({"type": "kvm", "cpu": {"mode": UNKNOWN}}) == []
    assert violations({"type": UNKNOWN, "cpu": {"mode": "custom"}}) == []


CPU = "/domain/cpu"
GATE = "pulumi-python:dynamic/nestlab:PveGuestGate"


def cpu(mode: str, *features: str, model: str = "") -> dict[str, str]:
    """A stylesheet that makes the CPU: features as POLICY:NAME."""
    pairs = [feature.split(":") for feature in features]
    inner = "".join(f'<feature policy="{policy}" name="{name}"/>' for policy, name in pairs)
    inner += f"<model>{model}</model>" if model else ""
    return sheet(f'<xsl:template match="{CPU}"><cpu mode="{mode}">{inner}</cpu></xsl:template>')


def emulated(**props: Any) -> tuple[Res, ...]:
    return lab(machine(kind="xen", type="qemu", **props))


def later(config: dict[str, Any], under: str = HYPERVISOR) -> Res:
    """A gate of ours, which sets what the provider has no word for."""
    return Res(GATE, "pve-gate", {"config": config}, under=under)


def qemu_cpu() -> dict[str, str]:
    namespace = "http://libvirt.org/schemas/domain/qemu/1.0"
    arg = '<q:arg value="-cpu"/><q:arg value="qemu64"/>'
    return sheet(
        '<xsl:template match="/domain"><xsl:copy><xsl:apply-templates select="@*|node()"/>'
        f'<q:commandline xmlns:q="{namespace}">{arg}</q:commandline></xsl:copy></xsl:template>'
    )


def proxmox(**props: Any) -> Res:
    given = {
        "description": "nestlab:kind=proxmox",
        "cpu": {"type": "host", "cores": 4},
        "memory": {"dedicated": 8192},
        "disks": [{"size": 40}],
    }
    return Res(PROXMOX, "pve", given | props)


def vsphere(**props: Any) -> Res:
    given = {"annotation": "nestlab:kind=proxmox", "numCpus": 4, "memory": 8192}
    return Res(VSPHERE, "pve", given | props)


@pytest.mark.parametrize(
    "stack",
    [
        lab(machine(kind="kvm", xml=cpu("custom"))),
        lab(machine(kind="kvm", xml=cpu("host-model"))),
        lab(machine(kind="kvm", xml=Secret(cpu("host-model", "disable:svm")))),
        lab(machine(kind="kvm", xml=cpu("host-passthrough", "disable:vmx"))),
        lab(machine(kind="kvm", xml=cpu("host-model", "require:vmx", "forbid:svm"))),
        lab(machine(kind="kvm", xml=cpu("host-model", "optional:vmx"))),
        lab(machine(kind="kvm", xml=sheet(f'<xsl:template match="{CPU}"/>'))),
        lab(machine(kind="kvm", xml=sheet(f'<xsl:template match="{CPU}/@mode"/>'))),
        lab(machine(kind="kvm", xml=sheet(attribute("/domain/@type", "type", "qemu")))),
        lab(machine(kind="kvm", xml=sheet(attribute("@*[name()='type']", "type", "qemu")))),
        lab(machine(kind="kvm", xml=qemu_cpu())),
        lab(machine(cpu=None, metadata="<lab>nestlab:kind=hyperv</lab>")),
        lab(machine(cpu={}, disks=[{"file": "/iso/proxmox-ve_8.4-1.iso"}])),
        lab(machine(kind="kvm", type="qemu", cpu={"mode": "custom"})),
        lab(machine(kind="kvm", type="qemu", xml=cpu("custom", model="Nehalem"))),
        lab(machine(kind="xen", xml=cpu("custom", model="Nehalem"))),
        emulated(cpu={"mode": "maximum"}),
        emulated(xml=cpu("custom")),
        emulated(xml=cpu("custom", model="qemu64")),
        emulated(xml=cpu("host-model", "require:svm", model="Nehalem")),
        (later({"kvm": 0}),),
        (later({"args": "-cpu qemu64"}),),
        (later({"cpu": "kvm64,flags=+aes"}),),
        (proxmox(cpu={"type": "x86-64-v2-AES", "cores": 4}),),
        (proxmox(cpu={"cores": 4}),),
        (proxmox(cpu={"type": "host", "cores": 4, "flags": ["-vmx"]}),),
        (proxmox(kvmArguments="-cpu qemu64"),),
        (
            proxmox(
                description="",
                tags=["nestlab-kind-esxi"],
                cpu={"cores": 4},
                networkDevices=[{"bridge": UNKNOWN, "model": "vmxnet3"}],
            ),
        ),
        (vsphere(),),
        (vsphere(nestedHvEnabled=False),),
        (vsphere(annotation="", guestId="windowsHyperVGuest"),),
    ],
)
def test_no_way_round_is_left(stack: tuple[Res, ...]) -> None:
    assert set(judge(*stack)) == {"nested-cpu"}


def test_what_depends_on_what_the_host_fills_in_is_taken_on_no_trust() -> None:
    asks = (
        '<xsl:template match="/domain[devices/emulator][os/type/@arch]/cpu"><cpu/></xsl:template>'
    )
    assert "nested-cpu" in judge(*lab(machine(kind="kvm", xml=sheet(asks))))


@pytest.mark.parametrize(
    "stack",
    [
        lab(machine(kind="kvm", xml=cpu("host-passthrough"))),
        lab(machine(kind="kvm", xml=cpu("host-passthrough", "require:vmx", "disable:hle"))),
        lab(machine(kind="kvm", xml=cpu("host-model", "require:svm"))),
        lab(machine(kind="kvm", cpu=None, xml=cpu("host-passthrough"))),
        lab(machine(kind="kvm", type="qemu", cpu={"mode": "maximum"})),
        lab(machine(kind="kvm", type="qemu", xml=cpu("maximum"))),
        emulated(xml=cpu("custom", model="Nehalem")),
        emulated(cpu={"mode": "custom"}, xml={"xslt": UNKNOWN}),
        lab(machine(kind="xen")),
        (later({"ide0": "local:iso/a.iso,media=cdrom", "cpu": "host"}),),
        (later({"kvm": 0}, under=GUEST),),
        lab(machine(kind="guest", cpu=None, disks=[{"file": "/iso/proxmox-ve_8.4-1.iso"}])),
        lab(machine(cpu={"mode": "custom"}, xml=cpu("custom"))),
        lab(machine(kind="kvm", xml={"xslt": UNKNOWN})),
        (proxmox(),),
        (proxmox(cpu={"type": "x86-64-v3", "cores": 4, "flags": ["+svm"]}),),
        (proxmox(cpu={"type": UNKNOWN, "cores": 4}),),
        (proxmox(description="", cpu={"cores": 4}),),
        (vsphere(nestedHvEnabled=True),),
        (vsphere(nestedHvEnabled=UNKNOWN),),
        (vsphere(annotation=""),),
    ],
)
def test_what_can_virtualize_or_need_not_passes(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}


OUR_LAB = {"hypervisors": {"outer": {"kind": "kvm", "nested": False}}}
OFF = ("disable:svm", "disable:vmx")


def ours(name: str = "outer-domain", kind: str = "kvm", **props: Any) -> tuple[Res, ...]:
    """A hypervisor that our components made."""
    made = machine(name=name, kind=kind, **props)
    return lab(replace(made, under=HYPERVISOR))


ASKED_FOR = [
    ours(xml=cpu("host-passthrough", *OFF)),
    ours(xml=cpu("host-passthrough", "forbid:svm", "disable:vmx", "disable:hle")),
    ours(type="qemu", cpu={"mode": "maximum"}, xml=cpu("maximum", *OFF)),
    ours(xml={"xslt": UNKNOWN}),
    ours(kind="xen", xml=cpu("host-passthrough", *OFF)),
    ours(kind="xen", type="qemu", xml=cpu("custom", model="Nehalem")),
]


@pytest.mark.parametrize("stack", ASKED_FOR)
def test_one_without_is_let_through_where_our_stack_file_asks_for_it(
    stack: tuple[Res, ...],
) -> None:
    with stack_config(lab=OUR_LAB):
        assert judge(*stack) == {}


@pytest.mark.parametrize(
    "stack",
    [
        # Half of it, other CPUs, and what nobody sees.
        ours(xml=cpu("host-passthrough")),
        ours(xml=cpu("host-passthrough", "disable:vmx")),
        ours(xml=cpu("host-passthrough", "disable:svm", "require:vmx")),
        ours(xml=cpu("host-passthrough", "disable:svm", "optional:vmx")),
        ours(xml=cpu("custom", *OFF)),
        ours(xml=cpu("host-model", *OFF)),
        ours(xml=cpu("maximum", *OFF)),
        ours(type="qemu", xml=cpu("host-passthrough", *OFF)),
        ours(cpu={"mode": "custom"}, xml={"xslt": UNKNOWN}),
        ours(xml=qemu_cpu()),
        # Products that can't do without, by what they are, not by what they are called.
        *(
            ours(kind=kind, xml=cpu("host-passthrough", *OFF))
            for kind in ("esxi", "hyperv", "virtualbox")
        ),
        ours(kind="", xml=cpu("host-passthrough", *OFF)),
        ours(kind="xen", type="qemu", xml=cpu("maximum", *OFF)),
        # Others than the one that the stack names.
        ours(name="other-domain", xml=cpu("host-passthrough", *OFF)),
        ours(name="outer-inner-domain", xml=cpu("host-passthrough", *OFF)),
        lab(machine(name="outer-domain", kind="kvm", xml=cpu("host-passthrough", *OFF))),
    ],
)
def test_the_field_of_our_stack_file_is_no_way_round(stack: tuple[Res, ...]) -> None:
    with stack_config(lab=OUR_LAB):
        assert set(judge(*stack)) <= {"nested-cpu", "sizes", "esxi-nic"}
        assert "nested-cpu" in judge(*stack)


@pytest.mark.parametrize("said", [True, None, "false", 0])
def test_anything_but_false_asks_for_nothing(said: Any) -> None:
    [stack] = [ours(xml=cpu("host-passthrough", *OFF))]
    with stack_config(lab={"hypervisors": {"outer": {"kind": "kvm", "nested": said}}}):
        assert set(judge(*stack)) == {"nested-cpu"}


def test_a_hypervisor_is_named_by_its_way_through_the_lab() -> None:
    deep = {"hypervisors": {"outer": {"hypervisors": {"inner": {"nested": False}}}}}
    without = cpu("host-passthrough", *OFF)
    with stack_config(lab=deep):
        assert judge(*ours(name="outer-inner-domain", xml=without)) == {}
        assert set(judge(*ours(xml=without))) == {"nested-cpu"}


def test_programs_of_others_state_it_by_the_machines_name() -> None:
    without = lab(machine(name="vm", kind="kvm", xml=cpu("host-passthrough", *OFF)))
    assert set(judge(*without)) == {"nested-cpu"}
    for name, said in (("vm", {}), ("other", {"nested-cpu"})):
        with stack_config(unnested=[name]):
            assert set(judge(*without)) == set(said)
        assert set(judge(*without, config={"nested-cpu": {"unnested": [name]}})) == set(said)


@pytest.mark.parametrize(
    ("given", "sound"),
    [
        (proxmox(cpu={"type": "x86-64-v2-AES", "cores": 4}), True),
        (proxmox(cpu={"cores": 4}), True),
        (proxmox(cpu={"type": UNKNOWN, "cores": 4}), True),
        (proxmox(), False),
        (proxmox(cpu={"type": "max", "cores": 4}), False),
        (proxmox(cpu={"type": "x86-64-v3", "cores": 4, "flags": ["+vmx"]}), False),
        (proxmox(cpu={"type": "kvm64", "cores": 4}, kvmArguments="-cpu host"), False),
        (vsphere(), True),
        (vsphere(nestedHvEnabled=False), True),
        (vsphere(nestedHvEnabled=UNKNOWN), True),
        (vsphere(nestedHvEnabled=True), False),
        (
            vsphere(annotation="nestlab:kind=esxi", networkInterfaces=[{"networkId": UNKNOWN}]),
            False,
        ),
    ],
)
def test_other_hosts_are_held_to_what_the_stack_states_too(given: Res, *, sound: bool) -> None:
    with stack_config(unnested=["pve"]):
        assert set(judge(given)) == (set() if sound else {"nested-cpu"})


def test_what_is_wrong_is_said_in_words() -> None:
    with stack_config(lab=OUR_LAB):
        [said] = judge(*ours(xml=cpu("host-passthrough", "disable:vmx")))["nested-cpu"]
        assert said == (
            "outer-domain: the stack shows it no hardware virtualization, and the CPU's feature 'svm' is "
            "not disabled"
        )
