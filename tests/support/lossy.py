"""A socket in front of libvirt's that loses one answer: libvirt has done what it was told, and nobody hears.

That is what a libvirtd which restarts in the middle of a call leaves, at a chosen call instead of by
chance. Messages are libvirt's own remote protocol (docs/kbase/internals/rpc.rst, "wire format";
src/remote/remote_protocol.x for the numbers).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOCKET = "/run/libvirt/libvirt-sock"
CALLS = {
    "domain start": 9,
    "domain define": 11,
    "network start": 39,
    "network define": 41,
    "network undefine": 49,
    "pool define": 77,
    "pool start": 78,
    "pool build": 79,
    "pool delete": 81,
    "pool undefine": 82,
    "volume create": 93,
    "volume delete": 94,
    "volume upload": 208,
    "domain undefine": 231,
}
"""REMOTE_PROC_DOMAIN_CREATE and so on, by what they do."""
PROGRAM = 0x20008086
"""REMOTE_PROGRAM."""
HEADER = struct.Struct(">6I")
"""Program, version, procedure, type, serial, status; before them a message's length, which counts itself."""
CALL, REPLY = 0, 1


class Lossy:
    """Passes on what is said to libvirt at ``path``, until the answer to the ``skip``-th next call is lost."""

    def __init__(self, path: Path, call: str, skip: int = 0) -> None:
        self.path, self._left, self._lost_call = path, skip, CALLS[call]
        self.lost = threading.Event()
        self._asked: tuple[frozenset[socket.socket], int] | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listening = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self._listening.bind(str(self.path))
        self.path.chmod(0o666)
        self._listening.listen(64)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake who waits for a caller.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._hang_up()
        for thread in self._threads:
            thread.join(5)
        for end in (self._listening, *(end for pair in self._pairs for end in pair)):
            end.close()
        self.path.unlink()

    def _start(self, work: Callable[..., None], *words: socket.socket) -> None:
        thread = threading.Thread(target=work, args=words, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(SOCKET)
                with self._lock:
                    self._pairs.append((client, server))
                for ends in ((client, server), (server, client)):
                    self._start(self._pump, *ends)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while message := _message(source):
                if self._loses(frozenset({source, sink}), message):
                    self.lost.set()
                    self._hang_up()
                    return
                sink.sendall(message)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _loses(self, pair: frozenset[socket.socket], message: bytes) -> bool:
        """Whether ``message`` is the answer that gets lost; the call that it answers is noted."""
        program, _, procedure, kind, serial, status = HEADER.unpack_from(message, 4)
        if program != PROGRAM or procedure != self._lost_call or self.lost.is_set():
            return False
        with self._lock:
            if kind == CALL:
                self._left -= 1
                if self._left == -1:
                    self._asked = pair, serial
            return kind == REPLY and self._asked == (pair, serial) and not status

    def _hang_up(self) -> None:
        """End all connections, as the end of libvirtd does; who connects anew is served."""
        with self._lock:
            pairs = list(self._pairs)
        for end in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _message(source: socket.socket) -> bytes:
    """Return the next whole message; empty at the end."""
    head = _exactly(source, 4)
    if not head:
        return b""
    return head + _exactly(source, int.from_bytes(head) - 4)


def _exactly(source: socket.socket, count: int) -> bytes:
    told = b""
    while len(told) < count:
        more = source.recv(count - len(told))
        if not more:
            return b""
        told += more
    return told
