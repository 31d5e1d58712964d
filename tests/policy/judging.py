"""Runs the whole pack over a stack in memory, its inputs proxied as the analyzer proxies them.

A case names the one rule that should speak; that all the others are silent is checked with it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi_policy import (
    PolicyProviderResource,
    PolicyResource,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import unknown_checking_proxy
from pulumi_policy.secret import Secret, secrets_preserving_proxy

sys.path.insert(0, str(Path(__file__).parents[2] / "policies"))
from rules import POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
DOMAIN = "libvirt:index/domain:Domain"
NETWORK = "libvirt:index/network:Network"
POOL = "libvirt:index/pool:Pool"
VOLUME = "libvirt:index/volume:Volume"
PROXMOX = "proxmoxve:index/vmLegacy:VmLegacy"
VSPHERE = "vsphere:index/virtualMachine:VirtualMachine"
PORT_GROUP = "vsphere:index/hostPortGroup:HostPortGroup"
CONTAINER = "pulumi-python:dynamic/nestlab:RemoteObject"
HYPERVISOR = "nestlab:index:NestedHypervisorLab"
OPTIONS: Any = None
ANYWHERE = "0.0.0.0"  # noqa: S104 - what no screen may listen on

HEAD = (
    '<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">'
    '<xsl:template match="@*|node()"><xsl:copy><xsl:apply-templates select="@*|node()"/></xsl:copy>'
    "</xsl:template>"
)


def sheet(*templates: str) -> dict[str, str]:
    """The input ``xml`` with a stylesheet that copies all but what ``templates`` say."""
    return {"xslt": HEAD + "".join(templates) + "</xsl:stylesheet>"}


def attribute(match: str, name: str, value: str) -> str:
    """A template that sets an attribute."""
    text = f'<xsl:attribute name="{name}">{value}</xsl:attribute>'
    return f'<xsl:template match="{match}">{text}</xsl:template>'


@dataclass(frozen=True, eq=False)
class Res:
    """One resource of a stack."""

    type: str
    name: str
    props: Mapping[str, Any]
    under: str = ""
    """Types of its parents, as they stand in a URN."""
    provider: Res | None = None
    needs: Mapping[str, list[Res]] = field(default_factory=dict)
    """What its inputs are taken from."""
    outputs: Mapping[str, Any] | None = None
    """What rules over the stack are shown instead of its inputs."""

    @property
    def urn(self) -> str:
        """Its URN."""
        return (
            f"urn:pulumi:dev::lab::{self.under}{'$' if self.under else ''}{self.type}::{self.name}"
        )


def judge(
    *resources: Res, config: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, list[str]]:
    """What the pack says of a stack, by rule; rules that say nothing are left out."""
    said: dict[str, list[str]] = {}
    for resource in resources:
        for policy in POLICIES:
            if isinstance(policy, ResourceValidationPolicy):
                marked: Any = secrets_preserving_proxy(resource.props)
                policy.remediate(_args(resource, marked, {}))
        for policy in POLICIES:
            if isinstance(policy, ResourceValidationPolicy) and policy.has_validation():
                args = _args(resource, _plain(resource.props), (config or {}).get(policy.name, {}))
                policy.validate(args, _into(said, policy.name))
    for policy in POLICIES:
        if isinstance(policy, StackValidationPolicy):
            stack = StackValidationArgs(_stack(resources), (config or {}).get(policy.name, {}))
            policy.validate(stack, _into(said, policy.name))
    return said


def _into(said: dict[str, list[str]], name: str) -> Any:
    def report(message: str, _urn: str | None = None) -> None:
        said.setdefault(name, []).append(message)

    return report


def _args(resource: Res, props: Any, config: Mapping[str, Any]) -> ResourceValidationArgs:
    return ResourceValidationArgs(
        resource.type, props, resource.urn, resource.name, OPTIONS, None, config
    )


def _stack(resources: tuple[Res, ...]) -> list[PolicyResource]:
    made: dict[str, PolicyResource] = {}
    for each in resources:
        shown = each.props if each.outputs is None else each.outputs
        provider = _provider(each.provider) if each.provider else None
        made[each.urn] = PolicyResource(
            each.type, _plain(shown), each.urn, each.name, OPTIONS, provider, None, [], {}
        )
    for each in resources:
        for key, needed in each.needs.items():
            found = [made[other.urn] for other in needed]
            made[each.urn].property_dependencies[key] = found
            made[each.urn].dependencies.extend(found)
    return list(made.values())


def _provider(given: Res) -> PolicyProviderResource:
    return PolicyProviderResource(given.type, _plain(given.props), given.urn, given.name)


def _plain(value: Any) -> Any:
    return unknown_checking_proxy(_unmarked(value))


def _unmarked(value: Any) -> Any:
    if isinstance(value, Secret):
        return _unmarked(value.value)
    if isinstance(value, dict):
        return {key: _unmarked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unmarked(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@contextlib.contextmanager
def stack_config(**settings: Any) -> Iterator[None]:
    """The stack's configuration, in a project of its own."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("Pulumi.yaml").write_text("name: lab\nruntime: python\nstackConfigDir: stacks\n")
        Path("stacks").mkdir()
        told = {"config": {f"nestlab:{key}": value for key, value in settings.items()}}
        Path("stacks", "Pulumi.dev.yaml").write_text(json.dumps(told))
        yield


PROVIDER = Res("pulumi:providers:libvirt", "host", {"uri": "qemu:///system"})
NET = Res(
    NETWORK, "net", {"name": "lab", "mode": "nat", "addresses": ["10.9.0.0/24"]}, provider=PROVIDER
)
STORE = Res(
    POOL, "store", {"name": "lab", "type": "dir", "target": {"path": "/srv/lab"}}, provider=PROVIDER
)
DISK = Res(VOLUME, "disk", {"name": "disk", "pool": "lab", "size": 64 << 30}, provider=PROVIDER)


def machine(name: str = "vm", kind: str = "", **props: Any) -> Res:
    """A libvirt domain that no rule minds, with ``props`` changed; of a kind, or a plain guest."""
    given = {
        "name": name,
        "type": "kvm",
        "description": f"nestlab:kind={kind}" if kind else "",
        "cpu": {"mode": "host-passthrough"},
        "memory": 8192,
        "vcpu": 4,
        "disks": [{"volumeId": "/srv/lab/disk"}],
        "networkInterfaces": [{"networkName": "lab", "mac": "52:54:00:00:00:01"}],
        "graphics": {"type": "vnc", "listenType": "address", "listenAddress": "127.0.0.1"},
    }
    given |= props
    return Res(
        DOMAIN,
        name,
        {key: value for key, value in given.items() if value is not None},
        provider=PROVIDER,
        needs={"disks": [DISK]},
    )


def lab(*machines: Res) -> tuple[Res, ...]:
    """Machines with the network, the pool and the disk they use."""
    return (PROVIDER, NET, STORE, DISK, *machines)
