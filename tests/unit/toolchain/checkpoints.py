"""A stack's file as the engine writes it, for what puts states right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from components.gates.uuids import uuid_of
from toolchain.engine import recover, state, strays

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IDENTITY = "0123456789abcdef"
OUTER_URI = "qemu:///system"
OUTER = "urn:pulumi:local::nestlab::nestlab:index:OuterHost"
HOST_PROVIDER = f"{OUTER}$pulumi:providers:libvirt::host-libvirt"
INNER_PROVIDER = f"{OUTER}$nestlab:index:NestedHypervisorLab$pulumi:providers:libvirt::one-libvirt"


def resource(
    kind: str, logical: str, provider: str = HOST_PROVIDER, **inputs: Any
) -> dict[str, Any]:
    kinds = {
        "domain": "libvirt:index/domain:Domain",
        "network": "libvirt:index/network:Network",
        "pool": "libvirt:index/pool:Pool",
        "volume": "libvirt:index/volume:Volume",
        "seed": "libvirt:index/cloudInitDisk:CloudInitDisk",
        "gate": "pulumi-python:dynamic/nestlab:MachineGate",
    }
    token = kinds[kind]
    return {
        "urn": f"{OUTER}${token}::{logical}",
        "type": token,
        "provider": f"{provider}::8d08a679",
        "inputs": inputs,
    }


class Engine:
    """A stack's file as the engine writes it."""

    def __init__(self, backend: Path, where: str) -> None:
        inner = (
            "qemu+ssh://root@10.77.0.5:22/system?sshauth=privkey"
            f"&keyfile={where}/local/one/id_ed25519&knownhosts={where}/local/one/known_hosts"
        )
        self.resources: list[dict[str, Any]] = [
            {
                "urn": f"{OUTER}${strays.IDENTITY}::identity",
                "type": strays.IDENTITY,
                "outputs": {"value": IDENTITY},
            },
            {
                "urn": HOST_PROVIDER,
                "type": "pulumi:providers:libvirt",
                "inputs": {"uri": OUTER_URI},
            },
            {"urn": INNER_PROVIDER, "type": "pulumi:providers:libvirt", "inputs": {"uri": inner}},
            {
                **resource("pool", "host-pool", name="nestlab-lab"),
                "id": uuid_of(IDENTITY, "pool", "nestlab-lab"),
            },
        ]
        self.pending: list[dict[str, Any]] = []
        self.backend = backend
        self.form: Callable[[bytes], bytes] = bytes
        self.file = backend / "stacks" / "nestlab" / "local.json"
        self.save()

    def save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        latest: dict[str, Any] = {"resources": self.resources, "metadata": {"kept": 1}}
        if self.pending:
            latest["pending_operations"] = self.pending
        checkpoint = {"stack": "organization/nestlab/local", "latest": latest}
        self.written = self.form(json.dumps({"version": 3, "checkpoint": checkpoint}).encode())
        self.file.write_bytes(self.written)
        self.file.with_name(f"{self.file.name}.attrs").write_text('{"md5": "of this text"}')

    @property
    def touched(self) -> bool:
        return self.file.read_bytes() != self.written

    def recovered(
        self, *pending: tuple[str, dict[str, Any]], command: str = "up", whole: bool = True
    ) -> dict[str, Any]:
        """Put the stack with these pending operations right; return the deployment after it."""
        self.pending = [{"resource": one, "type": kind} for kind, one in pending]
        self.save()
        assert recover.main(["--", command, "--stack", "local"]) == 0
        assert self.touched
        assert not state.locks("local", self.backend)
        deployment = state.read(self.file).latest
        assert deployment["metadata"] == {"kept": 1}
        assert not whole or "pending_operations" not in deployment
        return deployment


def keys(folder: Path) -> None:
    one = folder / "local" / "one"
    one.mkdir(parents=True)
    (one / "id_ed25519").write_text("KEY")
    (one / "known_hosts").write_text("10.77.0.5 ssh-ed25519 AAAA\n")
