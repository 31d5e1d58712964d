"""LXC containers of a nested KVM host under the laws, on a host in memory."""

from __future__ import annotations

import gzip
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from components.kinds.kvm.container import HOME, plug
from components.kinds.libvirt import census
from components.reach.driver import DriverError
from components.reach.orders import ContainerOrder
from components.reach.shell import COMMAND_S, Result, Unreachable
from tests.contract.case import Case
from tests.support.commands import Call
from tests.support.lxc import FakeLxcHost
from tests.support.orders import order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.support.commands import How

NAME = "box"
CONF = f"{HOME}/{NAME}/nestlab.conf"
ARCHIVE = gzip.compress(b"a root file system", mtime=0)


class LxcHost(FakeLxcHost):
    """The host in memory as the laws want it: commands are noted, and fail when they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.faults: dict[int, How] = {}

    def shell(self) -> LxcHost:
        """See `tests.contract.case.Host`."""
        return self

    def sound(self) -> None:
        """See `tests.contract.case.Host`."""

    def fail(self, nth: int, how: How) -> None:
        """See `tests.contract.case.Host`."""
        self.faults[len(self.calls) + nth] = how

    @property
    def failures_left(self) -> int:
        """See `tests.contract.case.Host`."""
        return len(self.faults)

    @override
    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        """See `components.reach.shell.Shell.run`."""
        words = list(argv)
        if words[0] == "test":
            return super().run(words, stdin=stdin, timeout_s=timeout_s)
        how = self.faults.pop(len(self.calls) + 1, None)
        done = Result(1, "", "injected failure")
        if how != "exit":
            really = super().run(words, stdin=stdin, timeout_s=timeout_s)
            done = done if how else really
        self.calls.append(Call(words[0], words[1:], "", done.code, done.out, done.err, how or ""))
        if how == "cut":
            raise Unreachable(f"{self.name}: the connection was cut while {words[0]} ran")
        if words[0] == "put" and not done.ok:
            raise DriverError(done.err)
        return done

    def keep(self) -> Callable[[], LxcHost]:
        """See `tests.contract.case.Host`."""
        files, states, ports = dict(self.files), dict(self.states), set(self.ports)

        def restore() -> LxcHost:
            census._shared.clear()
            self.files, self.states, self.ports = dict(files), dict(states), set(ports)
            self.calls, self.faults = [], {}
            return self

        return restore

    def contents(self) -> dict[str, Any]:
        """See `tests.contract.case.Host`."""
        held = {"files": self.files, "states": self.states, "ports": sorted(self.ports)}
        return deepcopy(held)


def host(_: Path) -> LxcHost:
    """A host with somebody else's container."""
    made = LxcHost()
    assert made.run(["lxc-create", "-n", "theirs", "-t", "busybox"]).ok
    made.states["theirs"] = "RUNNING"
    return made


def theirs(machine: LxcHost) -> None:
    assert machine.run(["lxc-create", "-n", NAME, "-t", "busybox"]).ok
    machine.states[NAME] = "RUNNING"


def container(**other: Any) -> ContainerOrder:
    plain: dict[str, Any] = {
        "name": NAME,
        "template": "busybox",
        "memory_mib": 64,
        "cores": 2,
        "command": ["/sbin/init", "--quiet"],
        "autostart": True,
        "bridge": "nl0123456789",
        "mac": "52:54:00:00:00:09",
        "address": "10.78.0.9/24",
        "gateway": "10.78.0.1",
    }
    return order(ContainerOrder, plain | other)


def plain(contents: dict[str, Any]) -> dict[str, Any]:
    """Without LXC's logs."""
    files = contents["files"].items()
    return contents | {"files": {path: data for path, data in files if not path.endswith(".log")}}


def setting(machine: LxcHost, order: ContainerOrder, key: str) -> str:
    lines = machine.files[f"{HOME}/{order.name}/nestlab.conf"].decode().split("\n")
    return "".join(each.partition(" = ")[2] for each in lines if each.startswith(f"{key} = "))


def removed(machine: LxcHost) -> None:
    assert machine.run(["lxc-destroy", "-n", NAME, "-f"]).ok
    machine.ports.clear()


def case(source: str) -> Case[LxcHost, ContainerOrder]:
    def wanted(folder: Path) -> ContainerOrder:
        if source == "template":
            return container()
        (folder / "root.tar.gz").write_bytes(ARCHIVE)
        return container(template="", archive=str(folder / "root.tar.gz"))

    return Case(
        f"kvm.container {source}",
        host,
        wanted,
        asks=frozenset({"cat", "lxc-info", "sh", "ip link set"}),
        stranger=theirs,
        edits={
            "memory_mib": 128,
            "cores": 1,
            "command": ["/bin/sh", "-c", "echo 'a  b'; exec sleep 9"],
            "autostart": False,
            "bridge": {"bridge": "", "mac": "", "address": "", "gateway": ""},
            "mac": "52:54:00:00:00:0b",
            "address": "10.78.0.8/24",
            "gateway": "10.78.0.2",
        },
        harms={
            "it is off": lambda machine: machine.run(["lxc-stop", "-n", NAME]),
            "it is frozen": lambda machine: machine.states.update({NAME: "FROZEN"}),
            "it is removed": removed,
            "its settings are others": lambda machine: machine.files.update(
                {CONF: machine.files[CONF] + b"lxc.cap.drop =\n"}
            ),
            "its settings are removed": lambda machine: machine.files.pop(CONF),
            "it is on no bridge": lambda machine: machine.ports.discard(plug(NAME)),
        },
        texts={
            "name": lambda order, text: replace(order, name=text),
            "command": lambda order, text: replace(order, command=["/bin/echo", text]),
            "mac": lambda order, text: replace(order, mac=text),
            "address": lambda order, text: replace(order, address=text),
            "gateway": lambda order, text: replace(order, gateway=text),
        },
        arrived={
            "name": lambda machine, _: next(each for each in machine.states if each != "theirs"),
            "mac": lambda machine, order: setting(machine, order, "lxc.net.0.hwaddr"),
        },
        sends=None
        if source == "template"
        else lambda machine: [call.command for call in machine.calls].count("put"),
        plain=plain,
    )


CASES = [case("template"), case("archive")]
