"""What the four components share: each is a piece of a lab, said by a program and made once the lab is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import pulumi

from components.contents import holder
from components.sheet import Entry

if TYPE_CHECKING:
    from components.contents import Args, Holder

MadeT = TypeVar("MadeT")


class Piece(pulumi.ComponentResource, Generic[MadeT]):
    """A component that is made `on` a lab, or on a nested hypervisor in one."""

    urn_type: ClassVar[str]
    """Its type, which states have."""
    group: ClassVar[str]
    """Where the stack file has its like."""

    def __init__(
        self,
        name: str,
        args: Args,
        opts: pulumi.ResourceOptions | None = None,
        *,
        on: Holder,
    ) -> None:
        """Ask for it as ``name`` of the place ``on``; ``args`` are the fields of its entry in a stack file.

        Raises:
            SpecError: it can't be in the lab, as far as that is known.
        """
        place = holder(on, f"{self.group}.{name}")
        self.said = place.say(self.group, name, args, self)
        self.key, self.logical, self.draft = name, place.logical(name), place.draft
        super().__init__(self.urn_type, self.logical, {}, place.options(opts))
        self.made: MadeT | None = None

    @property
    def up(self) -> MadeT:
        """What it is made of."""
        if self.made is None:
            raise RuntimeError(f"{self.logical} is not made yet")
        return self.made


class Machine(Piece[Entry]):
    """A piece that is a machine."""

    @property
    def address(self) -> pulumi.Output[str]:
        """Planned IPv4 address, dotted; empty where there is none."""
        return self.draft.later(lambda: self.up.made.address)

    @property
    def console(self) -> pulumi.Output[str]:
        """Its screen as a URI, or the command that gives a shell in it; known once it is up, empty without one."""
        return self.draft.later(lambda: self.up.made.console)

    def done(self, entry: Entry) -> Entry:
        """Take ``entry`` as what it is made of, and tell the engine."""
        self.made = entry
        self.register_outputs({"address": entry.made.address, "console": entry.made.console})
        return entry


class Screened(Machine):
    """A machine with a screen."""

    @property
    def password(self) -> pulumi.Output[str]:
        """Password of the screen, secret; empty for none."""
        return self.draft.later(lambda: self.up.made.password)
