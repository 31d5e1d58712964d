"""What the language host answers once pulumi is imported: programs, policy packs, questions.

What it leaves out: installing packages (``make toolchain`` does), other environments than the one
it runs in, generating code and attaching debuggers.
"""

# gRPC names the methods, and passes each what not all of them need.
# ruff: noqa: ARG002, N802
# mypy: disable-error-code="explicit-override"

from __future__ import annotations

import importlib.metadata
import os
import queue
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pulumi.runtime.proto import (
    LanguageRuntimeServicer,
    language_pb2,
)

from toolchain.engine import program

if TYPE_CHECKING:
    from collections.abc import Iterator


class Host(LanguageRuntimeServicer):
    """Answers the engine. Programs are handed to the main thread through ``programs``."""

    def __init__(self) -> None:
        self.programs: queue.SimpleQueue[tuple[Any, futures.Future[Any]]] = queue.SimpleQueue()
        self.children: set[subprocess.Popen[bytes]] = set()

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:
        held = {found.name: found.version for found in importlib.metadata.distributions()}
        named = [language_pb2.DependencyInfo(name=n, version=held[n]) for n in sorted(held)]
        return language_pb2.GetProgramDependenciesResponse(dependencies=named)

    def InstallDependencies(self, request: Any, context: Any) -> Iterator[Any]:
        text = f"nothing to install: programs run in {sys.prefix}, which `make toolchain` keeps\n"
        yield language_pb2.InstallDependenciesResponse(stdout=text.encode())

    def Run(self, request: Any, context: Any) -> Any:
        ended: futures.Future[Any] = futures.Future()
        self.programs.put((request, ended))
        return ended.result()

    def RunPlugin(self, request: Any, context: Any) -> Iterator[Any]:
        folder = Path(request.info.program_directory)
        if request.kind == "analyzer":
            words = ["-m", "pulumi.policy", *request.args, str(folder)]
        elif (folder / "__main__.py").is_file():
            words = [str(folder), *request.args]
        else:
            words = ["-m", "pulumi.run.plugin", request.name or folder.name, *request.args]
        child = subprocess.Popen(
            [sys.executable, "-u", *words],
            cwd=request.pwd,
            env=dict(item.split("=", 1) for item in request.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.children.add(child)
        if not context.add_callback(child.terminate):
            child.terminate()
        said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        for name, pipe in (("stdout", child.stdout), ("stderr", child.stderr)):
            threading.Thread(target=_pump, args=(name, pipe, said), daemon=True).start()
        open_pipes = 2
        while open_pipes:
            name, text = said.get()
            if text:
                yield language_pb2.RunPluginResponse(**{name: text})
            else:
                open_pipes -= 1
        status = child.wait()
        self.children.discard(child)
        yield language_pb2.RunPluginResponse(exitcode=status)

    def serve(self, engine: str) -> NoReturn:
        """Run the programs that the engine asks for, one after the other, on this thread."""
        while True:
            request, ended = self.programs.get()
            try:
                ended.set_result(program.run(request, engine))
            except BaseException as bug:  # noqa: BLE001 - the engine waits for an answer, whatever happens
                ended.set_exception(bug)


def _pump(name: str, pipe: Any, said: queue.SimpleQueue[tuple[str, Any]]) -> None:
    with pipe:
        while text := os.read(pipe.fileno(), 65536):
            said.put((name, text))
    said.put((name, b""))
