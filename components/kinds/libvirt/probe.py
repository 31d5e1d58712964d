"""A nested libvirt answers over SSH, as the machine whose host key was planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import ssh
from components.kinds.libvirt.census import foresee
from components.kinds.libvirt.virsh import Virsh, VirshError
from components.reach.shell import fresh_shell, shell_of
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from components.gates.probes import Asked, Place

INNER = "qemu:///system"
"""A nested libvirt's URI, seen from its own host."""


def probe(asked: Asked, place: Place) -> Seen:
    """See `components.gates.probes.probe`."""
    ssh.forward(asked, place)
    inner = Virsh(fresh_shell(asked.reach), INNER)
    try:
        version = inner.must("version", timeout_s=30)
    except VirshError as not_yet:
        return Seen(ok=False, text=str(not_yet))
    lines = [line for line in version.splitlines() if line.startswith("Running")]
    return Seen(ok=True, text=lines[0] if lines else "libvirt answers")


def glance(asked: Asked, place: Place) -> Seen:
    """See `components.gates.probes.glance`."""
    seen = ssh.glance(asked, place)
    if seen.ok:
        # The gates inside ask next, while the engine's own connection is being made.
        foresee(Virsh(shell_of(asked.reach), INNER))
    return seen
