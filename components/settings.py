"""From a stack's setting and the set-up's findings to what `components.lab.deploy` is called with."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

from components.media import installers
from components.spec import (
    GoldenImage,
    HostFacts,
    LabSpec,
    SpecError,
    resolve_accelerator,
    sums,
)
from components.spec.allow import Allowed
from components.spec.facts import FOLDER, virtualization
from components.spec.hosts.base import PASSWORD, SET_PASSWORD, ClusterSpec
from components.spec.hosts.libvirt import LibvirtHost
from components.spec.loader import examine
from components.spec.places import golden_images
from components.spec.problems import Problem

FILES = ("lab.media.", "lab.templates.")
"""Where problems are told of files, which nobody reads then."""
NOT_GIVEN = "not given"
"""Stands for the password of a remote host in a preview without it; providers take no empty one."""
CORES_UNKNOWN = 2
"""Cores of an outer host that the doctor has not seen: as many machines boot at a time."""


@dataclass(frozen=True)
class Given:
    """A stack's lab, and the facts that its deployment depends on."""

    spec: LabSpec
    facts: dict[str, Any]
    """Keyword arguments of `components.lab.deploy`."""


def lab(config: pulumi.Config) -> object:
    """Return what the stack file says of its lab, as it stands there.

    Raises:
        pulumi.RunError: there is nothing, or no mapping; it is never shown, whatever it is.
    """
    key = config.full_key("lab")
    text = config.get("lab")
    if text is None:
        raise pulumi.RunError(f"{key} is not in the stack file, and is the lab: write it there")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        why = "deeper than any lab" if text.lstrip()[:1] in {"{", "["} else "no mapping of fields"
        raise pulumi.RunError(
            f"{key} can't be read, it is {why}: write the lab's fields below it"
        ) from None


def host_password(config: pulumi.Config) -> pulumi.Output[str] | None:
    """Return the secret that a remote outer host is entered with; None where the stack has none.

    Raises:
        pulumi.RunError: it stands in the stack file in clear.
    """
    found = config.get_secret(PASSWORD)
    if found is not None and not pulumi.runtime.is_config_secret(config.full_key(PASSWORD)):
        raise pulumi.RunError(
            f"{config.full_key(PASSWORD)} stands in the stack file in clear, where everybody reads it: "
            f"change it on the host, and {_of(SET_PASSWORD, pulumi.get_stack())}"
        )
    return found


def load(
    data: object,
    root: Path,
    stack: str,
    *,
    preview: bool = False,
    password: pulumi.Output[str] | None = None,
    allowed: Allowed | None = None,
) -> Given:
    """Return what the stack says, checked as a whole.

    In a ``preview`` media and the password of a remote host need not be there, which it warns of:
    neither can be handed to whoever looks at a pull request. ``password`` is `host_password`,
    ``allowed`` what a stack may name: by default what the user's own file and environment say.

    Raises:
        pulumi.RunError: something in it, or in the set-up, is wrong; one line for each problem.
    """
    _refuse_another(root, stack)
    if set(stack) == {"."}:
        raise pulumi.RunError(
            f"a stack can't be called {stack!r}, which means another folder where its keys are kept: "
            "give it a name"
        )
    absent: list[str] = []

    def there(path: str) -> bool:
        if os.path.lexists(os.path.realpath(path)):
            return True
        absent.append(path)
        return preview

    try:
        may = allowed or Allowed.read(root, os.environ)
    except SpecError as broken:
        raise pulumi.RunError(f"the stack {stack} can't be deployed:\n{broken}") from None
    spec, problems = examine(data, root=root, exists=there, allowed=may)
    facts: dict[str, Any] = {"root": root, "private": root / FOLDER / "keys" / stack}
    if spec is not None:
        if not any(problem.path.startswith(FILES) for problem in problems):
            problems += sums.wrong(spec, root / FOLDER / "sums.json", may)
            problems += installers.wrong(spec, may)
        found, wrong = _facts(spec, root, stack, password, preview=preview)
        facts |= found
        problems += wrong
    if problems or spec is None:
        said = _of(str(SpecError(problems)), stack)
        raise pulumi.RunError(f"the stack {stack} can't be deployed:\n{said}") from None
    for path in absent:
        pulumi.log.warn(f"{path} is not there; before `pulumi up` it has to be")
    return Given(spec, facts)


def _refuse_another(root: Path, stack: str) -> None:
    """Refuse what the wrapper had read for another stack than the engine works on: it would be lost."""
    read = Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", ""))
    copies = (root / FOLDER / "config").resolve()
    if read.name != f"Pulumi.{stack}.yaml" and read.resolve().parent == copies:
        raise pulumi.RunError(
            f"the engine works on the stack {stack} and was given {read.name}, another lab's: "
            f"name the stack once, as `--stack {stack}`"
        )


def _facts(
    spec: LabSpec, root: Path, stack: str, password: pulumi.Output[str] | None, *, preview: bool
) -> tuple[dict[str, Any], list[Problem]]:
    """Return what the set-up found and what of it is wrong, all of it: nobody is told of one at a time."""
    facts: dict[str, Any] = {}
    problems: list[Problem] = []
    for read in (
        lambda: _machine(spec, root, preview=preview),
        lambda: {"golden": {each: GoldenImage.read(root, each) for each in golden_images(spec)}},
        lambda: _entry(spec, password, stack, preview=preview),
    ):
        try:
            facts |= read()
        except SpecError as wrong:
            problems += wrong.problems
    return facts, problems


def _machine(spec: LabSpec, root: Path, *, preview: bool) -> dict[str, Any]:
    """Return what the deployment depends on of the outer host's processor.

    Raises:
        SpecError: it is not known, or can't run what the stack has.
    """
    host = _host(spec, root)
    accelerator = resolve_accelerator(spec, host)
    unable = virtualization(spec, accelerator, host)
    # Whoever looks at a pull request need not have the host; what the stack itself says is no matter of it.
    if preview and isinstance(spec.host, LibvirtHost) and spec.host.accelerator == "auto":
        for problem in unable:
            pulumi.log.warn(f"`pulumi up` would be refused here: {problem}")
        unable = []
    if unable:
        raise SpecError(unable)
    return {
        "accelerator": accelerator,
        "nests": host is None or host.kvm_nested,
        "cores": host.cores if host else CORES_UNKNOWN,
    }


def _host(spec: LabSpec, root: Path) -> HostFacts | None:
    """Return what the doctor found, where this machine is the outer host."""
    host = spec.host
    if not isinstance(host, LibvirtHost) or not host.is_here:
        return None
    if host.accelerator != "auto" and not (root / FOLDER / "host.json").exists():
        return None
    return HostFacts.read(root)


def _of(text: str, stack: str) -> str:
    """Return ``text`` with what sets the secret doing so for ``stack``, whichever is selected."""
    return text.replace(SET_PASSWORD, f"{SET_PASSWORD[:-1]} --stack {stack}`")


def _entry(
    spec: LabSpec, password: pulumi.Output[str] | None, stack: str, *, preview: bool
) -> dict[str, Any]:
    """Return what a remote outer host is entered with, and nothing for others.

    Raises:
        SpecError: a remote one, and the stack has no secret.
    """
    if not isinstance(spec.host, ClusterSpec):
        return {}
    if password is None and preview:
        pulumi.log.warn(
            f"nestlab:{PASSWORD} is not set; before `pulumi up`, {_of(SET_PASSWORD, stack)}"
        )
        return {"password": pulumi.Output.secret(NOT_GIVEN)}
    if password is None:
        rule = f"{spec.host.where} is entered with a password or a token's secret"
        raise SpecError([Problem(f"nestlab:{PASSWORD}", "nothing given", rule, SET_PASSWORD)])
    return {"password": password}
