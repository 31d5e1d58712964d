"""A guest's text console: its first serial port, which VirtualBox serves on a Unix socket of its host.

Facts: VBoxManage(1), modifyvm; what ``showvminfo`` prints of it (VBoxManageInfo.cpp); DrvNamedPipe.cpp,
which makes the socket when the guest starts, cuts its path off without a word where it is too long, and
drops what the guest says while nobody is there. One at a time gets in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.reach import linux_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PORT = ("0x3F8", "4")
"""Base address and interrupt of COM1, which Linux calls ttyS0."""
SHOWN = "0x03f8,4"


def folder(store: str, owner: str) -> str:
    """Return where the socket lies: nobody but root gets into it."""
    return f"{store}/guests/{owner}/serial"


def socket(store: str, owner: str) -> str:
    """Return the path of the socket of the guest ``owner``."""
    return f"{folder(store, owner)}/port"


def settings(store: str, owner: str) -> Iterator[tuple[str, Sequence[str], str]]:
    """Yield what makes it: showvminfo's key, the words of modifyvm's option, and how that is shown."""
    path = socket(store, owner)
    yield "uart1", PORT, SHOWN
    yield "uartmode1", ("server", path), f"server,{path}"


def impossible(store: str, owner: str) -> str:
    """Say why it can't be served, empty where it can."""
    path = socket(store, owner)
    if wrong := linux_host.no_socket(path):
        return wrong
    # Texts have them escaped in what showvminfo prints, this one has not.
    if '"' in path or "\\" in path:
        return f"the path {path!r} holds a quote or a backslash: VBoxManage would show it cut off"
    return ""


def command(called: str, store: str, owner: str) -> Sequence[str]:
    """Return the command on its host that opens the console of the guest ``owner``."""
    del called
    return linux_host.terminal(socket(store, owner))
