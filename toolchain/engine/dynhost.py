"""The dynamic host: the engine starts it as ``pulumi-resource-pulumi-python ENGINE_ADDRESS``.

It serves the same dynamic providers as the official one, which hides its server behind an import
that never returns. It differs in four ways: long waits do not starve each other, the engine's
wish to stop reaches them (`components.reach.interrupt`), a failure is told in its own words, and
it ends when its engine is gone. And it runs no code that comes out of a state (`toolchain.engine.providers`).

What it leaves out: schemas, functions and listing, which dynamic providers do not have. One function it
has, `toolchain.engine.lifeline.READY`, by which the language host has it started early.
"""

# gRPC names the methods, and passes each what not all of them need.
# ruff: noqa: ARG002, N802
# mypy: disable-error-code="explicit-override"

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from pulumi import RunError, dynamic
from pulumi.runtime import Settings, configure, proto, rpc
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import ResourceProviderServicer, provider_pb2_grpc

from components.reach.interrupt import CANCELLED
from toolchain.bootstrap import paths
from toolchain.engine import lifeline, providers

PROVIDER = "__provider"
"""The property that holds the pickled provider."""
WORKERS = 64
"""Calls at a time: gates wait for minutes, and a class of guests may wait together."""
GRACE_S = 1.0
"""How long running calls may take to notice that they are cancelled before the process ends."""

Call = Callable[["Host", Any, grpc.ServicerContext], Any]


def _explains_itself(error: Exception) -> bool:
    """Whether the message alone tells a user what happened: ours do, and those of the system."""
    ours = type(error).__module__.partition(".")[0] == "components"
    return ours or isinstance(error, (RunError, OSError))


def _traced(error: Exception) -> str:
    """Return the traceback of ``error`` from where it left this file."""
    frames = error.__traceback__
    while frames and frames.tb_next and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def _told(call: Call) -> Call:
    """Answer a failing ``call`` with the failure's message; bugs keep their traceback."""

    @functools.wraps(call)
    def answer(host: Host, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return call(host, request, context)
        except Exception as error:  # noqa: BLE001 - a provider may fail in any way
            text = str(error) if _explains_itself(error) else _traced(error)
        return context.abort(grpc.StatusCode.UNKNOWN, text)

    return answer


class Host(ResourceProviderServicer):
    """Answers the engine by calling the provider that is pickled into each resource."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.providers: dict[str, dynamic.ResourceProvider] = {}
        self.loading = threading.Lock()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return proto.PluginInfo(version="0.1.0")

    def Configure(self, request: Any, context: Any) -> Any:
        given = rpc.deserialize_properties(request.args)
        self.config = {key: rpc.unwrap_rpc_secret(value) for key, value in given.items()}
        # No secrets: providers get plain values, and the engine marks what came from secrets.
        return proto.ConfigureResponse(acceptSecrets=False)

    def Cancel(self, request: Any, context: Any) -> Any:
        CANCELLED.set()
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:
        if request.tok != lifeline.READY:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"there is no function {request.tok}")
        return proto.InvokeResponse()

    @_told
    def Check(self, request: Any, context: Any) -> Any:
        olds = rpc.deserialize_properties(request.olds, keep_unknowns=True)
        news = rpc.deserialize_properties(request.news, keep_unknowns=True)
        result = self._provider(olds, news).check(olds, news)
        failures = [
            proto.CheckFailure(property=f.property, reason=f.reason) for f in result.failures
        ]
        inputs = _properties(result.inputs, news)
        return proto.CheckResponse(inputs=inputs, failures=failures)

    @_told
    def Diff(self, request: Any, context: Any) -> Any:
        olds = rpc.deserialize_properties(request.olds, keep_unknowns=True)
        news = rpc.deserialize_properties(request.news, keep_unknowns=True)
        result = self._provider(olds, news).diff(request.id, olds, news)
        changes = {
            None: proto.DiffResponse.DIFF_UNKNOWN,
            True: proto.DiffResponse.DIFF_SOME,
            False: proto.DiffResponse.DIFF_NONE,
        }
        return proto.DiffResponse(
            changes=changes[result.changes],
            replaces=result.replaces,
            stables=result.stables,
            deleteBeforeReplace=bool(result.delete_before_replace),
        )

    @_told
    def Create(self, request: Any, context: Any) -> Any:
        news = rpc.deserialize_properties(request.properties)
        result = self._provider(news).create(news)
        return proto.CreateResponse(id=result.id, properties=_properties(result.outs, news))

    @_told
    def Read(self, request: Any, context: Any) -> Any:
        state = rpc.deserialize_properties(request.properties)
        result = self._provider(state).read(request.id, state)
        properties = _properties(result.outs, state)
        inputs = None if result.inputs is None else _properties(result.inputs, state)
        return proto.ReadResponse(id=result.id or "", properties=properties, inputs=inputs)

    @_told
    def Update(self, request: Any, context: Any) -> Any:
        olds = rpc.deserialize_properties(request.olds)
        news = rpc.deserialize_properties(request.news)
        result = self._provider(news).update(request.id, olds, news)
        return proto.UpdateResponse(properties=_properties(result.outs, news))

    @_told
    def Delete(self, request: Any, context: Any) -> Any:
        state = rpc.deserialize_properties(request.properties)
        self._provider(state).delete(request.id, state)
        return empty_pb2.Empty()

    def _provider(self, *properties: dict[str, Any]) -> dynamic.ResourceProvider:
        """Return the provider pickled into the last of ``properties`` that knows its own."""
        known = [p[PROVIDER] for p in properties if p.get(PROVIDER, rpc.UNKNOWN) != rpc.UNKNOWN]
        pickled = known[-1]
        # One at a time: a provider is loaded and configured once, and later calls share it.
        with self.loading:
            if pickled not in self.providers:
                provider = _provider_of(pickled)
                config = dynamic.Config(self.config, os.environ.get("PULUMI_PROJECT", "project"))
                provider.configure(dynamic.ConfigureRequest(config))
                self.providers[pickled] = provider
            return self.providers[pickled]


def _provider_of(pickled: object) -> dynamic.ResourceProvider:
    """Return the provider that ``pickled`` names, which a module of the project defines.

    Raises:
        RunError: it is something else.
    """
    refusal = RunError(
        "the state carries a provider that is no class of this project's own modules, so it is not run: a"
        " provider may hold any program. If the state is yours, define the provider in a module beside the"
        " program; if it came from somebody else, do not use it"
    )
    try:
        module, name = providers.named(str(pickled))
    except providers.Foreign:
        raise refusal from None
    try:
        made = getattr(importlib.import_module(module), name, None) if _is_ours(module) else None
    except ImportError:
        raise refusal from None
    if not isinstance(made, type) or not issubclass(made, dynamic.ResourceProvider):
        raise refusal
    return made.__new__(made)


def _is_ours(module: str) -> bool:
    """Whether ``module`` lies in the program's folder; of nestlab's own only components count."""
    top, here = module.partition(".")[0], Path.cwd()
    found = None if top == "__main__" else importlib.util.find_spec(top)
    if found is None or (here == paths.ROOT and top != "components"):
        return False
    places = [
        Path(each) for each in (found.origin, *(found.submodule_search_locations or [])) if each
    ]
    # Python's own have words there, such as "frozen". The components are those that this host has.
    roots = (here, paths.ROOT) if top == "components" else (here,)
    real = [each.resolve() for each in places if each.is_absolute()]
    return any(each.is_relative_to(root) for each in real for root in roots)


def _properties(outs: dict[str, Any] | None, given: dict[str, Any]) -> Any:
    """Serialize what a provider returned, with the provider that ``given`` carries."""
    return asyncio.run(rpc.serialize_properties({**(outs or {}), PROVIDER: given[PROVIDER]}, {}))


def _know_the_project() -> None:
    # Settings belong to a thread; what a provider asks of pulumi in its calls is answered by them.
    project = os.environ.get("PULUMI_PROJECT", "project")
    configure(Settings(project=project, stack="stack", organization="organization"))


def main() -> None:
    """Serve the engine until it asks to end or is gone."""
    workers = futures.ThreadPoolExecutor(WORKERS, initializer=_know_the_project)
    server = grpc.server(workers, options=_GRPC_CHANNEL_OPTIONS)
    # The program's folder: providers may be defined in modules beside the program.
    sys.path.insert(0, str(Path.cwd()))

    def end() -> None:
        CANCELLED.set()
        server.stop(GRACE_S).wait(GRACE_S)
        os._exit(0)

    lifeline.watch(end)
    lifeline.speak_by_lines()
    lifeline.collect_again()
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Host(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()
    threading.Event().wait()  # stopped, and about to end: not before the calls had their grace
