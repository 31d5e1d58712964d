"""A whole lab: the outer host as a place, and all that is put on it.

`Lab` is what any Pulumi program makes, and puts components on. `deploy` is what the program of a stack
file calls once `components.settings.load` has accepted it. Both come to `_build`, in which nothing is
read or probed: facts about the machine come in as arguments.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi

from components import kinds as hypervisors
from components.checkout import Where, checkout_of, keys_of, outline, survey
from components.contents import Contents, Draft, RefusedLab, plain
from components.findings import GoldenImage
from components.gates.identity import Identity, Whose
from components.gates.kept import Kept
from components.gates.secrets import SshKey
from components.nested_hypervisor_lab import fill
from components.place.contract import Lab as Common
from components.place.contract import pool_of
from components.reach.shell import LOCAL
from components.settings import host_password
from components.sheet import logins, passwords, sheet
from components.stackfile import SpecError
from components.stackfile import plan as planned
from components.stackfile.allow import Allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from components.contents import Args, Holder
    from components.findings import Accelerator
    from components.sheet import Entry
    from components.stackfile import LabSpec
    from components.stackfile.problems import Problem


class _Outer(pulumi.ComponentResource):
    """The part of a stack file's lab on the outer host that is not one of its machines: pool, keys, identity."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("nestlab:index:OuterHost", name, {}, opts)
        self.holds = Contents(Draft({}, lambda _: [], making=True), {}, "lab", "", self)
        self.register_outputs({})


@dataclass(frozen=True)
class _Built:
    """A lab whose resources are asked for."""

    entries: Sequence[Entry]
    key: SshKey


def _build(
    spec: LabSpec,
    owner: pulumi.Resource,
    on: Holder,
    *,
    root: Path,
    private: Path,
    accelerator: Accelerator,
    cores: int,
    golden: Mapping[str, GoldenImage],
    nests: bool = True,
    home: Path | None = None,
    password: pulumi.Output[str] | None = None,
    outputs: Mapping[str, pulumi.Output[Any]] | None = None,
    clears: bool = False,
) -> _Built:
    """Ask for all resources of the lab ``spec``; see `deploy`. ``owner`` has what is none of its machines."""
    child = pulumi.ResourceOptions(parent=owner)
    prefix = on.holds.prefix
    plan = planned(spec)
    lab = Common(
        spec=spec,
        plan=plan,
        root=root,
        private=private,
        accelerator=accelerator,
        nests=nests,
        golden={
            variant: Kept(
                f"{prefix}golden-{variant}", image.model_dump(mode="json"), opts=child
            ).made_with.apply(GoldenImage.model_validate)
            for variant, image in golden.items()
        },
        identity=Identity(
            f"{prefix}identity",
            Whose(
                target=LOCAL,
                # On a cluster each number is swept by the resource that keeps it.
                kind=spec.host.kind,
                uri=spec.host.swept,
                lab=spec.name,
                private=str(private),
                pool=pool_of(spec.name) if plan.pool_path else "",
                folders=plan.pool_path,
            ),
            child,
        ),
        key=SshKey(f"{prefix}key", opts=child),
        prefix=prefix,
        home=home,
        outputs=outputs or {},
        clears=clears,
    )
    place = hypervisors.outer(spec.host.kind)(lab, owner=owner, cores=cores, password=password)
    return _Built(fill(place, spec, on=on), lab.key)


def deploy(
    spec: LabSpec,
    *,
    root: Path,
    private: Path,
    accelerator: Accelerator,
    cores: int,
    golden: Mapping[str, GoldenImage],
    nests: bool = True,
    home: Path | None = None,
    password: pulumi.Output[str] | None = None,
) -> dict[str, pulumi.Output[Any]]:
    """Make the lab ``spec`` and return the stack's outputs.

    ``private`` is a folder for files of this lab that nobody else may read, ``cores`` the number of
    cores of the outer host, ``nests`` says whether its KVM does, ``home`` is the checkout with what the
    set-up made (default: ``root``), ``password`` is what a remote host is entered with, a secret.
    The outputs are ``sheet``, and as secrets ``passwords``, ``logins`` and ``key``; see `components.sheet`.
    """
    owner = _Outer("host")
    built = _build(
        spec,
        owner,
        owner,
        root=root,
        private=private,
        accelerator=accelerator,
        cores=cores,
        golden=golden,
        nests=nests,
        home=home,
        password=password,
    )
    owner.holds.draft.done()
    return {
        "sheet": sheet(built.entries),
        "passwords": passwords(built.entries),
        "logins": logins(built.entries),
        "key": built.key.private,
    }


class Lab(pulumi.ComponentResource):
    """A lab in any Pulumi program: an outer host, and what is made `on` it.

    It creates what its machines share: the pool for their disks, the lab's key, its identity. It is
    checked whenever something is made on it, and made once the program waits for something or ends.
    It leaves out preparing the machine: a checkout of nestlab does that (`make toolchain host doctor
    image`), and is named by ``checkout`` or by ``NESTLAB_ROOT``, which ``.nestlab/env.sh`` sets.
    """

    holds: Contents
    """What is in it, for others that are made `on` it."""

    def __init__(
        self,
        name: str,
        args: Args | None = None,
        opts: pulumi.ResourceOptions | None = None,
        *,
        checkout: str | os.PathLike[str] | None = None,
        password: pulumi.Input[str] | None = None,
    ) -> None:
        """Begin the lab ``name``; ``args`` are `LabSpec`'s fields, of which ``name`` may be left out.

        ``checkout`` is the folder of the checkout that set this machine up, ``password`` what a remote
        outer host is entered with: by default the secret ``nestlab:hostPassword`` of the stack.

        Raises:
            SpecError: it can't be made, as far as that is known.
        """
        outputs: dict[str, pulumi.Output[Any]] = {}
        data = {"name": name, **plain(args or {}, "lab", outputs)}
        home = checkout_of(checkout)
        keys = f"{pulumi.get_project()}~{pulumi.get_stack()}~{data['name']}"
        preview = pulumi.runtime.is_dry_run()
        root, private = Path.cwd(), keys_of(home) / keys
        self._where = Where(root, home, private, pulumi.get_stack(), preview)
        self._allowed = _told(lambda: Allowed.read(root, os.environ))
        self._password = (
            host_password(pulumi.Config("nestlab"))
            if password is None
            else pulumi.Output.secret(password)
        )
        draft = Draft(data, self._so_far, outputs)
        draft.check()
        super().__init__("nestlab:index:Lab", name, {}, opts)
        self.holds = Contents(draft, data, "lab", f"{name}-", self)
        self._built: _Built | None = None
        # Runs when the program waits for the first time, or has ended.
        self._whole: pulumi.Output[bool] = pulumi.Output.from_input(self._when_said())

    @property
    def sheet(self) -> pulumi.Output[list[dict[str, Any]]]:
        """Its machines and how to get in, as plain data without secrets; see `components.sheet.sheet`."""
        return self.holds.draft.later(lambda: sheet(self._made.entries))

    def _by_name(
        self, get: Callable[[], dict[str, pulumi.Input[str]]]
    ) -> pulumi.Output[dict[str, str]]:
        # Told by name, each is as known as it is by itself.
        return self.holds.draft.later(lambda: pulumi.Output.all(**get()).apply(dict))

    @property
    def addresses(self) -> pulumi.Output[dict[str, str]]:
        """Planned IPv4 address of each machine that has one, by its name."""
        return self._by_name(
            lambda: {
                each.plan.name: each.made.address
                for each in self._made.entries
                if each.plan.address
            }
        )

    @property
    def consoles(self) -> pulumi.Output[dict[str, str]]:
        """How to see each machine's screen or get a shell, by its name; known once it is up."""
        return self._by_name(
            lambda: {one.plan.name: one.made.console for one in self._made.entries}
        )

    @property
    def passwords(self) -> pulumi.Output[dict[str, str]]:
        """Passwords of the screens by machine, a secret."""
        return self.holds.draft.later(lambda: passwords(self._made.entries))

    @property
    def logins(self) -> pulumi.Output[dict[str, str]]:
        """Passwords of the users that the sheet names, by machine, a secret."""
        return self.holds.draft.later(lambda: logins(self._made.entries))

    @property
    def key(self) -> pulumi.Output[str]:
        """Private key that opens every nested hypervisor of the lab, in OpenSSH's format, a secret."""
        return self.holds.draft.later(lambda: self._made.key.private)

    @property
    def _made(self) -> _Built:
        if self._built is None:
            raise RuntimeError("the lab is not made yet")
        return self._built

    def _so_far(self, data: object) -> list[Problem]:
        return outline(data, self._where, self._allowed).problems

    async def _when_said(self) -> bool:
        if self.holds.draft.open and not self.holds.draft.held:
            self.make()
        return True

    def make(self) -> None:
        """Make the lab now: nothing more will be asked for. It is made anyway once the program waits or ends.

        Raises:
            SpecError: it, or what the set-up found of this machine, is wrong; nothing of it is made then.
        """
        draft = self.holds.draft
        try:
            spec, facts = self._accepted(draft.data)
            draft.making = True
            self._built = _build(spec, self, self, outputs=draft.outputs, clears=True, **facts)
        except Exception as error:
            draft.fail(error)
            raise
        self.register_outputs({})
        draft.done()

    def _accepted(self, data: object) -> tuple[LabSpec, dict[str, Any]]:
        found = survey(data, self._where, self._allowed, self._password)
        if found.problems or found.spec is None:
            raise RefusedLab(found.problems)
        found.warn()
        return found.spec, found.facts


def _told(read: Any) -> Any:
    try:
        return read()
    except SpecError as wrong:
        raise RefusedLab(wrong.problems) from None
