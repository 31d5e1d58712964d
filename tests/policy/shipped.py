"""The stacks of the project as the pack would see them after `pulumi up`, made in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi
import yaml
from pulumi_policy.secret import Secret

from components import lab
from components.stackfile import load
from components.stackfile import plan as planned
from components.stackfile.places import golden_images
from tests.policy.judging import Res
from tests.support.engine import STACK, deploy
from tests.support.shipped import STACKS
from tests.unit.components import labs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from components.findings import Accelerator
    from components.stackfile import LabSpec
    from components.stackfile.plan import LabPlan
    from tests.support.engine import Registered

EMULATED = ("kvm", "xen")
"""Kinds that run where nothing but emulation is to be had; a stack of them is judged for both."""
HIDDEN = "correct-horse"
"""In every secret that a stack makes up."""


@dataclass(frozen=True, eq=False)
class Shipped:
    """One stack of the project, deployed."""

    name: str
    accelerator: Accelerator
    spec: LabSpec
    plan: LabPlan
    resources: tuple[Res, ...]


def name_of(file: Path) -> str:
    """The name of a stack, by its file."""
    return file.name.removeprefix("Pulumi.").removesuffix(".yaml")


def at(number: int) -> Shipped | None:
    """Return every second time a stack of `STACKS`, else the same on an emulated host, if it runs there."""
    file = STACKS[number // 2]
    data: dict[str, Any] = yaml.safe_load(file.read_text())["config"]["nestlab:lab"]
    kinds = {each["kind"] for each in data.get("hypervisors", {}).values()}
    if number % 2 == 0:
        return shipped(name_of(file), data, "kvm")
    return shipped(name_of(file), data, "tcg") if kinds <= set(EMULATED) else None


def stacks() -> Iterator[Shipped]:
    """Yield every stack in ``stacks``; once more for an emulated host, where it runs on one."""
    yield from (found for number in range(2 * len(STACKS)) if (found := at(number)) is not None)


def shipped(name: str, data: Mapping[str, Any], accelerator: Accelerator) -> Shipped:
    """Deploy one stack."""
    spec = load(data, root=labs.ROOT, exists=lambda _: True)
    recorder = deploy(
        lambda: lab.deploy(
            spec,
            root=labs.ROOT,
            private=labs.PRIVATE,
            accelerator=accelerator,
            cores=2,
            golden={variant: labs.IMAGES[variant] for variant in golden_images(spec)},
            password=pulumi.Output.secret(HIDDEN),
        ),
        outputs=_answers,
        stack=name,
    )
    made: dict[str, Res] = {}
    waiting = list(recorder.resources.values())
    while waiting:
        # A parent or a provider may have been registered after what refers to it was asked for.
        ready = [one for one in waiting if _refers(one) <= made.keys()]
        assert ready, f"{[one.name for one in waiting]} refer to one another"
        made |= {one.urn: _res(one, name, made) for one in ready}
        waiting = [one for one in waiting if one.urn not in made]
    return Shipped(name, accelerator, spec, planned(spec), tuple(made.values()))


def _refers(one: Registered) -> set[str]:
    found = set(one.depends_on).union(*one.property_depends.values())
    return {each for each in {*found, one.provider} - {""} if STACK not in each.split("::")[2]}


def _res(one: Registered, stack: str, made: Mapping[str, Res]) -> Res:
    under = one.urn.split("::")[2].rpartition("$")[0]
    given = {key: value for key, value in one.inputs.items() if value is not None}
    needs = {key: [made[urn] for urn in sorted(urns)] for key, urns in one.property_depends.items()}
    return Res(
        one.type,
        one.name,
        {key: Secret(value) if key in one.secret_inputs else value for key, value in given.items()},
        under=under,
        provider=made.get(one.provider),
        needs=needs,
        after=tuple(made[urn] for urn in sorted(one.depends_on)),
        outputs=given | dict(one.outputs),
        stack=stack,
    )


def _answers(resource: Registered) -> Mapping[str, Any]:
    """What the providers would answer, with secrets that look like secrets."""
    kind = resource.type.rpartition(":")[2]
    if kind == "SshKey":
        key = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{HIDDEN}\n-----END OPENSSH PRIVATE KEY-----\n"
        return {"private": key, "public": f"ssh-ed25519 AAAA-{resource.name} comment"}
    if kind == "Password":
        return {"value": HIDDEN}
    if kind == "PveNetworkGate":
        return {"network": resource.inputs["bridge"]}
    if kind == "VsphereNetworkGate":
        named = resource.inputs["group"]
        return {"network": named, "network_id": f"network-{resource.name}"}
    if kind == "VsphereNode":
        host = {"host": "host-10", "pool": "resgroup-9", "store": "datastore-11"}
        return {**host, "endpoint": resource.inputs["server"]}
    return labs.answers(resource)
