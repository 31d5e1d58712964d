"""The stacks that `tests/policy` judges in memory, told to the real engine: as one program, as one state.

Each is a lab of its own within one run, its resources called c012-..., its providers its own. So some
hundred stacks cost one run, and what is said of a resource tells which stack it is said of.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from pulumi_policy.secret import Secret

from tests.policy import (
    test_console_exposure,
    test_esxi_nic,
    test_isolation,
    test_media,
    test_nested_cpu,
    test_plain_secrets,
    test_sizes,
    test_teaching_safety,
)
from tests.policy.judging import UNKNOWN, Res, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DYNAMIC = "pulumi-python:dynamic/"
PROVIDERS = "pulumi:providers:"
LOADED = ("libvirt:", "proxmoxve:", "vsphere:", DYNAMIC)
"""What a preview has a plugin for."""
MODULES = {
    test_nested_cpu: ("nested-cpu",),
    test_esxi_nic: ("esxi-nic",),
    test_sizes: ("sizes", "capacity"),
    test_console_exposure: ("console-exposure",),
    test_isolation: ("isolation", "overlaps", "shared-objects"),
    test_plain_secrets: ("plain-secrets",),
    test_media: ("media",),
    test_teaching_safety: ("teaching-safety", "spoofing-need"),
}
"""Rules by the tests whose stacks are about them, what breaks them and what only nearly does."""
SECRET_KEY = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"
PACKAGES = {"libvirt": "0.5.4", "proxmoxve": "8.3.0", "vsphere": "4.17.0"}

LATER = """
class Later(dynamic.ResourceProvider):
    def create(self, props):
        return dynamic.CreateResult("later", {**props, "value": "qemu:///system"})
"""
PROGRAM = '''
import json, pathlib, pulumi
from pulumi import dynamic

from providers import Later

class Value(dynamic.Resource):
    value: pulumi.Output[str]
    def __init__(self, name):
        super().__init__(Later(), name, {"value": None})

later = Value("later").value
made, dynamics = {}, {}

def told(value):
    if isinstance(value, dict):
        if "secret" in value and len(value) == 1:
            return pulumi.Output.secret(told(value["secret"]))
        return {key: told(each) for key, each in value.items()}
    if isinstance(value, list):
        return [told(each) for each in value]
    return later if value == "UNKNOWN" else value

def after(value, names):
    """The value, known, and made of what others give."""
    return pulumi.Output.all(told(value), *(made[name].urn for name in names)).apply(lambda all: all[0])

def under(kinds, name):
    parent = None
    for number, kind in enumerate(filter(None, kinds.split("$"))):
        parent = pulumi.ComponentResource(kind, f"{name}-in{number}", None, pulumi.ResourceOptions(parent=parent))
    return parent

def of(kind):
    if kind not in dynamics:
        module, _, name = kind.partition("dynamic/")[2].partition(":")
        class Made(dynamic.Resource, module=module, name=name):
            pass
        dynamics[kind] = Made
    return dynamics[kind]

for case in json.loads(pathlib.Path("cases.json").read_text()):
    props, kind, name = case["props"], case["type"], case["name"]
    inputs = {key: told(value) for key, value in props.items()}
    inputs |= {key: after(props.get(key, "UNKNOWN"), names) for key, names in case["needs"].items() if names}
    options = pulumi.ResourceOptions(
        parent=under(case["under"], name),
        provider=made.get(case["provider"]),
        depends_on=[made[each] for each in case["after"]],
    )
    if kind.startswith("pulumi:providers:"):
        package = kind.rpartition(":")[2]
        # Not known yet, and made of what its address is made of.
        unknown = pulumi.Output.all(later, *inputs.values()).apply(lambda all: all[0])
        inputs = case["config"] | {case["unknown"]: unknown}
        if package != "libvirt":
            inputs["password"] = pulumi.Output.secret("hidden12")
        options.version = case["version"]
        made[name] = pulumi.ProviderResource(package, name, inputs, options)
    elif "dynamic/" in kind:
        made[name] = of(kind)(Later(), name, inputs, options)
    else:
        made[name] = pulumi.CustomResource(kind, name, inputs, options)
'''
"""Registers ``cases.json``. Providers ask nothing of anybody: their addresses are not known yet."""
CONFIG: dict[str, tuple[str, dict[str, str]]] = {
    "libvirt": ("uri", {}),
    "proxmoxve": ("endpoint", {"username": "root@pam", "insecure": "true"}),
    "vsphere": ("vsphereServer", {"user": "nobody", "allowUnverifiedSsl": "true"}),
}
"""The address among a provider's inputs, and the others that it can't do without."""


@dataclass(frozen=True)
class Case:
    """One stack, by the prefix of its names."""

    prefix: str
    resources: tuple[Res, ...]
    about: tuple[str, ...]
    """Rules that it is a case of."""
    stated: bool = False
    """Whether it states all that may pretend to be others."""

    @property
    def config(self) -> dict[str, Any]:
        """Settings of rules for this stack."""
        names = [each.name for each in self.resources] if self.stated else []
        return {"teaching-safety": {"spoofing": names}}

    @property
    def rules(self) -> set[str]:
        """The rules that the unit tests find broken."""
        return set(judge(*self.resources, config=self.config))

    @property
    def addressed(self) -> bool:
        """Whether its verdict hangs on the addresses of providers, which no preview here knows."""
        given = [
            each.props.get("uri") for each in self.resources if each.type.startswith(PROVIDERS)
        ]
        return len([uri for uri in given if uri not in {None, UNKNOWN}]) > 1

    def settled(self) -> Case:
        """The same once all of it is known, as it is in a state."""
        made: dict[str, Res] = {}

        def one(given: Res) -> Res:
            if given.urn not in made:
                made[given.urn] = replace(
                    given,
                    props=told(given.props, f"{self.prefix}-known", Secret),
                    provider=one(given.provider) if given.provider else None,
                    needs={
                        key: [one(each) for each in found] for key, found in given.needs.items()
                    },
                    after=tuple(map(one, given.after)),
                )
            return made[given.urn]

        return replace(self, resources=tuple(map(one, self.resources)))


def cases() -> Iterator[Case]:
    """Yield every stack that the unit tests of the rules are called with."""
    number = 0
    for module, about in MODULES.items():
        for name, test in vars(module).items():
            for mark in getattr(test, "pytestmark", ()) if name.startswith("test_") else ():
                for given in mark.args[1]:
                    found = _resources(mark.args[0], given)
                    if not found or "Asset" in repr(found[0]) or "__provider" in repr(found[0]):
                        continue
                    for stated in (False, True)[: 1 + ("spoofing-need" in about)]:
                        number += 1
                        prefix = f"c{number:03}"
                        yield Case(prefix, _renamed(prefix, found), about, stated)


def _resources(names: Any, given: Any) -> tuple[Res, ...]:
    # Of a test with more arguments than the stack, that is the first.
    first = given[0] if isinstance(names, list | tuple) else given
    if names == "given" and isinstance(first, Res):
        return (first,)
    is_stack = (
        isinstance(first, tuple) and bool(first) and all(isinstance(one, Res) for one in first)
    )
    return first if is_stack else ()


def _renamed(prefix: str, stack: tuple[Res, ...]) -> tuple[Res, ...]:
    """The same stack with names, types and providers that no other one in the same run has."""
    made: dict[int, Res] = {}

    def one(given: Res) -> Res:
        if id(given) not in made:
            kind, props = given.type, given.props
            if not kind.startswith((*LOADED, PROVIDERS)):
                kind = f"{DYNAMIC}{kind.partition(':')[0]}:Thing"
            if kind.startswith(PROVIDERS) and props.get("uri") not in {None, UNKNOWN}:
                props = {**props, "uri": str(props["uri"]).replace("://", f"://{prefix}")}
            if "node" in props:
                props = {**props, "node": f"{prefix}-{props['node']}"}
            made[id(given)] = replace(
                given,
                type=kind,
                name=f"{prefix}-{given.name}",
                props=props,
                provider=one(given.provider) if given.provider else None,
                needs={key: [one(each) for each in found] for key, found in given.needs.items()},
                after=tuple(map(one, given.after)),
            )
        return made[id(given)]

    wanted = [one(each) for each in stack]
    every = {each.urn: each for each in made.values()}
    # Those last that are made of others: a program can only refer to what it has made.
    found: dict[str, Res] = {}

    def add(given: Res) -> None:
        for each in (given.provider, *given.after, *chain(*given.needs.values())):
            if each is not None:
                add(every[each.urn])
        found.setdefault(given.urn, given)

    for each in wanted:
        add(each)
    return tuple(found.values())


def told(value: Any, unknown: Any, secret: Callable[[Any], Any]) -> Any:
    """A case's inputs in words of another: its unknown values and its secrets replaced."""
    if isinstance(value, Secret):
        return secret(told(value.value, unknown, secret))
    if isinstance(value, dict):
        return {key: told(each, unknown, secret) for key, each in value.items()}
    if isinstance(value, list):
        return [told(each, unknown, secret) for each in value]
    return unknown if value == UNKNOWN else value


def settings(every: list[Case]) -> str:
    """What ``--policy-pack-config`` reads: what the cases state; and that every rule stops a run."""
    stated = [name for case in every for name in case.config["teaching-safety"]["spoofing"]]
    return json.dumps({"teaching-safety": {"spoofing": stated}, "shared-objects": "mandatory"})


def program(every: list[Case]) -> str:
    """What `PROGRAM` reads: one list of all resources."""
    given = []
    for case in every:
        for each in [*_defaults(case), *case.resources]:
            package = each.type.rpartition(":")[2]
            unknown, config = CONFIG.get(package, ("", {}))
            provider = each.provider.name if each.provider else _default(case, each)
            given.append(
                {
                    "type": each.type,
                    "name": each.name,
                    "props": told(each.props, "UNKNOWN", lambda value: {"secret": value}),
                    "under": each.under,
                    "provider": provider,
                    "needs": {
                        key: [one.name for one in found] for key, found in each.needs.items()
                    },
                    "after": [one.name for one in each.after],
                    "config": config,
                    "unknown": unknown,
                    "version": PACKAGES.get(package, ""),
                }
            )
    return json.dumps(given)


def _default(case: Case, each: Res) -> str:
    package = each.type.partition(":")[0]
    return f"{case.prefix}-{package}" if package in PACKAGES else ""


def _defaults(case: Case) -> list[Res]:
    """Providers for what names none: the engine's own would want to be configured."""
    packages = {
        each.type.partition(":")[0] for each in case.resources if each.provider is None
    } & set(PACKAGES)
    return [Res(f"{PROVIDERS}{each}", f"{case.prefix}-{each}", {}) for each in sorted(packages)]


def state(every: list[Case], salt: str = "") -> str:
    """The same as an exported state of a stack ``dev`` of a project ``scratch``, secrets in clear.

    ``salt`` is that of the passphrase that they are encrypted by when it is imported.
    """
    root = {"urn": _urn("pulumi:pulumi:Stack", "scratch-dev"), "type": "pulumi:pulumi:Stack"}
    resources: list[dict[str, Any]] = [{**root, "custom": False}]
    for case in every:
        providers = {f"{case.prefix}-dynamic": f"{PROVIDERS}pulumi-python"}
        providers |= {each.name: each.type for each in _defaults(case)}
        for name, kind in providers.items():
            resources.append(_entry(kind, name, {}, root["urn"], ""))
        for each in case.resources:
            default = (
                f"{case.prefix}-dynamic" if each.type.startswith(DYNAMIC) else _default(case, each)
            )
            urn = _urn(providers[default], default) if default in providers else ""
            urn = _of(each.provider) if each.provider else urn
            props = told(each.props, None, _sealed)
            kind = f"{each.under}{'$' if each.under else ''}{each.type}"
            entry = _entry(kind, each.name, props, root["urn"], f"{urn}::1" if urn else "")
            entry["type"] = each.type
            entry["dependencies"] = sorted(
                {_of(one) for one in (*each.after, *chain(*each.needs.values()))}
            )
            entry["propertyDependencies"] = {
                key: [_of(one) for one in found] for key, found in each.needs.items()
            }
            resources.append(entry)
    manifest = {"time": "2026-01-01T00:00:00Z", "magic": "", "version": ""}
    deployment: dict[str, Any] = {"manifest": manifest, "resources": resources}
    if salt:
        deployment["secrets_providers"] = {"type": "passphrase", "state": {"salt": salt}}
    return json.dumps({"version": 3, "deployment": deployment})


def _urn(kind: str, name: str) -> str:
    return f"urn:pulumi:dev::scratch::{kind}::{name}"


def _of(each: Res) -> str:
    return _urn(f"{each.under}{'$' if each.under else ''}{each.type}", each.name)


def _entry(kind: str, name: str, props: Any, parent: str, provider: str) -> dict[str, Any]:
    entry = {"urn": _urn(kind, name), "custom": True, "id": "1", "type": kind, "parent": parent}
    entry |= {"inputs": props, "outputs": props}
    return entry | ({"provider": provider} if provider else {})


def _sealed(value: Any) -> Any:
    return {SECRET_KEY: SECRET_SIGNATURE, "plaintext": json.dumps(value)}
