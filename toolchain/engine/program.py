"""Running one Pulumi program inside the language host's process, on its main thread.

What went wrong is told to the user here, once: a `pulumi.RunError` as its message, anything else
with the traceback of the program's own code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import runpy
import sys
import threading
import traceback
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pulumi
from pulumi import runtime
from pulumi.runtime.proto import language_pb2, resource_pb2, resource_pb2_grpc

from toolchain.bootstrap import paths
from toolchain.engine import lifeline
from toolchain.engine.environment import OPTION, PROXIES
from toolchain.machine import processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

THREADS_PER_RESOURCE = 4
"""The program's threads for each resource the engine allows at a time: calls wait in them."""

ANSWER_S = 2.0
"""For the engine to take a connection on loopback."""

SHUT = "resource monitor shut down"
"""What the engine answers a resource that it takes no more, with UNKNOWN where one was under construction
(pulumi 3.259.0, pkg/resource/deploy/source_eval.go); a component's provider passes it on in its own words."""

WORDY = ("debug", "verbose", "logtostderr", "logflow", "event-log")
"""Options of the engine with which it shows or keeps messages of the level "debug"."""
WORDY_WORD = re.compile(rf"--({'|'.join(WORDY)})(=|$)|-[a-zA-Z]*[dv]")
"""Such an option, as the engine's command line has it: -d and -v may stand among other letters."""


def run(request: Any, engine: str) -> Any:
    """Run one program to its end; what went wrong is logged here, once, and answered as ``bail``."""
    if not shows_debug(processes.words(os.getppid()), os.environ):
        pulumi.log.debug = _unsaid
    runtime.reset_options(
        project=request.project,
        stack=request.stack,
        root_directory=request.info.root_directory,
        parallel=request.parallel,
        engine_address=engine,
        monitor_address=request.monitor_address,
        preview=request.dryRun,
        organization=request.organization or "organization",
    )
    runtime.set_all_config(dict(request.config), list(request.configSecretKeys))
    folder = Path(request.info.program_directory or request.pwd)
    named = folder / (request.info.entry_point or ".")
    entry = named if named.suffix == ".py" else named / "__main__.py"
    loop = asyncio.new_event_loop()
    waiting = max(request.parallel, 1) * THREADS_PER_RESOURCE
    loop.set_default_executor(futures.ThreadPoolExecutor(waiting))
    if entry.parent.resolve() == paths.ROOT:
        threading.Thread(target=_begin_host, args=(request.monitor_address,), daemon=True).start()
    os.chdir(request.pwd or folder)
    sys.path.insert(0, str(entry.parent))
    try:
        loop.run_until_complete(runtime.run_in_stack(lambda: _execute(entry)))
    except Exception as error:  # noqa: BLE001 - the user's program may fail in any way
        if not _engine_is_gone(error):
            with contextlib.suppress(grpc.RpcError):
                pulumi.log.error(account(error, entry.parent))
        elif not _answers(engine):
            # It can be there all the same, and reads what it is answered.
            return language_pb2.RunResponse(error=_unreachable(request.monitor_address, error))
        return language_pb2.RunResponse(bail=True)
    finally:
        _close(loop)
        sys.stdout.flush()
        sys.stderr.flush()
    return language_pb2.RunResponse()


def _begin_host(monitor: str) -> None:
    """Have the engine start the dynamic host, while the program is imported and the stack file checked.

    Otherwise it does at the first dynamic resource, which every lab has: a tenth of a command with nothing
    to do. Whatever becomes of it, that resource asks again.
    """
    asked = resource_pb2.ResourceInvokeRequest(tok=lifeline.READY)
    with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(monitor) as channel:
        resource_pb2_grpc.ResourceMonitorStub(channel).Invoke(asked)


def shows_debug(words: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Whether an engine that was started with these shows what a program logs for debugging.

    The SDK says five such things of each resource, each in a call that the program waits for: a sixth of a
    command with nothing to do. Not knowing the engine's words counts as yes.
    """
    asked = any(f"{OPTION}{each.upper().replace('-', '_')}" in variables for each in WORDY)
    return asked or not words or any(map(WORDY_WORD.match, words))


def _unsaid(*_: Any, **__: Any) -> None:
    """Stand for `pulumi.log.debug` where the engine would drop what it says."""


def _execute(entry: Path) -> None:
    if not entry.is_file():
        raise pulumi.RunError(f"there is no program: {entry} is not there")
    try:
        runpy.run_path(str(entry), run_name="__main__")
    except SystemExit as ended:
        if ended.code not in {None, 0}:
            raise pulumi.RunError(f"the program ended itself: {ended.code}") from None


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close ``loop``; tasks that a failed program left behind would complain on standard error."""
    if left := asyncio.all_tasks(loop):
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left))
    loop.close()


def _engine_is_gone(error: BaseException | None) -> bool:
    """Whether the program failed only because the engine stopped taking resources.

    The engine does that after a failure or an interrupt, which it tells the user itself.
    """
    return any(
        each.code() is grpc.StatusCode.UNAVAILABLE or SHUT in (each.details() or "")
        for each in _behind(error)
        if isinstance(each, grpc.RpcError)
    )


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """Yield ``error`` and what it came of, each once: one that several tasks wait for may lead back to itself."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _answers(engine: str) -> bool:
    """Whether the engine can be reached at the address where it takes messages."""
    with grpc.insecure_channel(engine) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_S)
        except grpc.FutureTimeoutError:
            return False
    return True


def _unreachable(address: str, error: BaseException | None) -> str:
    told = next((each for each in _behind(error) if isinstance(each, grpc.RpcError)), None)
    why = told.details() if isinstance(told, grpc.Call) else "no answer"
    proxies = [name for name in os.environ if name.lower() in PROXIES]
    hint = f"; set here: {', '.join(sorted(proxies))}" if proxies else ""
    return f"the program can't reach the engine at {address}: {why}{hint}"


def account(error: BaseException, folder: Path) -> str:
    """Return what the user reads about ``error``: a message, or a traceback of their own code."""
    if isinstance(error, pulumi.RunError):
        return str(error)
    frames = error.__traceback__
    while frames and not Path(frames.tb_frame.f_code.co_filename).is_relative_to(folder):
        frames = frames.tb_next
    # Without a frame of the program it failed before its first line, or inside the SDK.
    if frames is None and not isinstance(error, SyntaxError):
        frames = error.__traceback__
    lines = traceback.format_exception(type(error), error, frames)
    return "the program failed with an unhandled exception:\n" + "".join(lines)
