"""The SSH connections of one place that threads share, so many sessions on each, and how one is cut off.

A connection that failed somebody takes nothing new, and lives until the last who use it have left it:
what is wrong with one command says little of another one's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import paramiko

T = TypeVar("T")
SESSIONS = 8
"""How many sessions share one connection. OpenSSH's server takes ten (sshd_config(5), MaxSessions), and
counts one until its command has really ended."""
LAST_S = 2.0
"""How long a goodbye may take before its connection is cut, seconds."""

TURNED_AWAY_S = 3.0
"""How long whoever is turned away comes again, seconds: others log in meanwhile."""
PAUSE_S = 0.2
"""Before that, seconds."""
NO_GREETING = "Error reading SSH protocol banner"
"""What paramiko says where a server hangs up before it has said what it is."""


class Connections:
    """Those of one place, for all threads."""

    def __init__(self) -> None:
        self._held: list[paramiko.Transport] = []
        self._users: Counter[paramiko.Transport] = Counter()
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        """Of whoever opens one; nobody who leaves waits for that."""

    def take(
        self, patience: float, fresh: Callable[[], tuple[paramiko.Transport, T]]
    ) -> tuple[paramiko.Transport, tuple[T] | None]:
        """Return one that has room, which is to be left again; with what ``fresh`` began on it, if it is new.

        Others wait for a new one ``patience`` seconds at most, as it would be theirs, too.

        Raises:
            TimeoutError: the one whom this one waits for got no answer.
            Exception: what ``fresh`` raises, where a new one is wanted.
        """
        if kept := self._roomy():
            return kept, None
        if not self._opening.acquire(timeout=patience):
            raise TimeoutError
        try:
            if kept := self._roomy():
                return kept, None
            made, begun = fresh()
            with self._lock:
                self._held.append(made)
                self._users[made] += 1
            return made, (begun,)
        finally:
            self._opening.release()

    def _roomy(self) -> paramiko.Transport | None:
        with self._lock:
            self._held = [each for each in self._held if each.is_active()]
            link = next((each for each in self._held if self._users[each] < SESSIONS), None)
            if link:
                self._users[link] += 1
            return link

    def leave(self, link: paramiko.Transport) -> None:
        """End a use of ``link``: one is kept for the next, and no more."""
        with self._lock:
            self._users[link] -= 1
            if self._users[link]:
                return
            del self._users[link]
            if len(self._held) > 1 and link in self._held:
                self._held.remove(link)
            if link not in self._held:
                link.close()

    def give_up(self, link: paramiko.Transport) -> None:
        """Have nothing new on ``link``."""
        with self._lock:
            if link in self._held:
                self._held.remove(link)

    def close(self) -> None:
        """Give all of them up."""
        with self._lock:
            held, self._held = self._held, []
            for link in held:
                if not self._users[link]:
                    link.close()


def let_in(connect: Callable[[], paramiko.Transport]) -> paramiko.Transport:
    """Return what ``connect`` makes, tried again for a moment where the server hangs up before its greeting.

    OpenSSH's does so by chance to who comes while ten others log in (sshd_config(5), "MaxStartups"). Nothing was
    sent by then.
    """
    import paramiko  # noqa: PLC0415 - see `components.reach.shell`

    until = time.monotonic() + TURNED_AWAY_S
    while True:
        try:
            return connect()
        except paramiko.SSHException as away:
            if NO_GREETING not in str(away) or time.monotonic() > until:
                raise
        time.sleep(PAUSE_S)


@contextlib.contextmanager
def cut_after(
    link: paramiko.Transport, channel: paramiko.Channel, seconds: float, what: str
) -> Iterator[None]:
    """Close ``channel`` after ``seconds``: paramiko waits for ever for the answer to a request.

    Where even the goodbye finds no way, ``link`` goes, and so does what others do on it.
    """
    import paramiko  # noqa: PLC0415

    late = threading.Event()

    def cut() -> None:
        late.set()
        with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
            channel.close()

    guards = threading.Timer(seconds, cut), threading.Timer(seconds + LAST_S, link.close)
    for guard in guards:
        guard.daemon = True
        guard.start()
    try:
        yield
    except (paramiko.SSHException, EOFError, OSError, Refused):
        if late.is_set():
            raise TimeoutError(f"{what} did not end in time") from None
        raise
    finally:
        for guard in guards:
            guard.cancel()


def end_input(channel: paramiko.Channel) -> None:
    """Say that there is no more input, unless the other side has said goodbye.

    paramiko's own ``shutdown_write`` may send it after its thread has answered that goodbye. OpenSSH's
    server then hangs up on the whole connection ("ieof packet referred to nonexistent channel"), and every
    other command on it is cut. So both are said under the lock that the thread answers under.
    """
    with channel.lock:
        if not channel.closed and (message := channel._send_eof()) is not None:  # type: ignore[attr-defined]  # noqa: SLF001
            channel.get_transport()._send_user_message(message)  # type: ignore[attr-defined]  # noqa: SLF001
