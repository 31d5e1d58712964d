"""A guest's text console: what its first serial port says, which ESXi writes to a file in its folder.

It is read and not typed into. vSphere's manual ("Using Serial Ports with vSphere Virtual Machines") has four
ways: a file; a port of the host's own; a named pipe to another program on the host, for which ESXi's shell has
no terminal that VMware documents; and the network, which wants the host's firewall opened ("VM serial port
connected over network") to a port that asks nobody who they are. ESXi asks at power-on what to do with a file
that is there (libvirt, src/esx/README): it begins anew, so that no guest fills the datastore over the years.
The answer is given as VMware's own vic gives it (lib/install/management/appliance.go).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.reach import vmx

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = "console.log"


def file(store: str, called: str) -> str:
    """Return the path of what a guest's serial port said since the guest was last switched on."""
    return f"{store}/guests/{called}/{FILE}"


def settings(store: str, called: str) -> dict[str, str]:
    """Return what the .vmx says of it."""
    port = vmx.serial_port("file", file(store, called))
    return {**port, "answer.msg.serial.file.open": "Replace"}


def command(called: str, store: str, owner: str) -> Sequence[str]:
    """Return the command on its host that shows what the guest ``called`` said, and says from now on."""
    del owner
    return ["tail", "-n", "+1", "-f", file(store, called)]
