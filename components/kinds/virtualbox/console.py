"""A guest's text console: its first serial port, which VirtualBox serves on a Unix socket of its host.

Facts: VBoxManage(1), modifyvm; what ``showvminfo`` prints of it (VBoxManageInfo.cpp); DrvNamedPipe.cpp,
which makes the socket when the guest starts, and cuts its path off without a word where it is too long. One
at a time gets in.

Somebody has to be there all the time. On Linux it waits for a reader for ever (``drvNamedPipePoll``, DrvChar.cpp
``drvCharIoLoop``), and until then the port tells the guest that it is busy (UartCore.cpp, THRE): Linux waits 10 ms
for each piece that it says on ``console=ttyS0``, and what writes to /dev/console stands still, as known of cloud
images whose port leads nowhere (hashicorp/vagrant 10578, "just extremely slowly"). So a service of the host reads,
and throws away, while nobody has opened the console.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from components.kinds.virtualbox import vboxmanage
from components.reach import linux_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PORT = ("0x3F8", "4")
"""Base address and interrupt of COM1, which Linux calls ttyS0."""
SHOWN = "0x03f8,4"

READER = "nestlab-virtualbox-serial"
TEXT = """\
[Unit]
Description=Reader of the serial port of VirtualBox guest %i of nestlab
# It tries for as long as the guest is off.
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/socat -u UNIX-CONNECT:{store}/guests/%i/serial/port OPEN:/dev/null
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""
# The pause: VirtualBox lets the next one in only once it has seen that the last one went.
OPEN = """\
trap 'systemctl start "$1"' EXIT
trap 'exit 1' HUP INT TERM
systemctl stop "$1"
sleep 0.5
"""


def reader(store: str) -> linux_host.Unit:
    """Return the unit that reads what guests say while nobody else does."""
    return linux_host.Unit(READER, TEXT.format(store=store), vboxmanage.CAUSES, now=True)


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
    if set(path) & set(" %,:!'"):
        return f"the path {path!r} holds a letter that systemd or socat reads as more than itself"
    return ""


def command(called: str, store: str, owner: str) -> Sequence[str]:
    """Return the command on its host that opens the console of the guest ``owner``, in place of the reader."""
    del called
    terminal = shlex.join(linux_host.terminal(socket(store, owner)))
    return ["sh", "-c", f"{OPEN}{terminal}", "console", reader(store).of(owner)]
