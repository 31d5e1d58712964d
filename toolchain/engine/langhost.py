"""The Python language host: the engine starts it as ``pulumi-language-python ENGINE_ADDRESS``.

The official one is a Go program that the Go module proxy does not have. This one runs programs in
its own process and environment. The engine starts it twice for each command, the first time only
to ask about it. So it answers that without pulumi, whose import takes three quarters of its start;
the first question about a program begins that, and everything else waits for `toolchain.engine.language`.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc

from toolchain.bootstrap import pins
from toolchain.engine import lifeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.engine.language import Host

WORKERS = 32
"""Calls served at a time: a running program and each policy pack hold one until they end."""
LARGEST_MESSAGE = 400 * 2**20
"""Bytes; the engine's own limit."""
EMPTY = {"Handshake", "GetRequiredPackages", "Cancel"}
"""Answered by an empty message, which is no bytes at all. No required packages: the SDKs name their
plugin and its exact version with each resource. Cancel: the engine no longer takes resources, by
which the program ends, and then interrupts this process."""
ABOUT = {
    "GetPluginInfo": (pins.PULUMI,),
    "About": (sys.executable, platform.python_version()),
}
"""Answered by texts, which are the first fields of PluginInfo and AboutResponse."""
STREAMS = {"RunPlugin", "InstallDependencies"}


class Door(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Takes every call as bytes; those that need pulumi wait until its import is done."""

    def __init__(self) -> None:
        self.host: Host | None = None
        self.methods: Any = None
        self.wanted = threading.Event()
        self.opened = threading.Event()

    def open(self, host: Host) -> None:
        """Let the waiting calls through to ``host``."""
        from pulumi.runtime.proto import language_pb2_grpc  # noqa: PLC0415 - slow, see above

        self.host = host
        language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, self)
        self.opened.set()

    def add_generic_rpc_handlers(self, handlers: tuple[Any, ...]) -> None:
        """Keep what the generated code gives to what it takes for a server."""
        self.methods = handlers[0]

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Leave out: the same methods again, in a newer form."""

    def service(self, call: Any) -> Any:
        """Return the handler of one call."""
        name = call.method.rpartition("/")[2]
        if name in EMPTY:
            if name == "GetRequiredPackages":
                self.wanted.set()
            return grpc.unary_unary_rpc_method_handler(lambda *_: b"")
        if name in ABOUT:
            return grpc.unary_unary_rpc_method_handler(lambda *_: message(*ABOUT[name]))
        self.wanted.set()
        if name in STREAMS:
            return grpc.unary_stream_rpc_method_handler(lambda raw, at: self._stream(call, raw, at))
        return grpc.unary_unary_rpc_method_handler(lambda raw, at: self._answer(call, raw, at))

    def _method(self, call: Any, context: Any) -> Any:
        self.opened.wait()
        method = self.methods.service(call)
        if method is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{call.method} is not there")
        return method

    def _answer(self, call: Any, raw: bytes, context: Any) -> Any:
        method = self._method(call, context)
        answer = method.unary_unary(method.request_deserializer(raw), context)
        return method.response_serializer(answer)

    def _stream(self, call: Any, raw: bytes, context: Any) -> Iterator[Any]:
        method = self._method(call, context)
        for answer in method.unary_stream(method.request_deserializer(raw), context):
            yield method.response_serializer(answer)

    def end(self) -> None:
        """End this process and what it started, at once and without a word."""
        for child in list(self.host.children) if self.host else ():
            child.terminate()
        os._exit(0)


def message(*texts: str) -> bytes:
    """Return a protobuf message whose fields 1, 2, ... are ``texts``."""
    encoded = b""
    for number, text in enumerate(texts, 1):
        data = text.encode()
        length, size = len(data), b""
        while length > 0x7F:  # noqa: PLR2004 - seven bits a byte, the least first
            size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
        encoded += bytes([number << 3 | 2]) + size + bytes([length]) + data
    return encoded


def main() -> None:
    """Serve the engine until it goes; ``sys.argv`` ends with the engine's address."""
    door = Door()
    lifeline.watch(door.end)
    lifeline.speak_by_lines()
    limit = [("grpc.max_receive_message_length", LARGEST_MESSAGE)]
    server = grpc.server(futures.ThreadPoolExecutor(WORKERS), (door,), options=limit)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    door.wanted.wait()
    from toolchain.engine.language import Host  # noqa: PLC0415 - slow, see above

    host = Host()
    door.open(host)
    lifeline.collect_again()
    host.serve(sys.argv[-1])
