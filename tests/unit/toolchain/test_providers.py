"""Providers in a state: the name of a class is read, nothing is ever unpickled."""

from __future__ import annotations

import base64
import builtins
import importlib
import os
import pickle
import pkgutil
from typing import TYPE_CHECKING, Any

import pulumi
import pytest
from pulumi.dynamic.dynamic import serialize_provider
from typing_extensions import override

import components.gates
import components.reach
from toolchain.bootstrap import paths
from toolchain.engine import dynhost, providers

if TYPE_CHECKING:
    from pathlib import Path


def ours() -> list[type[pulumi.dynamic.ResourceProvider]]:
    """Every provider that the components define."""
    for package in (components.gates, components.reach):
        for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(each.name)
    found: set[type[pulumi.dynamic.ResourceProvider]] = set()
    fresh = {pulumi.dynamic.ResourceProvider}
    while fresh:
        fresh = {below for each in fresh for below in each.__subclasses__()} - found
        found |= fresh
    return sorted((one for one in found if one.__module__.startswith("components.")), key=repr)


@pytest.mark.parametrize("provider", ours(), ids=lambda each: each.__name__)
def test_each_of_ours_is_only_a_name(provider: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = serialize_provider(provider())
    assert providers.named(pickled) == (provider.__module__, provider.__name__)
    monkeypatch.chdir(paths.ROOT)
    assert type(dynhost._provider_of(pickled)) is provider


def pickled(*operations: bytes) -> str:
    return base64.b64encode(b"".join(operations)).decode()


def reference(module: str, name: str) -> str:
    texts = [b"\x8c" + bytes([len(each)]) + each.encode() for each in (module, name)]
    return pickled(b"\x80\x04", *texts, b"\x93)\x81.")


class Runs:
    """Unpickled, it runs a command."""

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/nestlab-ran",)


class Keeps:
    """Its state is set when it is unpickled."""

    def __init__(self) -> None:
        self.a = Runs()


FOREIGN = {
    "a command": base64.b64encode(pickle.dumps(Runs())).decode(),
    "a state": base64.b64encode(pickle.dumps(Keeps())).decode(),
    "an old protocol": base64.b64encode(pickle.dumps(Runs(), protocol=0)).decode(),
    "one more after its end": pickled(base64.b64decode(reference("components.a", "B")), b"N."),
    "no Base64": "%%%",
    "nothing": "",
    "no pickle": base64.b64encode(b"hello").decode(),
    "cut": pickled(b"\x80\x04\x8c\x05ab"),
    "three names": pickled(b"\x80\x04\x8c\x01a\x8c\x01b\x8c\x01c\x93)\x81."),
    "arguments": pickled(b"\x80\x04\x8c\x01a\x8c\x01b\x93\x8c\x01c\x85\x81."),
    "a call": pickled(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R."),
    "no name": reference("components.a", "B()"),
    "a path": reference("../a", "B"),
    "long": base64.b64encode(b"\x80\x04" + b"N0" * 100_000 + b"N.").decode(),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_whatever_else_is_in_it_is_not_taken(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("ran"))
    with pytest.raises(providers.Foreign):
        providers.named(FOREIGN[what])
    with pytest.raises(pulumi.RunError, match="no class of this project's own modules"):
        dynhost._provider_of(FOREIGN[what])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "PathLike"), ("subprocess", "Popen"), ("__main__", "Any"), ("components.gates.keys", "Path"),
        ("components.gates.identity", "ResourceProvider.create"), ("components.nowhere", "A"),
        ("tests.support.engine", "Recorder"), ("pulumi.dynamic", "ResourceProvider"), ("toolchain.bootstrap.ui", "Step"),
        ("components.kinds.libvirt.gates.machine", "MachineGate"), ("antigravity", "A"), ("this", "A"),
    ],
)  # fmt: skip
def test_a_name_of_something_else_is_no_provider(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def watched(called: str, *rest: Any) -> Any:
        assert called not in {"antigravity", "this"}, "a module of somebody's choice was run"
        return real(called, *rest)

    monkeypatch.setattr(builtins, "__import__", watched)
    for project in (paths.ROOT, tmp_path):
        monkeypatch.chdir(project)
        with pytest.raises(pulumi.RunError, match="no class of this project's own modules"):
            dynhost._provider_of(reference(module, name))
