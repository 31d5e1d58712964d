"""A nested libvirt answers over SSH, as the machine whose host key was planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import ssh
from components.remote.census import foresee
from components.remote.shell import fresh_shell, shell_of
from components.remote.virsh import Virsh, VirshError
from components.remote.waiting import Seen

if TYPE_CHECKING:
    from components.gates.probes import Place, Props

INNER = "qemu:///system"
"""A nested libvirt's URI, seen from its own host."""


def probe(props: Props, place: Place) -> Seen:
    """See `components.gates.probes.probe`."""
    ssh.forward(props, place)
    inner = Virsh(fresh_shell(props["reach"]), INNER)
    try:
        version = inner.must("version", timeout_s=30)
    except VirshError as not_yet:
        return Seen(ok=False, text=str(not_yet))
    lines = [line for line in version.splitlines() if line.startswith("Running")]
    return Seen(ok=True, text=lines[0] if lines else "libvirt answers")


def glance(props: Props, place: Place) -> Seen:
    """See `components.gates.probes.glance`."""
    seen = ssh.glance(props, place)
    if seen.ok:
        # The gates inside ask next, while the engine's own connection is being made.
        foresee(Virsh(shell_of(props["reach"]), INNER))
    return seen
