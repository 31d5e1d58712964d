"""A guest's text console: its first serial port, which VMware serves on a Unix socket of its host.

Facts: the keys are those of VMware's own page "Virtual serial ports" (a named pipe, which is a Unix socket on
Linux) as GNS3's server writes them for Workstation on Linux (gns3server/compute/vmware/vmware_vm.py) and
connects to them; ``tryNoRxLoss`` is ``noRxLoss`` of VirtualSerialPortPipeBackingInfo, for programs at the
other end: what is typed is kept until the guest reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.reach import linux_host, vmx

if TYPE_CHECKING:
    from collections.abc import Sequence


def socket(store: str, called: str) -> str:
    """Return the path of a guest's socket: in its folder, where nobody but root gets."""
    return f"{store}/guests/{called}/serial"


def settings(store: str, called: str) -> dict[str, str]:
    """Return what the .vmx says of it."""
    port = vmx.serial_port("pipe", socket(store, called))
    return {**port, "serial0.pipe.endPoint": "server", "serial0.tryNoRxLoss": "TRUE"}


def impossible(store: str, called: str) -> str:
    """Say why it can't be served, empty where it can."""
    return linux_host.no_socket(socket(store, called))


def command(called: str, store: str, owner: str) -> Sequence[str]:
    """Return the command on its host that opens the console of the guest ``called``."""
    del owner
    return linux_host.terminal(socket(store, called))
