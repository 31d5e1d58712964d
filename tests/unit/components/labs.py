"""Whole labs, deployed to the recording engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi

from components import lab
from components.findings import GoldenImage, ImageFiles, KernelArgument
from components.stackfile import load
from components.stackfile.places import golden_images
from tests.support.engine import deploy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.findings import Accelerator
    from tests.support.engine import Recorder, Registered

ROOT = Path("/project")
PRIVATE = ROOT / ".nestlab" / "keys" / "local"
GOLDEN = GoldenImage(
    version=1,
    hash="1a3c3dbaf825",
    pool="nestlab-images",
    volume="1a3c3dbaf825.qcow2",
    kernel="/images/vmlinuz",
    initrd="/images/initrd",
    files=ImageFiles(disk="/cache/root.qcow2", kernel="/cache/vmlinuz", initrd="/cache/initrd"),
    root_gib=2,
    cmdline=(
        KernelArgument(key="console", value="ttyS0"),
        KernelArgument(key="_", value="quiet"),
        KernelArgument(key="root", value="LABEL=root"),
    ),
)
XEN = GoldenImage(
    version=1,
    hash="ff5be685eb91",
    pool="nestlab-images",
    volume="ff5be685eb91.qcow2",
    files=ImageFiles(disk="/cache/xen/root.qcow2"),
    root_gib=4,
)
"""One that boots by itself."""
IMAGES = {"kvm": GOLDEN, "xen": XEN}
IDENTITY = "0123456789abcdef"


class Machine(pulumi.CustomResource):
    """First and last resource of a machine that boots once what it waits for is up."""

    def __init__(self, name: str, waits: list[pulumi.Input[pulumi.Resource]]) -> None:
        super().__init__("test:index:Machine", name, {}, pulumi.ResourceOptions(depends_on=waits))


def private(resource: Registered) -> str:
    """The secret that ``resource`` makes up."""
    return f"SECRET-of-{resource.name}"


def answers(resource: Registered) -> Mapping[str, Any]:
    """What the providers of a lab would answer."""
    secret = private(resource)
    return {
        "Identity": {
            "value": IDENTITY,
            "group": "64055",
            "folder": f"{resource.inputs.get('folders')}-{IDENTITY}",
        },
        "SshKey": {"private": secret, "public": f"ssh-ed25519 AAAA-{resource.name} comment"},
        "Password": {"value": secret},
        "MachineGate": {
            "answers": "up",
            "console": "vnc://127.0.0.1:0",
            "definition": f"<domain><graphics passwd='{secret}'/></domain>",
        },
        "NetworkGate": {"definition": "<network/>"},
        "RemoteObject": {
            "answers": "up",
            "called": resource.inputs.get("wanted", {}).get("name"),
        },
        "InstallMedium": {
            "installer": "/media/installer.iso",
            "tools_disc": "/media/tools.iso",
            "disc": "/keys/answers.iso",
        },
        "Volume": {"id": f"/pool/{resource.inputs.get('name')}"},
        "SeedDisc": {"disc": "/keys/answers.iso"},
    }.get(resource.type.rpartition(":")[2], {})


_made: dict[str, Recorder] = {}


def up(
    data: Mapping[str, Any],
    *,
    accelerator: Accelerator = "kvm",
    cores: int = 2,
    preview: bool = False,
    root: Path = ROOT,
) -> Recorder:
    """Return the lab ``data`` as it was deployed: once for all tests, which only read it.

    Its name may be left out.
    """
    asked = json.dumps([data, accelerator, cores, preview, str(root)], sort_keys=True)
    if asked not in _made:
        _made[asked] = fresh(data, accelerator=accelerator, cores=cores, preview=preview, root=root)
    return _made[asked]


def fresh(
    data: Mapping[str, Any],
    *,
    accelerator: Accelerator = "kvm",
    nests: bool = True,
    cores: int = 2,
    preview: bool = False,
    root: Path = ROOT,
) -> Recorder:
    """Deploy the lab ``data``."""
    spec = load({"name": "lab", **data}, root=root, exists=lambda _: True)
    return deploy(
        lambda: lab.deploy(
            spec,
            root=root,
            private=PRIVATE,
            accelerator=accelerator,
            nests=nests,
            cores=cores,
            golden={variant: IMAGES[variant] for variant in golden_images(spec)},
        ),
        outputs=answers,
        preview=preview,
    )
