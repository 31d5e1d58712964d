"""What the language host spares the engine and its user: messages for debugging, a traceback where the engine
has ended the program and said why, and the wait for the dynamic host."""

from __future__ import annotations

import contextlib
import queue
import sys
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pulumi
import pytest
from pulumi.runtime.proto import language_pb2, provider_pb2, resource_pb2_grpc
from typing_extensions import override

from toolchain.bootstrap import paths
from toolchain.engine import lifeline, program
from toolchain.engine.program import _behind, _engine_is_gone, shows_debug

if TYPE_CHECKING:
    from pathlib import Path

UP = ["/cache/pulumi", "up", "--yes", "--skip-preview", "-s", "dev", "--message", "debug"]


@pytest.mark.parametrize(
    "more",
    [
        *(["-d"], ["-yd"], ["--debug"], ["--debug=true"]),
        *(["-v", "9"], ["-v=9"], ["-v9"], ["--verbose", "9"], ["--verbose=9"]),
        *(["--logtostderr"], ["--logflow"], ["--event-log", "file"], ["--event-log=file"]),
    ],
)
def test_who_wants_to_see_them_sees_them(more: list[str]) -> None:
    assert shows_debug([*UP, *more], {})


def test_for_all_others_they_are_not_sent() -> None:
    assert not shows_debug(UP, {"PULUMI_OPTION_CONFIG_FILE": "x", "DEBUG": "1"})
    assert not shows_debug([*UP, "--diff", "--refresh", "-f", "-r", "--config", "a:d=v"], {})


def test_the_engine_takes_options_from_variables_too() -> None:
    for name in ("DEBUG", "VERBOSE", "LOGTOSTDERR", "LOGFLOW", "EVENT_LOG"):
        assert shows_debug(UP, {f"PULUMI_OPTION_{name}": "true"}), name


def test_an_engine_whose_words_can_t_be_read_is_told_all() -> None:
    assert shows_debug([], {})


class Answer(grpc.RpcError):  # type: ignore[misc]  # grpc has no types
    """What gRPC raises in a call of the SDK's."""

    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        super().__init__(details)
        self.told = code, details

    def code(self) -> grpc.StatusCode:
        return self.told[0]

    def details(self) -> str | None:
        return self.told[1]


UNKNOWN = grpc.StatusCode.UNKNOWN
ANSWERS = {
    "no more resources": (
        grpc.StatusCode.UNAVAILABLE,
        "resource monitor shut down while waiting",
        [],
    ),
    "cancelled while a component is made": (UNKNOWN, "resource monitor shut down", []),
    "the same, passed on by a provider": (UNKNOWN, "failed: resource monitor shut down while", []),
    "something else": (UNKNOWN, "no such property", ["no such property"]),
    "without a word": (UNKNOWN, None, ["unhandled exception"]),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("plain", [False, True])
def test_a_program_that_the_engine_ended_is_said_nothing_of(
    name: str, plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, details, words = ANSWERS[name]
    said: list[str] = []

    async def run_in_stack(_: Any) -> None:
        try:
            raise Answer(code, details)
        except grpc.RpcError:
            if plain:
                raise
            # As pulumi.runtime.settings.handle_grpc_error does.
            raise Exception(details) from None  # noqa: TRY002

    monkeypatch.setattr(pulumi.runtime, "run_in_stack", run_in_stack)
    monkeypatch.setattr(program, "_answers", lambda _: True)
    for each in ("reset_options", "set_all_config"):
        monkeypatch.setattr(pulumi.runtime, each, lambda *_, **__: None)
    monkeypatch.setattr(pulumi.log, "debug", pulumi.log.debug)
    monkeypatch.setattr(pulumi.log, "error", said.append)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    info = language_pb2.ProgramInfo(root_directory=str(tmp_path), program_directory=str(tmp_path))
    with contextlib.chdir(tmp_path):
        done = program.run(language_pb2.RunRequest(info=info, pwd=str(tmp_path), parallel=1), "")
    assert done.bail
    assert [word for word in words if word not in "".join(said)] == []
    assert bool(said) == bool(words)


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """An engine that is asked for functions."""

    def __init__(self) -> None:
        self.asked: queue.SimpleQueue[str] = queue.SimpleQueue()

    @override
    def Invoke(self, request: Any, context: Any) -> Any:
        self.asked.put(request.tok)
        return provider_pb2.InvokeResponse()


@pytest.mark.parametrize("ours", [True, False])
def test_a_lab_s_dynamic_host_is_started_before_the_program_asks(
    ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program of somebody else's, which may have no use for it, it is not."""
    monitor, answers = Monitor(), []

    async def run_in_stack(_: Any) -> None:
        with contextlib.suppress(queue.Empty):
            answers.append(monitor.asked.get(timeout=10 if ours else 0.3))

    server = grpc.server(futures.ThreadPoolExecutor(1))
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setattr(pulumi.runtime, "run_in_stack", run_in_stack)
    for each in ("reset_options", "set_all_config"):
        monkeypatch.setattr(pulumi.runtime, each, lambda *_, **__: None)
    monkeypatch.setattr(pulumi.log, "debug", pulumi.log.debug)
    monkeypatch.setattr(sys, "path", list(sys.path))
    if ours:
        monkeypatch.setattr(paths, "ROOT", tmp_path)
    info = language_pb2.ProgramInfo(root_directory=str(tmp_path), program_directory=str(tmp_path))
    request = language_pb2.RunRequest(
        info=info, pwd=str(tmp_path), parallel=1, monitor_address=address
    )
    with contextlib.chdir(tmp_path):
        assert not program.run(request, "").bail
    server.stop(None)
    assert answers == ([lifeline.READY] if ours else [])


def test_an_error_that_leads_back_to_itself_is_looked_through_once() -> None:
    """As one future's error does that several tasks wait for: the program ran on at full speed, for ever."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert list(_behind(first)) == [first, second]
    assert not _engine_is_gone(first)
