"""A nested host with the lxc tools, in memory, whose connection can be cut at any command."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from components.kinds.kvm.container import HOME, plug
from components.reach.shell import COMMAND_S, Result, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TEMPLATES = ("busybox", "download")
CONFIG = """\
# Template used to create this container: /usr/share/lxc/templates/lxc-busybox
lxc.net.0.type = empty
lxc.uts.name = {name}
lxc.rootfs.path = dir:/var/lib/lxc/{name}/rootfs
"""
DONE = Result(0, "", "")


def failed(text: str) -> Result:
    return Result(1, "", text)


@dataclass
class FakeLxcHost:
    """See the module."""

    name: str = "kvm1"
    files: dict[str, bytes] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    """State of what LXC knows as running."""
    said: list[list[str]] = field(default_factory=list)
    ports: set[str] = field(default_factory=set)
    """Devices that are plugged into a bridge."""
    cut_at: int | None = None
    """Number of the command at which the connection is cut, once."""
    cut: Literal["before", "half-way", "after"] = "before"

    def put(self, source: Path | bytes, to: str, *, mode: int = 0o644, timeout_s: float) -> None:
        assert mode == 0o600
        assert not isinstance(source, bytes)
        # Beside its place until it is whole, as the real one.
        self.run(["put", to], stdin=source.read_bytes(), timeout_s=timeout_s)

    def connects(self, host: str, port: int) -> bool:
        raise AssertionError(f"nothing asks for {host}:{port}")

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        assert timeout_s > 0
        words = list(argv)
        self.said.append(words)
        if self.cut_at is not None and len(self.said) > self.cut_at:
            self.cut_at = None
            if self.cut == "half-way":
                self._half(words, stdin)
            elif self.cut == "after":
                self._do(words, stdin)
            raise Unreachable(f"{self.name}: the connection was cut")
        return self._do(words, stdin)

    def exists(self, path: str) -> bool:
        return path in self.files or any(each.startswith(f"{path}/") for each in self.files)

    def tree(self, name: str) -> dict[str, bytes]:
        """Files of a container, without its log."""
        inside = {
            path: data for path, data in self.files.items() if path.startswith(f"{HOME}/{name}/")
        }
        return {path: data for path, data in inside.items() if not path.endswith(".log")}

    def remove(self, path: str) -> None:
        self.files = {
            each: data
            for each, data in self.files.items()
            if each != path and not each.startswith(f"{path}/")
        }

    def _half(self, words: list[str], stdin: bytes) -> None:
        """Leave what the command leaves when it is killed in the middle."""
        if words[0] == "tee":
            self.files[words[1]] = stdin[: len(stdin) // 2]
        elif words[0] == "lxc-create":
            self.files[f"{HOME}/{words[2]}/partial"] = b""
        elif words[0] == "put":
            self.files[f"{words[1]}.nestlab-part"] = stdin[: len(stdin) // 2]
        elif words[0] == "tar":
            self.files[f"{words[words.index('-C') + 1]}/bin/half"] = b""
        elif words[0] == "rm":
            inside = sorted(path for path in self.files if path.startswith(f"{words[-1]}/"))
            for path in inside[len(inside) // 2 :]:
                del self.files[path]
        elif words[0] == "lxc-destroy":
            home = f"{HOME}/{words[2]}"
            self.states.pop(words[2], None)
            for path in [path for path in self.files if path.startswith(f"{home}/rootfs/")]:
                del self.files[path]
        elif words[0] == "lxc-start":
            self.states[words[2]] = "STARTING"

    def _do(self, words: list[str], stdin: bytes) -> Result:
        method = getattr(self, "_" + words[0].replace("-", "_"), None)
        assert method, f"{words[0]} is not played here"
        done: Result = method(words[1:], stdin)
        return done

    def _test(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        assert words[0] == "-e"
        return DONE if self.exists(words[1]) else failed("")

    def _cat(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        if words[0] not in self.files:
            return failed(f"cat: {words[0]}: No such file or directory")
        return Result(0, self.files[words[0]].decode(), "")

    def _tee(self, words: list[str], stdin: bytes) -> Result:
        folder = words[0].rpartition("/")[0]
        if not self.exists(folder):
            return failed(f"tee: {words[0]}: No such file or directory")
        self.files[words[0]] = stdin
        return Result(0, stdin.decode(), "")

    def _touch(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        self.files[words[0]] = b""
        return DONE

    def _mkdir(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        self.files.setdefault(f"{words[-1]}/.", b"")
        return DONE

    def _put(self, words: list[str], stdin: bytes) -> Result:
        folder = words[0].rpartition("/")[0]
        assert self.exists(folder), f"{folder} is not there"
        self.files[words[0]] = stdin
        return DONE

    def _sha256sum(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        return Result(0, f"{hashlib.sha256(self.files[words[0]]).hexdigest()}  {words[0]}\n", "")

    def _tar(self, words: list[str], stdin: bytes) -> Result:
        assert not stdin, "a template may be larger than memory"
        where = words[words.index("-C") + 1]
        data = self.files[words[words.index("-xpf") + 1]]
        # How it is packed tar finds out by itself, from a file.
        if not data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"ustar")):
            return failed("tar: This does not look like a tar archive")
        self.files[f"{where}/bin/init"] = data
        return DONE

    def _rm(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        if words[0] == "-f":
            self.files.pop(words[1], None)
            return DONE
        assert words[:2] == ["-rf", "--one-file-system"]
        name = words[-1].rpartition("/")[2]
        assert self.states.get(name, "STOPPED") == "STOPPED", "its files go while it runs"
        self.remove(words[-1])
        return DONE

    def _sed(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        path = words[-1]
        if path not in self.files:
            return failed(f"sed: can't read {path}")
        # The real one: what is asked of it is easily written wrong.
        done = subprocess.run(
            ["sed", *words[1:-1]], input=self.files[path], capture_output=True, check=True
        )
        self.files[path] = done.stdout
        return DONE

    def _defined(self, name: str) -> bool:
        return f"{HOME}/{name}/config" in self.files

    def _lxc_create(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        name, template = words[1], words[3]
        if template not in TEMPLATES:
            return failed(f"lxc-create: {name}: bad template: {template}")
        if self.exists(f"{HOME}/{name}"):
            return failed(f"lxc-create: {name}: Container already exists")
        home = f"{HOME}/{name}"
        self.files[f"{home}/config"] = CONFIG.format(name=name).encode()
        self.files[f"{home}/rootfs/etc/init.d/rcS"] = b"#!/bin/sh\nudhcpc -b\nexec sh\n"
        return DONE

    def _lxc_destroy(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        name = words[1]
        if not self._defined(name):
            return failed(f"lxc-destroy: {name}: Container is not defined")
        self.states.pop(name, None)
        self.ports.discard(plug(name))
        self.remove(f"{HOME}/{name}")
        return DONE

    def _lxc_info(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        name = words[1]
        if not self._defined(name):
            return failed(f"lxc-info: {name}: {name} doesn't exist")
        return Result(0, f"{self.states.get(name, 'STOPPED')}\n", "")

    def _lxc_stop(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        if self.states.pop(words[1], None) is None:
            return Result(2, "", f"lxc-stop: {words[1]}: {words[1]} is not running")
        self.ports.discard(plug(words[1]))
        return DONE

    def _lxc_unfreeze(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        assert self.states[words[1]] == "FROZEN"
        self.states[words[1]] = "RUNNING"
        return DONE

    def _ip(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        assert words[:2] == ["link", "set"]
        assert words[3] == "master"
        self.ports.add(words[2])
        return DONE

    def _lxc_start(self, words: list[str], stdin: bytes) -> Result:
        del stdin
        name = words[1]
        if not self._defined(name) or f"{HOME}/{name}/nestlab.conf" not in self.files:
            return failed(f"lxc-start: {name}: No container config specified")
        if name in self.states and self.states[name] != "STARTING":
            return failed(f"lxc-start: {name}: Container is already running")
        self.files[f"{HOME}/{name}/start.log"] = b""
        self.states[name] = "RUNNING"
        for line in self.files[f"{HOME}/{name}/nestlab.conf"].decode().splitlines():
            if line.startswith("lxc.net.0.veth.pair = "):
                self.ports.add(line.rpartition(" ")[2])
        return DONE

    def _sh(self, words: list[str], stdin: bytes) -> Result:
        """Answer the driver's own look, or the census of the whole place."""
        del stdin
        script = words[1]
        if "lxc-info -n " in script:
            name = script.partition("lxc-info -n ")[2].split()[0]
            conf = self.files.get(f"{HOME}/{name}/nestlab.conf")
            info = self._lxc_info(["-n", name], b"")
            if conf is None or not info.ok:
                return Result(3, "", "")
            plugged = "plugged\n" if plug(name) in self.ports else ""
            return Result(0, f"{conf.decode()}\n--\n{info.out}{plugged}", "")
        lines = []
        for path, data in self.files.items():
            if path.endswith("/nestlab.conf"):
                lines.append(f"container {path.split('/')[-2]}")
                lines += [f"set {line}" for line in data.decode().removesuffix("\n").split("\n")]
        lines += [f"port {port}" for port in self.ports]
        lines += [f"@{HOME}/{name}/command" for name in self.states]
        return Result(0, "".join(f"{line}\n" for line in lines), "")
