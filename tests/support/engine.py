"""A recording stand-in for the Pulumi engine: what a program asks for, without anything made.

Unlike the SDK's own mocks it refuses what the real engine refuses (two resources of one URN, a call
of a provider's function that no test expects), writes URNs as the engine does, and keeps secrets:
an output is secret when its resource says so, or when the input of the same name is. Dynamic
resources are registered like all others; their providers do not run.
"""

# gRPC names the methods.
# ruff: noqa: N802
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import pulumi
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from pulumi.runtime import rpc
from pulumi.runtime.mocks import MockEngine, MockSettings
from pulumi.runtime.proto import resource_pb2
from pulumi.runtime.settings import SETTINGS, configure, set_root_resource
from pulumi.runtime.stack import run_in_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Values = dict[str, Any]
STACK = "pulumi:pulumi:Stack"
UNKNOWN = "<unknown>"
"""How a value that is not known yet is recorded."""
FEATURES = [
    resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
    resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
    resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACE_WITH,
]


@dataclass(frozen=True)
class Registered:
    """One resource as the engine got it. Resources in options are given by their URN."""

    urn: str
    type: str
    name: str
    parent: str
    """Empty for a resource without a parent, which the engine gives to the stack."""
    inputs: Values
    secret_inputs: frozenset[str]
    """Inputs that are stored encrypted."""
    provider: str
    """Empty where the engine takes the default provider."""
    depends_on: frozenset[str]
    """All it depends on: by option, and by the outputs of others in its inputs."""
    property_depends: Mapping[str, frozenset[str]]
    """What each input is made of."""
    deleted_with: str
    replace_with: tuple[str, ...]
    delete_before_replace: bool
    replace_on_changes: tuple[str, ...]
    ignore_changes: tuple[str, ...]
    additional_secret_outputs: tuple[str, ...]
    aliases: tuple[str, ...]
    protect: bool
    retain_on_delete: bool
    env_var_mappings: Mapping[str, str]
    """Of a provider: the variable that it sees as another one."""
    outputs: Values = field(default_factory=dict)
    """What it answered, in clear."""
    secret_outputs: frozenset[str] = frozenset()


Answer = "Callable[[Registered], Mapping[str, Any]]"


def nothing(resource: Registered) -> Mapping[str, Any]:
    """Outputs beyond the inputs: none."""
    del resource
    return {}


class Recorder:
    """The resource monitor of one deployment."""

    def __init__(
        self,
        project: str,
        stack: str,
        outputs: Callable[[Registered], Mapping[str, Any]],
        *,
        preview: bool,
    ) -> None:
        self.project = project
        self.stack = stack
        self.preview = preview
        self.resources: dict[str, Registered] = {}
        self.published: dict[str, Values] = {}
        """Outputs that components, and the stack, registered; by URN, in clear."""
        self.secret_published: dict[str, frozenset[str]] = {}
        self._outputs = outputs
        self._lock = threading.Lock()

    def named(self, name: str, kind: str = "") -> Registered:
        """Return the one resource called ``name`` whose type ends with ``kind``."""
        found = [
            one for one in self.resources.values() if one.name == name and one.type.endswith(kind)
        ]
        assert len(found) == 1, f"{len(found)} resources are called {name}: {self.names()}"
        return found[0]

    def of_type(self, kind: str) -> list[Registered]:
        """Return the resources whose type ends with ``kind``, in the order of registration."""
        return [one for one in self.resources.values() if one.type.endswith(kind)]

    def names(self) -> list[str]:
        """Return the logical names of all resources."""
        return sorted(one.name for one in self.resources.values())

    @property
    def stack_outputs(self) -> Values:
        """What the program exported, in clear."""
        return self.published[self.stack_urn]

    @property
    def stack_urn(self) -> str:
        """The stack's own URN."""
        return f"urn:pulumi:{self.stack}::{self.project}::{STACK}::{self.project}-{self.stack}"

    def _urn(self, parent: str, kind: str, name: str) -> str:
        chain = parent.split("::")[2] if parent else STACK
        qualified = kind if chain == STACK else f"{chain}${kind}"
        return f"urn:pulumi:{self.stack}::{self.project}::{qualified}::{name}"

    def RegisterResource(self, request: Any) -> Any:
        if request.type == STACK:
            return resource_pb2.RegisterResourceResponse(urn=self.stack_urn)
        urn = self._urn(request.parent, request.type, request.name)
        inputs, secret = _plain(request.object)
        asked = Registered(
            urn=urn,
            type=request.type,
            name=request.name,
            parent="" if request.parent == self.stack_urn else request.parent,
            inputs=inputs,
            secret_inputs=secret,
            provider=request.provider.rpartition("::")[0],
            depends_on=frozenset(request.dependencies),
            property_depends={
                key: frozenset(each.urns) for key, each in request.propertyDependencies.items()
            },
            deleted_with=request.deletedWith,
            replace_with=tuple(request.replace_with),
            delete_before_replace=request.deleteBeforeReplace,
            replace_on_changes=tuple(request.replaceOnChanges),
            ignore_changes=tuple(request.ignoreChanges),
            additional_secret_outputs=tuple(request.additionalSecretOutputs),
            aliases=tuple(request.aliasURNs) + tuple(map(str, request.aliases)),
            protect=request.protect,
            retain_on_delete=request.retainOnDelete,
            env_var_mappings=dict(request.envVarMappings),
        )
        more = dict(self._outputs(asked)) if request.custom else {}
        known = {key: value for key, value in inputs.items() if value is not None}
        # In a preview only what the program gave is known.
        outputs = known if self.preview else known | more
        hidden = frozenset(outputs) & (secret | set(asked.additional_secret_outputs))
        done = Registered(**{**vars(asked), "outputs": outputs, "secret_outputs": hidden})
        with self._lock:
            assert urn not in self.resources, f"two resources named {urn}"
            self.resources[urn] = done
        id_ = (
            "" if self.preview or not request.custom else str(more.get("id", f"{request.name}-id"))
        )
        return resource_pb2.RegisterResourceResponse(urn=urn, id=id_, object=_struct(done))

    def RegisterResourceOutputs(self, request: Any) -> Any:
        with self._lock:
            assert request.urn not in self.published, f"{request.urn} published its outputs twice"
            plain, secret = _plain(request.outputs)
            self.published[request.urn] = plain
            self.secret_published[request.urn] = secret
        return empty_pb2.Empty()

    def Invoke(self, request: Any) -> NoReturn:
        raise AssertionError(f"no test expects a call of {request.tok}")

    def Call(self, request: Any) -> NoReturn:
        raise AssertionError(f"no test expects a call of {request.tok}")

    def ReadResource(self, request: Any) -> NoReturn:
        raise AssertionError(f"no test expects that {request.type} {request.name} is read")

    def SupportsFeature(self, request: Any) -> Any:
        # Without output values inputs arrive resolved.
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id != "outputValues")

    def GetDeploymentInfo(self, request: Any) -> Any:
        del request
        return resource_pb2.DeploymentInfo(supportedFeatures=FEATURES)

    def RegisterPackage(self, request: Any) -> Any:
        del request
        return resource_pb2.RegisterPackageResponse(ref="recorded")

    def SignalAndWaitForShutdown(self, request: Any) -> Any:
        del request
        return empty_pb2.Empty()


def _plain(struct: Any) -> tuple[Values, frozenset[str]]:
    """Return the properties in clear, and which of them are secret as a whole or in part."""
    given = rpc.deserialize_properties(struct, keep_unknowns=True)
    secret = frozenset(key for key, value in given.items() if rpc.is_rpc_secret(value))
    return {key: _known(rpc.unwrap_rpc_secret(value)) for key, value in given.items()}, secret


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_known(each) for each in value]
    return UNKNOWN if isinstance(value, pulumi.output.Unknown) else value


def _struct(done: Registered) -> Any:
    def told(key: str, value: Any) -> Any:
        value = _told(value)
        if key not in done.secret_outputs:
            return value
        return {rpc._special_sig_key: rpc._special_secret_sig, "value": value}

    outputs = {key: told(key, value) for key, value in done.outputs.items()}
    return asyncio.run(rpc.serialize_properties(outputs, {}))


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _told(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_told(each) for each in value]
    return rpc.UNKNOWN if value == UNKNOWN else value


def deploy(
    program: Callable[[], Mapping[str, Any] | None],
    *,
    outputs: Callable[[Registered], Mapping[str, Any]] = nothing,
    preview: bool = False,
    project: str = "nestlab",
    stack: str = "local",
) -> Recorder:
    """Run ``program`` to the end of its last registration; return what it asked for.

    What it returns is exported. ``outputs`` says what a resource answers beyond its inputs; in a
    preview nothing does. A failure of the program, or in one of its registrations, is raised.
    """
    recorder = Recorder(project, stack, outputs, preview=preview)
    # A copy: settings of one deployment must not be seen by the next one.
    contextvars.copy_context().run(_run, program, recorder)
    return recorder


def _run(program: Callable[[], Mapping[str, Any] | None], recorder: Recorder) -> None:
    def whole() -> None:
        for name, value in (program() or {}).items():
            pulumi.export(name, value)

    configure(
        MockSettings(
            monitor=recorder,
            monitor_features=set(FEATURES),
            engine=MockEngine(logging.getLogger("engine")),
            project=recorder.project,
            stack=recorder.stack,
            dry_run=recorder.preview,
            organization="organization",
        )
    )
    set_root_resource(None)  # type: ignore[arg-type]  # a new one is made for each deployment
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(run_in_stack(whole))
    finally:
        _close(loop)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close ``loop``; what a failed deployment left behind would complain on standard error."""
    loop.set_exception_handler(lambda *_: None)
    if left := asyncio.all_tasks(loop):
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    # What it never took out itself the next deployment would wait for, on a loop that is closed.
    SETTINGS.outputs.clear()
    asyncio.set_event_loop(None)
    loop.close()
