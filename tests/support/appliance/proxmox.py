"""Proxmox VE's API: fakepve, completed as for doubles (`tests.support.pve`), with its cluster on the disk.

A process of its own, since it loads what is not light. It listens at port 8006 with the certificate that
the node made of itself, and, for the node's own commands, at a socket where nobody asks who they are, as
pvedaemon does at 127.0.0.1:85.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiohttp import web
from typing_extensions import override

from tests.support.appliance.sdk import fits
from tests.support.pve import Api
from tests.support.stubs.proxmox import SOCKET

KEPT = (
    *("nodes", "storages", "vms", "cts", "pools", "pool_info", "bridges", "digests", "images"),
    *("ostypes", "users", "apitokens", "acl"),
)
"""What a cluster's file system and its disks keep: all but sessions and tasks."""
ROOT = "root@pam"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - where the product listens
PORT = 8006


class Node(Api):
    """The one node that the answers told of."""

    def __init__(self, config: dict[str, Any], file: Path) -> None:
        super().__init__(ROOT, "", [config["name"]])
        self.host, self.port = EVERYWHERE, PORT
        self.version, self.release_version = f"{config['release']}.0", config["release"]
        self._hashed = config["password"]
        self._file = file

    @override
    def check_password(self, user: str, password: str) -> bool:
        """Whether it is root's: of the planned one the answers tell its hash alone."""
        return user == ROOT and fits(password, self._hashed)

    @override
    def _authenticate(self, request: web.Request) -> Any:
        assert request.transport is not None
        if request.transport.get_extra_info("sockname") == SOCKET:
            return ROOT
        return super()._authenticate(request)

    @override
    def _build_app(self) -> Any:
        app = super()._build_app()

        @web.middleware
        async def kept(request: web.Request, handler: Any) -> Any:
            try:
                return await handler(request)
            finally:
                if request.method != "GET":
                    self._keep()

        # The innermost: what was answered is on the disk.
        app.middlewares.append(kept)
        return app

    def _keep(self) -> None:
        half = self._file.with_suffix(".half")
        with half.open("wb") as out:
            pickle.dump({name: getattr(self, name) for name in KEPT}, out)
            out.flush()
            os.fsync(out.fileno())
        half.rename(self._file)

    def boot(self) -> None:
        """Take up what was there before it was switched off: networking, then what starts at boot."""
        if not self._file.exists():
            return
        for name, value in pickle.loads(self._file.read_bytes()).items():  # noqa: S301 - its own
            setattr(self, name, value)
        for node, bridges in self.bridges.items():
            there = {name: it for name, it in bridges.items() if not it.get("removed")}
            self.bridges[node] = {n: it | {"active": 1, "exists": 1} for n, it in there.items()}
        for guest in [*self.vms, *self.cts]:
            guest.lock_holder = None
            guest.apply_pending()
            machine = guest in self.vms
            starts = str(guest.config.get("onboot", 0)) == "1" and not guest.template
            works = starts and not self._refusal(guest.node, guest.config, kvm=machine)
            guest.status = "running" if works else "stopped"
            if machine:
                guest.qmpstatus = guest.status

    async def serve(self, certificate: Path, key: Path) -> None:
        """Serve for ever."""
        await self.start(str(certificate), str(key))
        await web.UnixSite(self.runner, SOCKET).start()
        print("appliance: the API serves", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Be the API of the machine whose configuration, and the folder of whose state, are given."""
    config, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    certificate, key = folder / "pve-ssl.pem", folder / "pve-ssl.key"
    if not certificate.exists():
        subprocess.run(
            [
                *(
                    "openssl",
                    "req",
                    "-x509",
                    "-nodes",
                    "-days",
                    "730",
                    "-subj",
                    f"/CN={config['fqdn']}",
                ),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        # It is switched off the hard way, soon: files that are there and empty would stay so.
        os.sync()
    node = Node(config, folder / "cluster")
    node.boot()
    Path(SOCKET).unlink(missing_ok=True)
    asyncio.run(node.serve(certificate, key))


if __name__ == "__main__":
    main()
