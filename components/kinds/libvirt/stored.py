"""What a lab makes in a place's pool: each volume's name, what it is, and which machines have it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pulumi

    from components.kinds.libvirt.gates.pool import Volume


@dataclass
class Stored:
    """The volumes of one place, as the program comes to know them."""

    _volumes: dict[str, Volume] = field(default_factory=dict)
    _images: dict[str, pulumi.Output[str]] = field(default_factory=dict)
    _users: dict[str, list[str]] = field(default_factory=dict)

    def note(self, name: str, what: Volume, image: pulumi.Output[str] | None = None) -> str:
        """Note that the lab makes the volume ``name``, without which it would not be removed; return the name.

        ``image``: the file of one that is known later.
        """
        self._volumes[name] = what
        if image is not None:
            self._images[name] = image
        return name

    def users(self, medium: str, machine: str) -> list[str]:
        """Note that ``machine`` has ``medium``; return the list of all that will ever have it."""
        found = self._users.setdefault(medium, [])
        found.append(machine)
        return found

    def is_image(self, name: str) -> bool:
        """Whether disks are made from the volume ``name``."""
        return self._volumes[name].role == "image"

    async def names(self) -> list[str]:
        """Names of all volumes: this runs when the program has said all it wants."""
        return sorted(self._volumes)

    async def whole(self) -> dict[str, Volume]:
        """Return what all volumes are, by name; see `names`."""
        files = {name: await image.future() or "" for name, image in self._images.items()}
        return {
            name: replace(
                volume,
                machines=sorted(set(volume.machines)),
                source=files.get(name, volume.source),
            )
            for name, volume in self._volumes.items()
        }
