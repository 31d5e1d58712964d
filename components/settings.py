"""From a stack's setting and the set-up's findings to what `components.lab.deploy` is called with."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi

from components.findings import (
    FOLDER,
    GoldenImage,
    HostFacts,
    resolve_accelerator,
    virtualization,
    without_virtualization,
)
from components.media import drivers, sums
from components.media import iso_check as installers
from components.stackfile import LabSpec, SpecError
from components.stackfile.allow import Allowed
from components.stackfile.host import PASSWORD, SET_PASSWORD, ClusterSpec
from components.stackfile.loader import examine
from components.stackfile.places import golden_images
from components.stackfile.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
    found, key = config.get_secret(PASSWORD), config.full_key(PASSWORD)
    if found is not None and not pulumi.runtime.is_config_secret(key):
        raise in_clear(key, pulumi.get_stack())
    return found


def in_clear(key: str, stack: str) -> pulumi.RunError:
    """Return what to raise when the secret ``key`` of ``stack`` stands in its file in clear."""
    return pulumi.RunError(
        f"{key} stands in the stack file in clear, where everybody reads it: "
        f"change it on the host, and {_of(SET_PASSWORD, stack)}"
    )


def is_there(path: str) -> bool:
    """Whether there is anything at ``path``, of which it is then asked what."""
    return os.path.lexists(os.path.realpath(path))


def examined(
    data: object, root: Path, stack: str, there: Callable[[str], bool] = is_there
) -> LabSpec:
    """Return what the stack says, checked as far as no machine is needed for it.

    ``there`` says whether a file that it names is there, or will be.

    Raises:
        pulumi.RunError: something in it is wrong; one line for each problem, as `load` tells them.
    """
    _refuse_dots(stack)
    spec, problems = understood(data, root, _may(root, stack), there)
    if problems or spec is None:
        raise _refused(problems, stack) from None
    return spec


def _refuse_dots(stack: str) -> None:
    if set(stack) == {"."}:
        raise pulumi.RunError(
            f"a stack can't be called {stack!r}, which means another folder where its keys are kept: "
            "give it a name"
        )


def _may(root: Path, stack: str) -> Allowed:
    try:
        return Allowed.read(root, os.environ)
    except SpecError as broken:
        raise pulumi.RunError(f"the stack {stack} can't be deployed:\n{broken}") from None


def understood(
    data: object,
    root: Path,
    may: Allowed,
    there: Callable[[str], bool],
    home: Path | None = None,
) -> tuple[LabSpec | None, list[Problem]]:
    """Return the lab, and all that is wrong with it and with the files that it names.

    ``home`` is the checkout that remembers their sums, by default ``root``.
    """
    spec, problems = examine(data, root=root, exists=there, allowed=may)
    if spec is not None and not any(problem.path.startswith(FILES) for problem in problems):
        problems += sums.wrong(spec, (home or root) / FOLDER / "sums.json", may)
        problems += installers.wrong(spec, may)
    return spec, problems


def _refused(problems: Iterable[Problem], stack: str) -> pulumi.RunError:
    said = _of(str(SpecError(problems)), stack)
    return pulumi.RunError(f"the stack {stack} can't be deployed:\n{said}")


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
    _refuse_dots(stack)
    absent: list[str] = []

    def there(path: str) -> bool:
        if is_there(path):
            return True
        absent.append(path)
        return preview

    may = allowed or _may(root, stack)
    spec, problems = understood(data, root, may, there)
    facts: dict[str, Any] = {"root": root, "private": root / FOLDER / "keys" / stack}
    if spec is not None:
        found, wrong = facts_of(spec, root, stack, password, preview=preview)
        facts |= found
        problems += wrong
    if problems or spec is None:
        raise _refused(problems, stack) from None
    for told in drivers.lacking(spec):
        pulumi.log.warn(told)
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


def facts_of(
    spec: LabSpec, root: Path, stack: str, password: pulumi.Output[str] | None, *, preview: bool
) -> tuple[dict[str, Any], list[Problem]]:
    """Return what the set-up of the checkout ``root`` found and what of it is wrong.

    All of it: nobody is told of one at a time.
    """
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
    if preview and spec.host.accelerates == "auto":
        for problem in unable:
            pulumi.log.warn(f"`pulumi up` would be refused here: {problem}")
        unable = []
    if unable:
        raise SpecError(unable)
    for told in without_virtualization(spec, accelerator, host):
        pulumi.log.info(told)
    return {
        "accelerator": accelerator,
        "nests": host is None or host.kvm_nested,
        "cores": host.cores if host else CORES_UNKNOWN,
    }


def _host(spec: LabSpec, root: Path) -> HostFacts | None:
    """Return what the doctor found, where this machine is the outer host."""
    host = spec.host
    if not host.is_here:
        return None
    if host.accelerates != "auto" and not (root / FOLDER / "host.json").exists():
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
