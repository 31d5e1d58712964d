"""A lab inside a stub of Xen."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from tests.support import inner
from tests.support.commands import Machine
from tests.support.kept import ISO, ROOT, Lab, exchanged
from tests.support.stubs.xen import NETWORKD, Xen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MEDIA = {"live.iso": ISO, "disk.raw": bytes(510) + b"\x55\xaa" + bytes(4096)}
BY_SUM = {hashlib.sha256(each).hexdigest(): each for each in MEDIA.values()}
INSIDE = {
    "networks": {
        "own": {"mode": "nat", "subnet": "10.78.0.0/24"},
        "alone": {"mode": "isolated", "subnet": "10.79.0.0/24"},
    },
    "guests": {
        "live": {"iso": "live", "memory_mib": 256, "network": "own"},
        "web": {"image": "disk", "memory_mib": 256, "network": "alone"},
    },
}


class XenLab(Lab):
    """Its place is a nested host that has answered already."""

    media: ClassVar[Mapping[str, bytes]] = MEDIA

    @override
    def begin(self) -> None:
        self.machine = Machine(self.folder / "xen", Xen)
        for place in (NETWORKD, "/etc/dnsmasq.d", "/etc/xen"):
            self.machine.path(place).mkdir(parents=True, exist_ok=True)
        self.server = self.running.enter_context(self.machine.serve())
        media = {"live": {"path": "live.iso"}, "disk": {"path": "disk.raw"}}
        data = inner.lab_of("xen", INSIDE, media=media)
        self.project.write(inner.program("xen", data, self.server.target("x"), self.folder))

    @override
    def world(self) -> Any:
        return self.machine.contents()

    @override
    def have(self, world: Any) -> None:
        with self.machine.changing() as state:
            state.clear()
            state.update(world["state"])
        for path, content in world["files"].items():
            _write(self.machine.folder / "root" / path.removeprefix("/"), content)

    @override
    def harm(self) -> None:
        assert self.machine.shell().run(["xl", "destroy", "live"]).ok

    @override
    def left(self) -> set[str]:
        return set(self.machine.state["domains"]) | set(self.machine.state["links"]) - {"eth0"}

    @override
    def marked(self, told: Any) -> Any:
        return self._with(told, {str(self.folder): ROOT}, {"kind": "ssh", "name": "x"})

    @override
    def own(self, told: Any) -> Any:
        target = {key: each for key, each in asdict(self.server.target("x")).items() if each}
        return self._with(told, {ROOT: str(self.folder)}, target)

    @staticmethod
    def _with(told: Any, texts: dict[str, str], target: dict[str, Any]) -> Any:
        """Return ``told`` with other ``texts``, and ``target`` where the server is told of."""

        def known(part: Any) -> Any:
            ssh = isinstance(part, dict) and (part.get("kind"), part.get("name")) == ("ssh", "x")
            return target if ssh else None

        return exchanged(told, texts, known)


def _write(file: Path, content: str) -> None:
    """Make ``file`` what `Machine.contents` told of it."""
    if not content:
        file.mkdir(parents=True, exist_ok=True)
    elif content.startswith("-> "):
        file.symlink_to(content.removeprefix("-> "))
    elif content.startswith("sha256 "):
        file.write_bytes(BY_SUM[content.removeprefix("sha256 ")])
    else:
        file.write_text(content)


LAB = XenLab
