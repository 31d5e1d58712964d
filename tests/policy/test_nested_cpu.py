"""nested-cpu: a nested hypervisor whose CPU can't virtualize is stopped, and nothing else is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pulumi_policy import ResourceValidationArgs
from pulumi_policy.proxy import unknown_checking_proxy

sys.path.insert(0, str(Path(__file__).parents[2] / "policies"))
from nested_cpu import DOMAIN, NESTED_CPU

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
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
