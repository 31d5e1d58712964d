"""A machine with libvirt and QEMU: this one, or another over SSH."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from typing_extensions import override

from components.spec.hosts.base import HostKind, HostSpec
from components.spec.places import LIBVIRT
from components.spec.values import Folder, Uri  # noqa: TC001 - pydantic reads them at run time

POOLS = "/var/lib/libvirt/nestlab"
"""Folder of the outer host under which each lab keeps its disks."""


class LibvirtHost(HostSpec):
    """A machine with libvirt, and how much of it the lab may take."""

    kind: Literal["libvirt"] = Field(
        "libvirt", description="What the outer host is: a machine with libvirt"
    )
    uri: Uri = Field(
        "qemu:///system",
        description="Its libvirt: qemu:///system, or qemu+ssh://USER@HOST/system?keyfile=PATH",
    )
    accelerator: Literal["auto", "kvm", "tcg"] = Field(
        "auto",
        description="What runs the first layer: kvm; tcg, emulation; auto, the doctor's verdict",
    )
    pool_path: Folder | None = Field(
        None, description=f"Its folder for the lab's disks; default: {POOLS}/NAME"
    )

    @property
    @override
    def where(self) -> str:
        return self.uri


# No containers: they would share the kernel of the class's host.
HOST = HostKind(name="libvirt", title="libvirt", model=LibvirtHost, offers=LIBVIRT)
