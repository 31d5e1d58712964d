"""What a command says over SSH arrives whole, whenever paramiko's thread takes it."""

from __future__ import annotations

import time

import paramiko
import pytest
from typing_extensions import override

from components.reach.shell import Result, _talk


class Sudden(paramiko.Channel):
    """A channel whose whole answer arrives in the moment after its output was found empty."""

    def __init__(self, at: str) -> None:
        super().__init__(0)
        self.at = at

    def _arrives(self) -> None:
        """Take what the other side sends, as `paramiko.Transport` hands it over, in a server's order."""
        said, warned = paramiko.Message(), paramiko.Message()
        said.add_string(b"uuid ( RO) : 1")
        warned.add_int(1)
        warned.add_string(b"warned")
        for message in (said, warned):
            message.rewind()
        self._feed(said)  # type: ignore[attr-defined]
        self._feed_extended(warned)  # type: ignore[attr-defined]
        self.exit_status = 0
        self.status_event.set()
        self._handle_eof(paramiko.Message())  # type: ignore[attr-defined]

    def _seen(self, what: str, found: bool) -> bool:
        if self.at == what:
            self.at = ""
            self._arrives()
        return found

    @override
    def recv_ready(self) -> bool:
        return self._seen("output", super().recv_ready())

    @override
    def recv_stderr_ready(self) -> bool:
        return self._seen("errors", super().recv_stderr_ready())

    @override
    def exit_status_ready(self) -> bool:
        return self._seen("end", super().exit_status_ready())

    @override
    def send(self, s: bytes | bytearray) -> int:
        return len(s)

    def _send_eof(self) -> None:
        return None


@pytest.mark.parametrize("at", ["output", "errors", "end"])
def test_what_comes_together_with_the_end_is_not_lost(at: str) -> None:
    told = _talk(Sudden(at), b"", time.monotonic() + 10, "xe")
    assert told == Result(0, "uuid ( RO) : 1", "warned")
