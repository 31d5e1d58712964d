"""A machine with libvirt and QEMU: this one, or another over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field
from typing_extensions import override

from components.spec.hosts.base import Entry, HostKind, HostSpec
from components.spec.places import LIBVIRT
from components.spec.values import Folder, Uri  # noqa: TC001 - pydantic reads them at run time

if TYPE_CHECKING:
    from collections.abc import Mapping

LOCAL_URI = "qemu:///system"
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
        None,
        description=f"Its folder in which the lab makes one of its own for its disks; default: {POOLS}",
    )

    @property
    def is_here(self) -> bool:
        """Whether it is this machine."""
        return self.uri.startswith(LOCAL_URI)

    @property
    @override
    def where(self) -> str:
        return self.uri

    @property
    @override
    def entry(self) -> Entry | None:
        parts = urlsplit(self.uri)
        if not parts.hostname:
            return None
        return Entry("uri", parts.username or "", parts.hostname, parts.port)

    @property
    @override
    def own_files(self) -> Mapping[str, str]:
        given = dict(parse_qsl(urlsplit(self.uri).query))
        here = ("keyfile", "knownhosts", *(() if self.entry else ("socket",)))
        return {name: given[name] for name in here if name in given}


# No containers: they would share the kernel of the class's host.
HOST = HostKind(name="libvirt", title="libvirt", model=LibvirtHost, offers=LIBVIRT)
