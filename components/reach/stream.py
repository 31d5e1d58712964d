"""A connection through a host's SSH server to a machine that only the host can reach."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paramiko

CONNECT_S = 5.0
"""A machine that is there answers within this, seconds; under emulation too."""


class Stream:
    """What paramiko wants of a socket, of a channel through a host; closed, it lets the host's session go."""

    def __init__(self, channel: paramiko.Channel, held: contextlib.ExitStack) -> None:
        self._channel, self._held = channel, held
        self._turn = threading.Lock()
        self.settimeout = channel.settimeout
        self.recv = channel.recv

    @property
    def _closed(self) -> bool:
        """What paramiko asks of a socket while its thread ends."""
        return bool(self._channel.closed)

    def send(self, data: bytes) -> int:
        """Send what there is room for; see `socket.socket.send`."""
        with self._turn:
            return self._channel.send(data)

    def close(self) -> None:
        """End it; not while somebody sends, as OpenSSH hangs up on who sends after a goodbye."""
        import paramiko  # noqa: PLC0415 - see components.reach.shell

        # The host may be gone, and takes no goodbye.
        with contextlib.suppress(EOFError, OSError, paramiko.SSHException), self._turn:
            self._channel.close()
        self._held.close()


def opened(
    host: str, port: int, link: paramiko.Transport, _patience: float
) -> paramiko.Channel | None:
    """Return a channel to ``host``:``port`` as seen from the other end of ``link``; None: nothing answers."""
    import paramiko  # noqa: PLC0415 - see components.reach.shell

    try:
        return link.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=CONNECT_S)
    except paramiko.ChannelException:
        return None
    except paramiko.SSHException:
        if link.is_active():
            return None  # the place is there, and what was asked for answers nothing at all
        raise
