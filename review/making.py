"""The first job: a report of what another branch's stack files would do, made by this checkout's code."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.stackfile import SpecError
from components.stackfile.plan import plan, totals
from review import names, report, sources, stage, stand_in
from toolchain import stack_check
from toolchain.bootstrap import ui
from toolchain.engine import changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from components.stackfile import LabSpec
    from components.stackfile.plan import LabPlan, MachinePlan, NetworkPlan

MOST = 20
"""Stacks that are previewed; more are counted."""
OURS = "nestlab:"
ROOT = Path("/project")
"""What stands for the project's folder where a lab is only planned."""


@dataclass(frozen=True)
class Told:
    """A stack file that could be read."""

    text: bytes
    config: Mapping[str, Any]

    @property
    def given(self) -> bytes:
        """The file as the stage gets it: our own settings, no secret, no salt, nothing that leads elsewhere."""
        kept = {key: each for key, each in self.config.items() if str(key).startswith(OURS)}
        # One in clear is refused; one of the engine's is of no use here.
        if stack_check.SECRET in kept:
            secret = kept.pop(stack_check.SECRET)
            kept |= {stack_check.SECRET: "in clear"} if isinstance(secret, str) else {}
        return json.dumps({"config": kept}).encode()

    def spec(self, stack: str) -> LabSpec:
        """Return the lab.

        Raises:
            Problem: it is refused, in the words of a preview.
        """
        lab = self.config.get(stack_check.LAB)
        if lab is None:
            raise ui.Problem(
                f"{stack_check.LAB} is not in the stack file, and is the lab: write it there"
            )
        if stack_check.has_secrets(lab):
            raise ui.Problem(f"the lab of {stack} holds secrets, which only the engine reads")
        spec, problems = names.understood(lab, ROOT)
        if spec is None or problems:
            raise ui.Problem(str(SpecError(problems)))
        return spec


def made(base: str, head: str, repository: Path, number: int = 0) -> report.Report:
    """Return the report of ``head`` compared with ``base``, each a folder or a ref of ``repository``.

    Raises:
        NoSource: one of them is neither.
    """
    olds, news = sources.of(base, repository), sources.of(head, repository)
    differ = list(_pairs(olds, news))
    stacks = [_stack(was, name, olds.get(was), news.get(name)) for was, name in differ[:MOST]]
    return report.Report(
        number=number,
        base=_cut(base),
        head=_cut(head),
        stacks=[each for each in stacks if each],
        left_out=max(0, len(differ) - MOST),
    )


def _pairs(
    olds: Mapping[str, sources.StackText], news: Mapping[str, sources.StackText]
) -> Iterator[tuple[str, str]]:
    """Yield the names, before and after, of stacks whose files differ; one that is not there has the other's."""
    gone, fresh = sorted(olds.keys() - news.keys()), sorted(news.keys() - olds.keys())
    moved: dict[str, str] = {}
    for new in fresh:
        same = [
            old for old in gone if old not in moved.values() and _same_lab(olds[old], news[new])
        ]
        moved |= {new: same[0]} if same else {}
    for name in sorted(olds.keys() | news.keys()):
        if name in moved.values():
            continue
        was = moved.get(name, name)
        if name in moved or olds.get(name) != news.get(name):
            yield was, name


def _same_lab(old: sources.StackText, new: sources.StackText) -> bool:
    try:
        labs = [dict(_told("", each).config[stack_check.LAB]) for each in (old, new)]
    except (ui.Problem, LookupError, TypeError, ValueError):
        return False
    for lab in labs:
        lab.pop("name", None)
    return bool(labs[0]) and labs[0] == labs[1]


def _told(stack: str, found: sources.StackText) -> Told:
    """Return what a file says.

    Raises:
        Problem: it can't be read.
    """
    if found.wrong:
        raise ui.Problem(found.wrong)
    return Told(found.text, stack_check.read(found.text, f"stacks/Pulumi.{stack}.yaml"))


def _stack(
    was: str, name: str, old: sources.StackText | None, new: sources.StackText | None
) -> report.Stack | None:
    """Return what becomes of one stack; None where only the file's layout or remarks differ."""
    with ui.step(f"stack {name}"):
        before = _read(was, old)
        renamed = was if was != name else ""
        if new is None:
            return _removed(name, before)
        try:
            told = _told(name, new)
            if before and not renamed and before.given == told.given:
                return None
            # What was never asked of the engine is refused in the same words, and sooner.
            after = told.spec(name)
            # A renamed stack is another one to the engine: nothing of it stands.
            return _previewed(name, renamed, None if renamed else before, told, after, before)
        except ui.Problem as refused:
            return report.Stack(
                name=name,
                was=renamed,
                fate="broken",
                refused=_cut(str(refused), 20000),
                before=_version(was, before),
            )


def _read(stack: str, found: sources.StackText | None) -> Told | None:
    """Return the base branch's version; None where there is none, or none that could stand."""
    try:
        told = _told(stack, found) if found else None
        if told:
            told.spec(stack)
    except ui.Problem as refused:
        ui.warn(f"the base branch's {stack} is refused, so all of it counts as new: {refused}")
        return None
    return told


def _previewed(
    name: str, was: str, standing: Told | None, told: Told, spec: LabSpec, before: Told | None
) -> report.Stack:
    given = standing.given if standing else None
    with (
        tempfile.TemporaryDirectory(prefix="nestlab-review-") as scratch,
        stand_in.serving(stage.asked_by(given, told.given)) as providers,
    ):
        on = stage.Stage.make(Path(scratch).resolve() / "stage", providers)
        on.standing(name, given)
        preview = on.preview(name, told.given)
    changed = [_change(step) for step in preview.steps if step["op"] != "same"]
    lines = _lines(told.text, plan(spec))
    kept = (
        f"the lab of {was} stays as it is until `nestlab down --stack {was}`; {name} is another one"
    )
    return report.Stack(
        name=name,
        was=was,
        fate="renamed" if was else "changed" if standing else "added",
        changes=changed[:5000],
        same=len(preview.steps) - len(changed),
        losses=[kept]
        if was
        else [_cut(each, 2000) for each in changes.losses(preview.steps)][:1000],
        findings=[_finding(each, lines) for each in preview.judged if _counts(each)][:500],
        before=_version(was or name, before),
        after=_version(name, told),
    )


def _removed(name: str, before: Told | None) -> report.Stack:
    if before is None:
        return report.Stack(name=name, fate="removed")
    with (
        tempfile.TemporaryDirectory(prefix="nestlab-review-") as scratch,
        stand_in.serving(stage.asked_by(before.given)) as providers,
    ):
        on = stage.Stage.make(Path(scratch).resolve() / "stage", providers)
        on.standing(name, before.given)
        stood = on.resources(name)
    steps = [{"op": "delete", "urn": each["urn"], "oldState": each} for each in stood]
    stays = f"the lab of {name} stands until `nestlab down --stack {name}`, for which its file is needed"
    return report.Stack(
        name=name,
        fate="removed",
        changes=[_change(step) for step in steps],
        losses=[stays, *(_cut(each, 2000) for each in changes.losses(steps))][:1000],
        before=_version(name, before),
    )


def _change(step: dict[str, Any]) -> report.Change:
    kind, name = (
        str(step["urn"]).split("::")[2].rpartition("$")[2],
        str(step["urn"]).rpartition("::")[2],
    )
    why = step.get("replaceReasons") or step.get("diffReasons") or []
    return report.Change(
        operation=step["op"],
        kind=_cut(kind),
        name=_cut(name),
        why=[_cut(str(each)) for each in why][:40],
    )


def _counts(said: dict[str, Any]) -> bool:
    return said.get("enforcementLevel") in {"mandatory", "advisory"}


def _finding(said: dict[str, Any], lines: Mapping[str, int]) -> report.Finding:
    name = str(said.get("resourceUrn", "")).rpartition("::")[2]
    fit = [each for each in lines if name == each or name.startswith(f"{each}-")]
    # A rule about the whole stack names the machine in its message.
    fit += [each for each in lines if not fit and f"{each}-" in str(said.get("message"))]
    return report.Finding(
        rule=_cut(str(said.get("policyName", ""))),
        level=said["enforcementLevel"],
        text=_cut(str(said.get("message", "")).strip(), 2000),
        line=lines[max(fit, key=len)] if fit else 0,
        name=_cut(name),
    )


def _lines(text: bytes, lab: LabPlan) -> dict[str, int]:
    """Return the line of each machine and network in the stack file, by the name of its resources."""
    found: dict[str, int] = {}
    root = yaml.compose(text, yaml.SafeLoader)
    for place in lab.places:
        at = "lab" if not place.path else lab.machine(place.path[-1]).at
        told = {machine.path: machine.at for machine in place.machines.values()}
        told |= {(*place.path, name): f"{at}.networks.{name}" for name in place.networks}
        for path, way in told.items():
            line = _line(root, ["config", stack_check.LAB, *way.split(".")[1:]])
            found |= {"-".join(path): line} if line else {}
    return found


def _line(node: Any, way: list[str]) -> int:
    """Return the line of the key that ``way`` leads to, from 1; 0 where it leads nowhere."""
    line = 0
    for each in way:
        if not isinstance(node, yaml.MappingNode):
            return 0
        key, node = next(((k, v) for k, v in node.value if k.value == each), (None, None))
        if key is None:
            return 0
        line = key.start_mark.line + 1
    return line


def _version(stack: str, told: Told | None) -> report.Version | None:
    if told is None:
        return None
    spec = told.spec(stack)
    lab, size = plan(spec), totals(spec)
    outer = [IPv4Network(each.subnet) for each in lab.place().networks.values() if each.subnet]
    nodes: list[report.Node] = []
    for place in lab.places:
        nodes += [_network(place.path, each) for each in place.networks.values()]
        kinds = {each.path: each.kind for each in lab.places}
        nodes += [_machine(each, kinds.get(each.path)) for each in place.machines.values()]
    return report.Version(
        bill=report.Bill(
            memory_mib=size.memory_mib,
            cores=size.cores,
            disk_gib=size.disk_gib,
            addresses=sum(each.num_addresses for each in outer),
        ),
        nodes=nodes[:2000],
    )


def _network(place: tuple[str, ...], each: NetworkPlan) -> report.Node:
    text = " ".join(filter(None, (each.mode, each.subnet)))
    return report.Node(path=[*place, each.name], what="network", text=text)


def _machine(each: MachinePlan, kind: str | None) -> report.Node:
    return report.Node(
        path=list(each.path),
        what=kind or each.group.removesuffix("s"),
        text=each.address or "",
        networks=[nic.network for nic in each.nics][:64],
    )


def _cut(text: str, most: int = 200) -> str:
    """Return ``text`` within a bound of the report, without what no JSON carries."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"
