"""The gate of a guest's further disks: each keeps the place it was given, and is there before the provider is told.

The provider knows a disk by its place in a list. Of a place it has not seen it takes the volume of what stood at
that index before, another disk's (its resource/vm/disk, ``path_in_datastore``, kept by Terraform's SDK as it is
computed), but for one that is there already. So a disk more is plugged in here: on SCSI that is done while the guest
runs (qemu-server, ``vmconfig_update_disk``). Larger disks, and those that go, are the provider's; what it unplugs it
leaves as `unused[n]`, which the guest's gate removes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pulumi.dynamic import CheckResult
from typing_extensions import override

from components.gates.api import is_ours
from components.gates.base import BorderResource, Moves
from components.kinds.proxmox.api import Pve, PveError
from components.kinds.proxmox.gates.base import OnNode, PveGate
from components.kinds.proxmox.gates.guest import Config, is_half_made, option
from components.kinds.proxmox.gates.slot import config_path, label_of, path_of
from components.reach.driver import shrinks
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pulumi

    from components.gates.base import Props

PLACES = range(2, 31)
"""Places on SCSI for further disks: before them are the system disk and the seed; the last is scsi30 (qm.conf(5))."""
OPTIONS = "aio=io_uring,backup=1,cache=none,discard=ignore,iothread=0,replicate=1,ssd=0"
"""What the provider gives a disk that it makes; of another one it would start the guest anew."""
PLUG_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Disks(OnNode):
    """Properties of a guest's further disks."""

    kind: str = "qemu"
    vmid: Moves[int]
    owner: str
    called: str
    """The guest, as people know it."""
    storage: str
    """Where disks are made."""
    disks: dict[str, int]
    """GiB by name, which is the serial number that the guest sees."""
    places: dict[str, str] = field(default_factory=dict)
    """The drive of each, such as scsi2: given by the provider, known in a preview too."""


class PveDisksProvider(PveGate[Disks]):
    """Gives each disk a place for good, and plugs in what is lacking."""

    shape = Disks

    @override
    def check(self, _olds: Props, news: Props) -> CheckResult:
        checked = super().check(_olds, news)
        had = self.stored(_olds).places if _olds else {}
        given = placed(had, self.given(news).disks)
        return CheckResult({**checked.inputs, "places": given}, checked.failures)

    @override
    def forbidden(self, olds: Disks, news: Disks) -> Iterable[tuple[str, str]]:
        for name, gib in news.disks.items():
            if gib < olds.disks.get(name, 0):
                yield "disks", shrinks(news.called, name, olds.disks[name], gib)

    @override
    def seen(self, pve: Pve, props: Disks) -> Seen:
        for name in _lacking(_config(pve, props), props):
            text = f"{label_of(props)} has no disk {name} any more, and what was on it is lost"
            return Seen(ok=False, text=text)
        return Seen(ok=True, text=f"{label_of(props)} has its further disks")

    @override
    def mend(self, olds: Disks | None, news: Disks) -> Disks:
        pve = Pve(news.api)
        config = _config(pve, news)
        for name in _lacking(config, news):
            place = news.places[name]
            if place in config:
                raise PveError(
                    f"{label_of(news)} has a disk at {place} that is not the lab's: unplug it in "
                    f"its web interface; it stays there as an unused disk"
                )
            words = f"{news.storage}:{news.disks[name]},{OPTIONS},serial={name}"
            pve.wait(news.node, pve.post(f"{path_of(news)}/config", **{place: words}), PLUG_S)
            say(f"{news.name}: disk {name} is at {place}")
        return news


def placed(had: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the place of each disk: what it ``had``, or the next that none had, one that goes now included."""
    free = (place for place in (f"scsi{number}" for number in PLACES) if place not in had.values())
    return {name: had.get(name) or next(free) for name in sorted(names)}


def _config(pve: Pve, props: Disks) -> Config:
    """Return what the guest is set to; nothing where it is to be made, or made again, as a whole."""
    config: Config = pve.find(config_path(props)) or {}
    mine = is_ours(str(config.get("description")), props.owner)
    return config if mine and not is_half_made(config) else {}


def _lacking(config: Config, props: Disks) -> list[str]:
    """Return the names of the disks that are not at their places.

    None of a guest that is still to be made, without ``config``: the provider makes them.
    """
    if not config:
        return []
    return [
        name
        for name, place in props.places.items()
        if option(str(config.get(place, "")), "serial") != name
    ]


class PveDisks(BorderResource, module="nestlab", name="PveDisks"):
    """The further disks of a guest on a node."""

    places: pulumi.Output[dict[str, str]]
    """The drive of each by name, such as scsi2."""

    def __init__(self, name: str, props: Disks, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(PveDisksProvider(), name, props, opts)
