"""What the set-up commands found out about this machine, as the stack loader reads it.

``make doctor`` writes the verdict on the host, ``make image`` the golden images of nested hosts.
Nothing is probed here: a component never guesses what a host can do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from components.stackfile.explain import explain
from components.stackfile.places import HypervisorSpec, machines, places
from components.stackfile.problems import Problem, SpecError, listed
from components.stackfile.registry import KINDS
from components.stackfile.values import SpecModel

if TYPE_CHECKING:
    from pathlib import Path

    from components.stackfile.lab import LabSpec

Accelerator = Literal["kvm", "tcg"]
FOLDER = ".nestlab"
DEFAULT_IMAGE = "kvm"
"""The golden image that ``make image`` makes when no other is named."""


class _Facts(SpecModel):
    """A file of the project's private folder; what it holds beyond the model is ignored."""

    model_config = ConfigDict(extra="ignore")


_Known = TypeVar("_Known", bound=_Facts)


class HostFacts(_Facts):
    """The doctor's verdict on this machine."""

    version: Literal[1] = Field(description="Version of the file's shape")
    accelerator: Accelerator = Field(description="What guests run with: kvm, or tcg, emulation")
    why: str = Field("", description="Why that one")
    cores: int = Field(ge=1, description="Cores of this machine")
    memory_mib: int = Field(ge=1, description="Memory of this machine, MiB")
    kvm_nested: bool = Field(
        True, description="Whether guests on KVM can run KVM guests of their own"
    )
    stands_in: tuple[str, ...] = Field(
        (),
        description="Kinds whose installed machines are stand-ins here, as in nestlab's own tests: they need "
        "no hardware virtualization. Nothing writes it by itself",
    )
    namespace: str | None = Field(
        None, description="Network namespace libvirt lives in; none where it is reached directly"
    )

    @classmethod
    def read(cls, root: Path) -> Self:
        """Return what ``make doctor`` wrote under the project's folder ``root``.

        Raises:
            SpecError: the file is missing or broken; the message names the command.
        """
        return _read(cls, root, "host.json", "make doctor")


class ImageFiles(_Facts):
    """Files of a golden image, absolute paths on this machine."""

    disk: str = Field(description="qcow2 image of the root file system")
    kernel: str = Field("", description="Linux kernel; empty: the disk boots by itself")
    initrd: str = Field("", description="Initial RAM disk; empty with the kernel")


class KernelArgument(_Facts):
    """One word of the kernel's command line, ``key=value`` or ``key``."""

    key: str = Field(description="Left of the equals sign")
    value: str = Field("", description="Right of it; empty: a word alone")


class GoldenImage(_Facts):
    """A golden image, and where it waits on the outer host.

    A nested KVM host boots its kernel directly. A nested Xen host has a boot loader on its disk: then
    ``kernel``, ``initrd`` and ``cmdline`` are empty.
    """

    version: Literal[1] = Field(description="Version of the file's shape")
    hash: str = Field(description="Hash of what the image was made from")
    pool: str = Field(description="libvirt pool that holds it")
    volume: str = Field(description="Its volume in that pool")
    kernel: str = Field("", description="The kernel, as the outer host sees it, or empty")
    initrd: str = Field("", description="The initial RAM disk, as the outer host sees it, or empty")
    files: ImageFiles = Field(description="The same on this machine")
    root_gib: int = Field(ge=1, description="Size of its root file system, GiB")
    cmdline: tuple[KernelArgument, ...] = Field((), description="The kernel's command line")

    @classmethod
    def read(cls, root: Path, variant: str = DEFAULT_IMAGE) -> Self:
        """Return what the making of ``variant`` wrote under the project's folder ``root``.

        Raises:
            SpecError: the file is missing or broken; the message names the command.
        """
        if variant == DEFAULT_IMAGE:
            return _read(cls, root, "golden.json", "make image")
        return _read(cls, root, f"golden-{variant}.json", f"python3 -m toolchain image {variant}")


def _read(model: type[_Known], root: Path, name: str, command: str) -> _Known:
    at = f"{FOLDER}/{name}"
    remedy = f"run `{command}`"
    try:
        data = json.loads((root / FOLDER / name).read_text())
    except FileNotFoundError:
        rule = f"`{command}` has not written it yet"
        raise SpecError([Problem(at, "no such file", rule, remedy)]) from None
    except (OSError, ValueError, RecursionError) as failed:
        rule = f"it can't be read ({type(failed).__name__})"
        raise SpecError([Problem(at, "a broken file", rule, remedy)]) from None
    try:
        return model.model_validate(data)
    except ValidationError as refused:
        problems = (Problem(p.path, p.found, p.rule, remedy) for p in explain(refused, model, at))
        raise SpecError(problems) from None


def resolve_accelerator(spec: LabSpec, facts: HostFacts | None) -> Accelerator:
    """Return what runs the first layer: what the stack says, else the doctor's verdict.

    A cluster has KVM, or whatever its maker's product is made of.

    Raises:
        SpecError: ``auto``, and the doctor has not seen the host.
    """
    chosen = spec.host.accelerates
    if chosen != "auto":
        return chosen  # also against the doctor: whoever says so is there to see
    at, given = "lab.host.accelerator", "'auto' given"
    if not spec.host.is_here:
        rule = f"the doctor knows this machine, and the lab's host is {spec.host.where!r}"
        raise SpecError([Problem(at, given, rule, "say kvm or tcg")])
    if facts is None:
        rule = "the doctor's verdict on this machine is not there"
        raise SpecError([Problem(at, given, rule, "run `make doctor`, or say kvm or tcg")])
    return facts.accelerator


def without_virtualization(
    spec: LabSpec, accelerator: Accelerator, facts: HostFacts | None
) -> list[str]:
    """Return what is to be said of machines that are shown no hardware virtualization, asked for or not."""
    flat = accelerator == "kvm" and facts is not None and not facts.kvm_nested
    found = []
    for place in places(spec):
        kind, nested = place.kind, getattr(place.spec, "nested", None)
        guests = [each.name for each in place.machines() if each.group != "containers"]
        if kind is None or not guests:
            continue
        if nested is False:
            found.append(
                f"{place.at}: nested is false, so what is in it is {kind.spares}: {listed(guests)}"
            )
        elif flat and place.depth == 1 and kind.spares == "emulated":
            why = "the outer host's KVM does not nest"
            found.append(f"{place.at}: {why}, so what is in it is {kind.spares}: {listed(guests)}")
    for machine in machines(spec):
        if machine.layer > 1 or not getattr(machine.spec, "nested", None):
            continue
        model = isinstance(machine.spec, HypervisorSpec) and KINDS[machine.spec.kind].hardware.cpu
        if flat:
            found.append(f"{machine.at}: nested is true, and the outer host's KVM does not nest")
        elif accelerator == "tcg" and model:
            found.append(
                f"{machine.at}: nested is true, and emulated it starts on a {model} alone, which shows none"
            )
    return found


def virtualization(
    spec: LabSpec, accelerator: Accelerator, facts: HostFacts | None
) -> list[Problem]:
    """Return a problem for each nested hypervisor that starts no guest on this outer host.

    Emulated processors show hardware virtualization that Linux' KVM and Xen live with, and installed
    products do not; KVM that does not nest shows none. A nested KVM host emulates its guests then.
    """
    if accelerator == "tcg":
        why = "emulates its guests' processors"
        remedy = "take a host with KVM (`make doctor` says what is missing here), or kind: kvm"
    elif facts is not None and not facts.kvm_nested:
        why = "has KVM that does not nest"
        remedy = "switch nesting on (`make doctor` says how), or take kind: kvm, whose guests are emulated"
    else:
        return []
    found = []
    for machine in machines(spec):
        if not isinstance(machine.spec, HypervisorSpec):
            continue
        kind = KINDS[machine.spec.kind]
        if not kind.virtualizes(machine.spec, accelerator) or (
            facts is not None and kind.name in facts.stands_in
        ):
            continue
        rule = f"{kind.title} starts no guest without hardware virtualization, and the outer host {why}"
        given = f"{machine.spec.kind!r} given"
        found.append(Problem(f"{machine.at}.kind", given, rule, remedy))
    return found
