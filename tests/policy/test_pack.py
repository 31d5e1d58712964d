"""The pack as a whole: what each rule says of itself, and that none stops at what is not known."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pulumi_policy import EnforcementLevel

from tests.policy import (
    test_esxi_nic,
    test_media,
    test_nested_cpu,
    test_sizes,
    test_teaching_safety,
)
from tests.policy.judging import UNKNOWN, Res, attribute, judge, lab, machine, sheet

from limits import LIMITS  # isort: skip - the pack's folder comes with judging
from rules import POLICIES  # isort: skip - the pack's folder comes with judging

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[2] / "policies"
PAGE = FOLDER.parent / "docs" / "policies.md"
ADVISORY = {"shared-objects"}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_a_rule_says_what_it_is(policy: Any) -> None:
    file = FOLDER / f"{policy.name.replace('-', '_')}.py"
    assert file.is_file(), "a rule is one file of its name"
    assert f"\n{policy.name.replace('-', '_').upper()} = " in file.read_text()
    assert policy.severity
    assert policy.remediation_steps
    assert policy.description.endswith(".")
    wanted = EnforcementLevel.ADVISORY if policy.name in ADVISORY else EnforcementLevel.MANDATORY
    if policy.name == "secret-marks":
        wanted = EnforcementLevel.REMEDIATE
    assert policy.enforcement_level is wanted, "what can't work is mandatory, what is taste is not"


def test_every_rule_is_in_the_pack_once_and_on_its_page() -> None:
    names = [policy.name for policy in POLICIES]
    assert len(names) == len(set(names))
    constants = re.compile(r"^([A-Z_]+) = (?:Resource|Stack)ValidationPolicy\(", re.MULTILINE)
    found = {
        name.lower().replace("_", "-")
        for file in FOLDER.glob("*.py")
        for name in constants.findall(file.read_text())
    }
    assert found == set(names)
    assert re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), re.MULTILINE) == names


def test_the_pack_stands_alone_and_shadows_nothing() -> None:
    for file in FOLDER.glob("*.py"):
        assert file.stem == "__main__" or file.stem not in sys.stdlib_module_names
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in {"components", "toolchain"}


STACKS = [
    lab(machine(kind="kvm", description="nestlab:kind=kvm", xml=sheet())),
    lab(
        machine(
            kind="esxi",
            xml=test_esxi_nic.VMXNET3,
            graphics={"type": "vnc", "listenType": "address", "listenAddress": "127.0.0.1"},
        )
    ),
    test_sizes.nested(*test_sizes.inside("a"), test_sizes.container(64)),
    (test_nested_cpu.proxmox(),),
    (test_nested_cpu.vsphere(nestedHvEnabled=True),),
    test_media.upload(path="https://media.example/a", checksum="00"),
    (Res(test_media.DOWNLOAD, "d", {"url": test_media.URL, **test_media.SUM}),),
    (test_teaching_safety.group(allowPromiscuous=False),),
]


def unknown(given: Any) -> Iterator[Any]:
    """Yield ``given`` with each of its values unknown in turn, at every depth."""
    if isinstance(given, dict):
        for key in given:
            yield {**given, key: UNKNOWN}
            for inner in unknown(given[key]):
                yield {**given, key: inner}
    elif isinstance(given, list):
        for index, each in enumerate(given):
            for inner in [UNKNOWN, *unknown(each)]:
                yield [*given[:index], inner, *given[index + 1 :]]


@pytest.mark.parametrize("stack", STACKS)
def test_a_value_that_is_not_known_yet_neither_stops_nor_breaks_a_rule(
    stack: tuple[Res, ...],
) -> None:
    assert judge(*stack) == {}
    tried = 0
    for index, resource in enumerate(stack):
        for props in unknown(resource.props):
            changed = [*stack[:index], replace(resource, props=props), *stack[index + 1 :]]
            said = judge(*changed)
            # An unknown mark or medium can make a machine another kind, never a wrong one.
            assert set(said) <= {"shared-objects"}, (resource.name, props, said)
            tried += 1
    assert tried > 1


def test_other_resources_are_nobodys_business() -> None:
    props = {"type": "kvm", "cpu": {"mode": "custom"}, "memory": 1, "graphics": {"listen": "::"}}
    odd = [None, True, 3, "text", [], {}, [[{"a": None}]], {"b": [1, None, "x"]}]
    for number, value in enumerate(odd):
        assert judge(Res("any:index/thing:Thing", f"t{number}", {**props, "odd": value})) == {}


@pytest.mark.parametrize("value", [None, True, 3, "text", [], {}, [None], ["text"], [[]], [{}]])
def test_inputs_of_an_unexpected_shape_do_not_break_a_rule(value: Any) -> None:
    for stack in STACKS:
        for index, resource in enumerate(stack):
            for key in resource.props:
                odd = replace(resource, props={**resource.props, key: value})
                judge(*stack[:index], odd, *stack[index + 1 :])


MODES = ("custom", "host-model", "host-passthrough", "maximum", "")
"""All that libvirt knows of, and none."""
NICS = ("e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio", "vmxnet3")
ADDRESSES = ("0.0.0.0", "::", "10.0.0.1", "fe80::1", "host.example", "127.0.0.1", "::1", "")  # noqa: S104
NIC_TYPE = "/domain/devices/interface/model/@type"


def sound(kind: str) -> dict[str, Any]:
    """What a hypervisor of a kind is given when nothing is wrong with it."""
    least = LIMITS[kind]
    nics = [attribute(NIC_TYPE, "type", "vmxnet3")] if kind == "esxi" else []
    return {"kind": kind, "memory": least.memory_mib, "vcpu": least.cores, "xml": sheet(*nics)}


def mutants(kind: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield every setting that a rule reads, with each value: what, inputs, the rule it breaks."""
    given, least = sound(kind), LIMITS[kind]
    kept = given["xml"]["xslt"].removesuffix("</xsl:stylesheet>")

    def styled(template: str) -> dict[str, Any]:
        return {**given, "xml": {"xslt": f"{kept}{template}</xsl:stylesheet>"}}

    for accelerator, mode in product(("kvm", "qemu"), MODES):
        right = mode == {"kvm": "host-passthrough", "qemu": "maximum"}[accelerator]
        right &= (kind, accelerator) != ("xen", "qemu")
        rule = "" if right else "nested-cpu"
        yield (
            f"{accelerator} {mode}",
            {**given, "type": accelerator, "cpu": {"mode": mode}},
            rule,
        )
        for model in ("", "Nehalem", "qemu64"):
            xen = (kind, accelerator, mode, model) == ("xen", "qemu", "custom", "Nehalem")
            inside = f"<model>{model}</model>" if model else ""
            template = f'<xsl:template match="/domain/cpu"><cpu mode="{mode}">{inside}</cpu></xsl:template>'
            yield (
                f"{accelerator} {mode} {model} by XSLT",
                {**styled(template), "type": accelerator},
                "" if xen else rule,
            )
    for field, name, unit in (("memory", "memory_mib", "MiB"), ("vcpu", "cores", "")):
        for size in (1, getattr(least, name) - 1, getattr(least, name), getattr(least, name) + 1):
            rule = "sizes" if size < getattr(least, name) else ""
            yield f"{field} {size}", {**given, field: size}, rule
            inner = f'<{field} unit="{unit}">{size}</{field}>'
            template = f'<xsl:template match="/domain/{field}">{inner}</xsl:template>'
            yield f"{field} {size} by XSLT", styled(template), rule
    for model in NICS:
        template = attribute(NIC_TYPE, "type", model)
        rule = "esxi-nic" if kind == "esxi" and model != "vmxnet3" else ""
        yield f"NIC {model}", {**given, "xml": sheet(template)}, rule
    for screen, address in product(("vnc", "spice"), ADDRESSES):
        rule = "" if address in {"", "127.0.0.1", "::1"} else "console-exposure"
        graphics = {"type": screen, "listenType": "address", "listenAddress": address}
        yield f"{screen} on {address}", {**given, "graphics": graphics}, rule
        template = f'<graphics type="{screen}" listen="{address}"/>'
        template = f'<xsl:template match="/domain/devices/graphics">{template}</xsl:template>'
        yield f"{screen} on {address} by XSLT", styled(template), rule


@pytest.mark.parametrize("kind", LIMITS)
def test_no_mutant_of_a_setting_survives_and_no_sound_one_is_stopped(kind: str) -> None:
    wrong, broken = [], 0
    # Kinds differ in their sizes; what else they differ in, these three show.
    whole = kind in {"kvm", "esxi", "xen"}
    for what, props, rule in mutants(kind):
        if not (whole or what.startswith(("memory", "vcpu"))):
            continue
        said = set(judge(*lab(machine(**props))))
        broken += bool(rule)
        if said != ({rule} if rule else set()):
            wrong.append((what, rule, said))
    assert wrong == []
    assert broken >= (30 if whole else 8)


@pytest.mark.parametrize("kind", LIMITS)
def test_a_disk_below_the_minimum_never_survives(kind: str) -> None:
    least = LIMITS[kind].disk_gib
    for size, rules in ((1, {"capacity"}), (least - 1, {"capacity"}), (least, set())):
        stack = lab(machine(**sound(kind)))
        disk = next(each for each in stack if each.name == "disk")
        small = replace(disk, props={**disk.props, "size": size << 30})
        host = replace(stack[-1], needs={"disks": [small]})
        found = judge(*(each for each in stack[:-1] if each is not disk), small, host)
        assert set(found) == rules, (kind, size)
