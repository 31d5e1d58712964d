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
import rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pulumi_policy.policy import Policy

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
    after: tuple[Res, ...] = ()
    """What it waits for besides."""
    outputs: Mapping[str, Any] | None = None
    """What rules over the stack are shown instead of its inputs."""
    stack: str = "dev"

    @property
    def urn(self) -> str:
        """Its URN."""
        chain = f"{self.under}{'$' if self.under else ''}{self.type}"
        return f"urn:pulumi:{self.stack}::lab::{chain}::{self.name}"


def judge(
    *resources: Res, config: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, list[str]]:
    """What the pack says of a stack, by rule; rules that say nothing are left out."""
    said: dict[str, list[str]] = {}
    for resource in resources:
        mark(resource)
    for resource in resources:
        alone(resource, said, config or {})
    whole(stack_of(resources), said, config or {})
    return said


def mark(resource: Res) -> None:
    """Let remediations see which inputs are secret, as the engine does first."""
    for policy in rules.POLICIES:
        if isinstance(policy, ResourceValidationPolicy):
            marked: Any = secrets_preserving_proxy(resource.props)
            policy.remediate(args_of(resource, marked, {}))


def alone(
    resource: Res,
    said: dict[str, list[str]],
    config: Mapping[str, Any],
    policies: Iterable[Policy] | None = None,
) -> None:
    """Add to ``said`` what rules over one resource say of it."""
    shown = plain(resource.props)
    for policy in rules.POLICIES if policies is None else policies:
        if isinstance(policy, ResourceValidationPolicy) and policy.has_validation():
            args = args_of(resource, shown, config.get(policy.name, {}))
            policy.validate(args, _into(said, policy.name))


def whole(
    stack: list[PolicyResource],
    said: dict[str, list[str]],
    config: Mapping[str, Any],
    policies: Iterable[Policy] | None = None,
) -> None:
    """Add to ``said`` what rules over a stack say of it."""
    for policy in rules.POLICIES if policies is None else policies:
        if isinstance(policy, StackValidationPolicy):
            args = StackValidationArgs(stack, config.get(policy.name, {}))
            policy.validate(args, _into(said, policy.name))


def _into(said: dict[str, list[str]], name: str) -> Any:
    def report(message: str, _urn: str | None = None) -> None:
        said.setdefault(name, []).append(message)

    return report


def args_of(resource: Res, props: Any, config: Mapping[str, Any]) -> ResourceValidationArgs:
    """What a rule over one resource is called with."""
    return ResourceValidationArgs(
        resource.type, props, resource.urn, resource.name, OPTIONS, None, config
    )


def stack_of(resources: Iterable[Res]) -> list[PolicyResource]:
    """A stack as rules over it are shown it."""
    resources = list(resources)
    made: dict[str, PolicyResource] = {}
    for each in resources:
        shown = each.props if each.outputs is None else each.outputs
        provider = _provider(each.provider) if each.provider else None
        made[each.urn] = PolicyResource(
            each.type, plain(shown), each.urn, each.name, OPTIONS, provider, None, [], {}
        )
    for each in resources:
        for key, needed in each.needs.items():
            found = [made[other.urn] for other in needed]
            made[each.urn].property_dependencies[key] = found
            made[each.urn].dependencies.extend(found)
        made[each.urn].dependencies.extend(made[other.urn] for other in each.after)
    return list(made.values())


def _provider(given: Res) -> PolicyProviderResource:
    return PolicyProviderResource(given.type, plain(given.props), given.urn, given.name)


def plain(value: Any) -> Any:
    """Inputs as a rule is shown them."""
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
