"""What the engine asks instead of providers while a stack is under review: nothing is made, nobody is reached.

The real plugins still say what inputs mean and what a change of them does (Check and Diff are theirs);
they are never configured, so that they know no host, and never asked to make, read or change anything.
Ours, the gates, compare and do not look. So the engine's own preview says what is replaced, and why.
"""

# gRPC names the methods, and passes each what not all of them need.
# ruff: noqa: ARG002, N802
# mypy: disable-error-code="explicit-override"

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2  # type: ignore[import-untyped]
from pulumi.dynamic import CreateResult
from pulumi.runtime import proto, rpc
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import ResourceProviderServicer, provider_pb2_grpc
from pulumi.runtime.rpc import UNKNOWN
from typing_extensions import override

from components.gates.base import BorderProvider, Gate
from components.gates.identity import IdentityProvider
from components.gates.object import RemoteObjectProvider
from components.reach.driver import driver_of
from components.reach.waiting import Seen
from toolchain.bootstrap import pins
from toolchain.engine import dynhost, plugins
from toolchain.engine.plans import NOTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi import dynamic

DYNAMIC = "pulumi-python"
VARIABLE = "PULUMI_DEBUG_PROVIDERS"
"""Has the engine ask who listens on a port instead of starting a plugin: NAME:PORT, ..."""
WORKERS = 16
SAID_S = 60.0
"""How long a plugin may take until it says its port."""
OPENING = ("InstallMediumProvider", "NetworkGateProvider", "UplinkGateProvider")
"""Providers whose check opens what a stack names, or looks at NICs and bridges of its host."""
ALONE = ("SshKeyProvider", "PasswordProvider", "KeptProvider")
"""Providers that make what they make of nothing but their inputs."""
OUTPUTS = {"folder": "/pool", "group": "0", "definition": "<x/>"}


def told(urn: str, key: str) -> str:
    """Return what stands for a value that only a real host gives, the same in each run."""
    return hashlib.sha256(f"{urn}\0{key}".encode()).hexdigest()[:16]


class Gates(dynhost.Host):
    """Our own dynamic resources: compared, not looked at."""

    @override
    def _provider(self, *properties: dict[str, Any]) -> dynamic.ResourceProvider:
        provider = super()._provider(*properties)
        given: Any = provider
        if isinstance(provider, IdentityProvider):
            given.problems = lambda _: ()
        if isinstance(provider, Gate):
            given.look = lambda _: Seen(ok=True, text="as it is declared")
            if type(provider).__name__ in OPENING:
                given.problems = lambda _: ()
        return provider

    def Attach(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return proto.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return proto.DiffResponse(changes=proto.DiffResponse.DIFF_NONE)

    def Create(self, request: Any, context: Any) -> Any:
        news = rpc.deserialize_properties(request.properties)
        provider = self._provider(news)
        if type(provider).__name__ in ALONE:
            return super().Create(request, context)
        name = str(news.get("name") or news.get("comment") or "made")
        outs = dict(news)
        if isinstance(provider, BorderProvider):
            shape = get_type_hints(provider.shape_of(news))
            for key in shape.keys() - news.keys():
                is_text = str in get_args(shape[key])
                outs[key] = OUTPUTS.get(key, told(request.urn, key)) if is_text else None
        if isinstance(provider, RemoteObjectProvider):
            # Others are given it, and checked for its form.
            outs["called"] = driver_of(news["driver"]).called(provider.given(news).wanted)
        result = CreateResult(name, outs)
        return proto.CreateResponse(id=result.id, properties=dynhost._properties(result.outs, news))  # noqa: SLF001

    def Read(self, request: Any, context: Any) -> Any:
        return context.abort(grpc.StatusCode.UNIMPLEMENTED, "nothing is read in a review")

    Update = Delete = Read


HOSTS_OWN = frozenset({"vsphere:index/virtualMachine:VirtualMachine"})
"""Types whose plugin asks their host what a change would do, and ends where it has none: what differs is told
of them, and not whether they are replaced for it."""


def _kind(urn: str) -> str:
    return urn.split("::")[2].rpartition("$")[2]


def _id(urn: str, made: dict[str, Any]) -> str:
    """Return what stands for a resource's id, in the form that others are checked for."""
    source = made.get("sourceFile")
    if isinstance(source, dict) and {"datastoreId", "contentType"} <= made.keys():
        # Proxmox VE's name for a volume, which machines are checked to be given.
        return f"{made['datastoreId']}:{made['contentType']}/{source.get('fileName')}"
    return str(int(made["vmId"])) if "vmId" in made else told(urn, "id")


class Plugin(ResourceProviderServicer):
    """A real plugin that knows no host: only what it can say by itself is asked of it."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def Attach(self, request: Any, context: Any) -> Any:
        return self._stub.Attach(request)

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return self._stub.GetPluginInfo(request)

    def GetSchema(self, request: Any, context: Any) -> Any:
        return self._stub.GetSchema(request)

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return proto.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return self._stub.DiffConfig(request)

    def Configure(self, request: Any, context: Any) -> Any:
        # Here it would take the host's address and its password.
        # Not configured it drops the marks of secrets; the engine keeps them where it is told so.
        return proto.ConfigureResponse(acceptSecrets=False, supportsPreview=True)

    def Check(self, request: Any, context: Any) -> Any:
        return _passed(self._stub.Check, request, context)

    def Diff(self, request: Any, context: Any) -> Any:
        old, new = map(json_format.MessageToDict, (request.old_inputs, request.news))
        # What stands was not put up by the plugin itself, and lacks its notes where a host would have told more.
        said, wanted = _unnoted(old), _unnoted(new)
        differ = [key for key in sorted({*said, *wanted}) if said.get(key) != wanted.get(key)]
        if not differ:
            # What a host would have told of it is missing in what stands, and is no change.
            return proto.DiffResponse(changes=proto.DiffResponse.DIFF_NONE)
        if _kind(request.urn) in HOSTS_OWN:
            return proto.DiffResponse(changes=proto.DiffResponse.DIFF_SOME, diffs=differ)
        return _of(differ, _passed(self._stub.Diff, request, context))

    def Create(self, request: Any, context: Any) -> Any:
        """Answer as the plugin does in a preview, with an id that stands for the real one."""
        planned: Any = proto.CreateResponse(properties=request.properties)
        if _kind(request.urn) not in HOSTS_OWN:
            asked = proto.CreateRequest()
            asked.CopyFrom(request)
            asked.preview = True
            planned = _passed(self._stub.Create, asked, context)
        if request.preview:
            return planned
        # What only a host can tell is left out; the plugins built here tell no types of it.
        made = _known(json_format.MessageToDict(planned.properties))
        properties = struct_pb2.Struct()
        properties.update(made)
        return proto.CreateResponse(id=_id(request.urn, made), properties=properties)

    def Update(self, request: Any, context: Any) -> Any:
        if not request.preview:
            return context.abort(grpc.StatusCode.UNIMPLEMENTED, "nothing is changed in a review")
        if _kind(request.urn) in HOSTS_OWN:
            return proto.UpdateResponse(properties=request.news)
        return _passed(self._stub.Update, request, context)

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()


def _of(keys: list[str], said: Any) -> Any:
    """Return of a plugin's answer to Diff what comes from the inputs ``keys``; see `Plugin.Diff`."""

    def ours(path: str) -> bool:
        return re.split(r"[.\[]", path, maxsplit=1)[0] in keys

    detail = {key: each for key, each in said.detailedDiff.items() if ours(key)}
    made = proto.DiffResponse()
    made.CopyFrom(said)
    for field in ("replaces", "diffs", "detailedDiff"):
        made.ClearField(field)
    made.replaces.extend(filter(ours, said.replaces))
    made.diffs.extend(filter(ours, said.diffs))
    for key, each in detail.items():
        made.detailedDiff[key].CopyFrom(each)
    return made


def _passed(call: Any, request: Any, context: Any) -> Any:
    try:
        return call(request)
    except grpc.RpcError as failed:
        return context.abort(failed.code(), failed.details())


def _unnoted(value: Any) -> Any:
    """Return ``value`` without what a plugin notes of its own in inputs."""
    if isinstance(value, dict):
        return {key: _unnoted(each) for key, each in value.items() if key != NOTED}
    return [_unnoted(each) for each in value] if isinstance(value, list) else value


def _known(value: Any) -> Any:
    """Return ``value`` without what is not known."""
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items() if each != UNKNOWN}
    if isinstance(value, list):
        return [_known(each) for each in value if each != UNKNOWN]
    return value


@contextlib.contextmanager
def serving(wanted: set[str]) -> Iterator[str]:
    """Serve stand-ins for the plugins ``wanted``, and our own; yield what `VARIABLE` is to be."""
    with contextlib.ExitStack() as running:
        served = {DYNAMIC: running.enter_context(_served(Gates()))}
        for program in pins.PLUGINS:
            if program.plugin in wanted:
                stub = running.enter_context(_started(program))
                served[program.plugin] = running.enter_context(_served(Plugin(stub)))
        yield ",".join(f"{name}:{port}" for name, port in served.items())


@contextlib.contextmanager
def _served(servicer: Any) -> Iterator[int]:
    workers = futures.ThreadPoolExecutor(WORKERS, initializer=dynhost._know_the_project)  # noqa: SLF001
    server = grpc.server(workers, options=_GRPC_CHANNEL_OPTIONS)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def _started(program: pins.Program) -> Iterator[Any]:
    """Start a plugin as somebody who debugs it does: without an engine, which attaches later."""
    with subprocess.Popen(
        [str(plugins.place(program))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        text=True,
    ) as running:
        watch = threading.Timer(SAID_S, running.kill)
        watch.start()
        try:
            port = int((running.stdout.readline() if running.stdout else "") or 0)
            watch.cancel()
            with grpc.insecure_channel(
                f"127.0.0.1:{port}", options=_GRPC_CHANNEL_OPTIONS
            ) as channel:
                yield provider_pb2_grpc.ResourceProviderStub(channel)
        finally:
            watch.cancel()
            running.kill()
