"""Files sent to a machine: whole or not at all under the name they are to have, and never in memory.

A file grows beside its place under one fixed name, so that what a cut connection left of a medium of
gigabytes is written over by the next try and does not pile up. It leaves out resuming in the middle
(nobody could tell whether the first half is of the same file) and making folders.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from components.reach import waiting
from components.reach.interrupt import CANCELLED
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    import paramiko

    Source = Path | bytes
    Guard = Callable[[], AbstractContextManager[None]]

BLOCK = 1 << 20
"""What is sent before the next look at the clock, bytes."""
MIB = 1 << 20
PART = ".nestlab-part"
"""End of the name under which a file grows."""


class PutError(Refused):
    """The machine is there and does not take the file; the message says which, and why."""


def refused(where: str, to: str, why: OSError) -> PutError:
    """Put into words why ``to`` was not taken."""
    text = why.strerror or str(why) or type(why).__name__
    if isinstance(why, FileNotFoundError):
        text = "its folder is not there"
    elif text == "Failure":  # all that SFTP has for a disk without space, and for anything rare
        text = 'the machine says "Failure" and no more: see whether its disk is full'
    return PutError(f"{where}: {to} can't be written: {text[:1].lower()}{text[1:]}")


def save(source: Source, to: str, mode: int, where: str) -> None:
    """Write ``source`` to the file ``to`` of this machine."""
    part = Path(f"{to}{PART}")
    try:
        with contextlib.closing(_blocks(source, to, where)) as blocks, _fresh(part, mode) as handle:
            for block in blocks:
                handle.write(block)
        part.replace(to)
    except BaseException as why:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(why, OSError):
            raise refused(where, to, why) from None
        raise


def send(
    channel: paramiko.Channel, source: Source, to: str, *, mode: int, where: str, guard: Guard
) -> None:
    """Write ``source`` to the file ``to`` over a new channel; ``guard`` limits each step's time.

    Raises:
        PutError: the machine refused.
        OSError, EOFError, paramiko.SSHException, paramiko.SFTPError: the channel broke.
    """
    import paramiko  # noqa: PLC0415 - see components.reach.shell

    part = f"{to}{PART}"
    with guard():
        sftp = _begin(channel, where)
    try:
        with contextlib.closing(_blocks(source, to, where)) as blocks:
            _fill(sftp, part, mode, blocks, guard)
        with guard():
            _rename(sftp, part, to)
    except TimeoutError:
        # What hangs would hang again: nothing is cleared away.
        raise TimeoutError(f"nothing of {to} was taken for {channel.gettimeout():g} s") from None
    except BaseException as why:
        broken = OSError, EOFError, paramiko.SSHException
        # The end of what the other side says is known before its channel counts as closed.
        if isinstance(why, EOFError) or (channel.closed and isinstance(why, broken)):
            raise EOFError(f"the connection was cut while {to} was sent") from None
        with contextlib.suppress(*broken), guard():
            sftp.remove(part)
        if isinstance(why, OSError):
            raise refused(where, to, why) from None
        raise


def _begin(channel: paramiko.Channel, where: str) -> paramiko.SFTPClient:
    import paramiko  # noqa: PLC0415

    try:
        channel.invoke_subsystem("sftp")
    except paramiko.SSHException:
        if channel.get_transport().is_active():
            raise PutError(f"{where} takes no files: its SSH server offers no SFTP") from None
        raise
    try:
        return paramiko.SFTPClient(channel)
    except (paramiko.SSHException, EOFError):
        if channel.get_transport().is_active():
            raise PutError(f"{where} takes no files: its SFTP server ends at once") from None
        raise


def _fill(
    sftp: paramiko.SFTPClient,
    part: str,
    mode: int,
    blocks: Generator[bytes, None, None],
    guard: Guard,
) -> None:
    sent = 0
    with _opened(sftp, part, guard) as handle:
        # Before the content, which may be secret. Windows has no such bits: /C:/folder/file.
        if not re.match(r"/[A-Za-z]:", part):
            with guard():
                handle.chmod(mode)
        for block in blocks:
            with guard():
                # Many packets on their way at once; the last waits for what became of them all.
                handle.set_pipelined(pipelined=True)
                handle.write(block[:-1])
                handle.set_pipelined(pipelined=False)
                handle.write(block[-1:])
            sent += len(block)
    with guard():
        arrived = sftp.stat(part).st_size
    if arrived != sent:
        raise OSError(f"{arrived} of {sent} bytes arrived")


@contextlib.contextmanager
def _opened(
    sftp: paramiko.SFTPClient, part: str, guard: Guard
) -> Generator[paramiko.SFTPFile, None, None]:
    with guard():
        handle = sftp.open(part, "wb")
    try:
        yield handle
    except TimeoutError:
        raise  # closing would wait for an answer too
    except BaseException:
        with contextlib.suppress(Exception), guard():
            handle.close()  # Windows removes no file that is open
        raise
    with guard():
        handle.close()


def _rename(sftp: paramiko.SFTPClient, part: str, to: str) -> None:
    try:
        sftp.posix_rename(part, to)
    except OSError as why:
        # Windows: SFTP itself knows no renaming onto a file that is there.
        if "unsupported" not in str(why).lower():
            raise
        with contextlib.suppress(FileNotFoundError):
            sftp.remove(to)
        sftp.rename(part, to)


@contextlib.contextmanager
def _fresh(part: Path, mode: int) -> Generator[BinaryIO, None, None]:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        os.fchmod(descriptor, mode)
        yield handle


def _blocks(source: Source, to: str, where: str) -> Generator[bytes, None, None]:
    """Yield ``source`` piece by piece, saying now and then how much of it was taken."""
    sent, told = 0, time.monotonic()
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(0)
            while block := handle.read(BLOCK):
                yield block
                sent += len(block)
                so_far = f"{to}, {sent // MIB} of {size // MIB} MiB"
                if CANCELLED.is_set():
                    raise waiting.NotReady(f"{where}: stopped while sending {so_far}")
                if time.monotonic() - told >= waiting.PROGRESS_S:
                    waiting.say(f"{where}: sending {so_far}")
                    told = time.monotonic()
    except OSError as why:
        raise PutError(f"{source!s} can't be read: {why.strerror or why}") from None
