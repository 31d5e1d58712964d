"""A node of Proxmox VE: ``pveversion``, and of ``pvesh`` and ``qm`` what asks its API.

As the real ones they are root's on the node and need no ticket: they use a socket of it. Only whole stacks
have this stub; what it asks is `tests.support.appliance.proxmox`.
"""

from __future__ import annotations

import json
import socket
from typing import Any, ClassVar

from tests.support.stubs import Refused, Stub, command

SOCKET = "/run/pvedaemon.sock"
KERNEL = "6.8.12-9-pve"


class Proxmox(Stub):
    """The node; its guests are its API's."""

    roots = ("/var/lib/vz",)
    initial: ClassVar[dict[str, Any]] = {"release": "", "node": ""}

    @command("pveversion")
    def pveversion(self, argv: list[str], stdin: bytes) -> str:
        del argv, stdin
        return (
            f"pve-manager/{self.state['release']}.0/0123456789abcdef (running kernel: {KERNEL})\n"
        )

    @command("pvesh")
    def pvesh(self, argv: list[str], stdin: bytes) -> str:
        del stdin
        match argv:
            case ["get", path, *rest]:
                words = dict(zip(rest[::2], rest[1::2], strict=True))
                if words.pop("--output-format", "") != "json":
                    raise Refused("the stub has no tables: --output-format json")
                asked = "&".join(
                    f"{key.removeprefix('--')}={value}" for key, value in words.items()
                )
                return json.dumps(_ask("GET", f"{path}?{asked}")) + "\n"
            case _:
                raise Refused("ERROR: unknown command", 255)

    @command("qm")
    def qm(self, argv: list[str], stdin: bytes) -> str:
        del stdin
        match argv:
            case ["stop" | "start" as what, vmid]:
                guest = f"/nodes/{self.state['node']}/qemu/{vmid}"
                task = _ask("POST", f"{guest}/status/{what}")
                done = _ask("GET", f"/nodes/{self.state['node']}/tasks/{task}/status")
                if done["exitstatus"] != "OK":
                    raise Refused(done["exitstatus"], 255)
                return ""
            case _:
                raise Refused("ERROR: unknown command 'qm'", 255)


def _ask(method: str, path: str) -> Any:
    from http.client import HTTPConnection  # noqa: PLC0415 - `pveversion` needs none of it

    api = HTTPConnection("localhost")
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(SOCKET)
        api.sock = end
        api.request(method, f"/api2/json{path}")
        answer = api.getresponse()
        told = json.loads(answer.read())
    if answer.status != 200:
        raise Refused(str(told.get("message", answer.reason)), 255)
    return told["data"]
