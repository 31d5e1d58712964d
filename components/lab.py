"""A whole lab: the outer host as a place, and all that a stack puts on it.

`deploy` is what a Pulumi program calls once `components.spec.load` has accepted the stack. Facts
about the machine come in as arguments; nothing is read or probed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi

from components import hypervisors
from components.gates.identity import Identity
from components.gates.kept import Kept
from components.gates.secrets import SshKey
from components.hypervisors.handle import LOCAL, Lab, pool_of
from components.nested_hypervisor_lab import fill
from components.sheet import logins, passwords, sheet
from components.spec import GoldenImage
from components.spec import plan as planned
from components.spec.hosts.libvirt import LibvirtHost

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from components.spec import LabSpec
    from components.spec.facts import Accelerator


class _Outer(pulumi.ComponentResource):
    """The part of a lab on the outer host that is not one of its machines: pool, keys, identity."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("nestlab:index:OuterHost", name, {}, opts)
        self.register_outputs({})


def deploy(
    spec: LabSpec,
    *,
    root: Path,
    private: Path,
    accelerator: Accelerator,
    cores: int,
    golden: Mapping[str, GoldenImage],
    nests: bool = True,
    password: pulumi.Output[str] | None = None,
) -> dict[str, pulumi.Output[Any]]:
    """Make the lab ``spec`` and return the stack's outputs.

    ``private`` is a folder for files of this lab that nobody else may read, ``cores`` the number of
    cores of the outer host, ``nests`` says whether its KVM does, ``password`` is what a remote one is entered with,
    a secret. The outputs are ``sheet``, and as secrets ``passwords``, ``logins`` and ``key``; see `components.sheet`.
    """
    owner = _Outer("host")
    child = pulumi.ResourceOptions(parent=owner)
    plan = planned(spec)
    lab = Lab(
        spec=spec,
        plan=plan,
        root=root,
        private=private,
        accelerator=accelerator,
        nests=nests,
        golden={
            variant: Kept(
                f"golden-{variant}", image.model_dump(mode="json"), opts=child
            ).made_with.apply(GoldenImage.model_validate)
            for variant, image in golden.items()
        },
        identity=Identity(
            "identity",
            target=LOCAL,
            # On a cluster each number is swept by the resource that keeps it.
            uri=spec.host.where if isinstance(spec.host, LibvirtHost) else "",
            lab=spec.name,
            private=str(private),
            pool=pool_of(spec.name) if plan.pool_path else "",
            folders=plan.pool_path,
            opts=child,
        ),
        key=SshKey("key", opts=child),
    )
    place = hypervisors.outer(spec.host.kind)(lab, owner=owner, cores=cores, password=password)
    entries = fill(place, spec, prefix="", parent=owner)
    return {
        "sheet": sheet(entries),
        "passwords": passwords(entries),
        "logins": logins(entries),
        "key": lab.key.private,
    }
