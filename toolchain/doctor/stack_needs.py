"""What a stack takes of the outer host, asked from the stack's own model.

The doctor runs before the project's Python environment exists, but reading a stack needs it: YAML
and the spec's pydantic models. So the doctor asks a second Python, the environment's, which runs
`main` here and answers in JSON.
"""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.bootstrap import paths, ui
from toolchain.engine.stack_file import regular, stacks

if TYPE_CHECKING:
    from toolchain.machine.system import System

PYTHON = paths.VENV / "bin/python3"
STACKS = paths.ROOT / "stacks"
KEY = "nestlab:lab"
TIMEOUT_S = 60


@dataclass(frozen=True)
class Needs:
    """What the stack's first layer takes, or ``why`` that is not known."""

    why: str = ""
    refused: str = ""
    """What is wrong with the stack file, in the words of a preview; empty also where it could not be read here."""
    absent: list[str] = field(default_factory=list)
    """Files that the stack names and that neither are there nor come with the set-up's packages."""
    lab: str = ""
    uri: str = ""
    """The outer host, its libvirt's URI or a cluster; sizes of this machine say nothing of another one."""
    memory_mib: int = 0
    disk_gib: int = 0
    cores: int = 0
    pool_path: str = ""
    subnets: dict[str, str] = field(default_factory=dict)
    """Of the outer networks, by name; a network on somebody's bridge has none, nor one on the outer network."""
    uplinks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the outer networks reach outside by, as `components.kinds.libvirt.uplink.steps.Wanted`."""

    @property
    def networks(self) -> tuple[str, ...]:
        """Those networks as libvirt knows them: labs share the outer host."""
        return tuple(f"{self.lab}-{name}" for name in self.subnets)


def ask(system: System, stack: str) -> Needs:
    """Return what ``stack`` needs; never raises, ``why`` tells what was in the way."""
    file = stack_file(stack)
    if not file.is_file():
        known = ", ".join(stacks())
        return _refused(f"There is no {_short(file)}. Known stacks: {known or 'none'}.")
    if not PYTHON.exists():
        return Needs(why=f"{_short(PYTHON)} is not there yet: run `python3 -m toolchain toolchain`")
    # Not the file itself: its folder would come first on the path, before the standard library.
    script = f"import sys; sys.path.insert(0, {str(paths.ROOT)!r})"
    run = f"{script}; from toolchain.doctor import stack_needs; sys.exit(stack_needs.main(sys.argv[1:]))"
    done = system.run([str(PYTHON), "-B", "-c", run, stack], timeout_s=TIMEOUT_S)
    try:
        return Needs(**json.loads(done.out))
    except (ValueError, TypeError):
        return Needs(why=f"reading {_short(file)} failed: {done.last}")


def stack_file(stack: str) -> Path:
    """The configuration of ``stack``."""
    return STACKS / f"Pulumi.{stack}.yaml"


def _short(path: Path) -> str:
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else str(path)


def main(argv: list[str]) -> int:
    """Print what the stack ``argv[0]`` needs, as JSON."""
    print(json.dumps(asdict(read(stack_file(argv[0])))))
    return 0


def read(file: Path) -> Needs:
    """Read a stack's configuration; only where PyYAML and pydantic are."""
    try:
        plans = importlib.import_module("components.stackfile.plan")
        settings = importlib.import_module("components.settings")
        allow = importlib.import_module("components.stackfile.allow").Allowed
        examine = importlib.import_module("components.stackfile.loader").examine
        problems_of = importlib.import_module("components.stackfile.problems").SpecError
        check = importlib.import_module("toolchain.stack_check")
        totals, planned = plans.totals, plans.plan
    except ImportError as lacking:
        return Needs(why=f"the stack's model can't be loaded: {lacking}")
    try:
        told = regular(file)
        data = check.lab_of(told, _short(file))
        # As `up` does: what it would refuse at once is not ready the day before.
        may = allow.read(paths.ROOT, os.environ)
        if isinstance(check.read(told, _short(file)).get(check.SECRET), str):
            stack = file.name.removeprefix("Pulumi.").removesuffix(".yaml")
            return _refused(str(settings.in_clear(check.SECRET, stack)))
    except (OSError, ui.Problem, problems_of) as refused:
        return _refused(str(refused))
    if check.has_secrets(data):
        return Needs(why="the lab holds secrets, which only the engine reads")
    absent: dict[str, None] = {}

    def named(path: str) -> bool:
        if not check.there(path):
            absent[_short(Path(path))] = None
        return True

    lab, problems = examine(data, root=paths.ROOT, exists=named, allowed=may)
    if problems or lab is None:
        return _refused(str(problems_of(problems)))
    size = totals(lab)
    return Needs(
        absent=list(absent),
        lab=lab.name,
        uri=lab.host.where,
        memory_mib=int(size.memory_mib),
        disk_gib=int(size.disk_gib),
        cores=int(size.cores),
        pool_path=lab.pool_path,
        subnets={
            name: str(network.subnet)
            for name, network in lab.networks.items()
            if network.subnet is not None and not (network.uplink and network.uplink.proxy_arp)
        },
        uplinks=_uplinks(planned(lab)),
    )


def _refused(words: str) -> Needs:
    return Needs(why="see stack", refused=words)


def _uplinks(plan: Any) -> dict[str, dict[str, Any]]:
    found = {}
    for name, network in plan.place().networks.items():
        if uplink := network.uplink:
            modes = {"route": "proxy_arp"}
            found[name] = {
                "mode": modes.get(network.mode, network.mode),
                "nic": uplink.nic,
                "vlan": uplink.vlan,
                "bridge": network.bridge if network.mode == "bridge" else "",
                "subnet": network.subnet or "",
                "addresses": [],
            }
    return found
