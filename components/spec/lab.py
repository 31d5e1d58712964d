"""The whole of what a stack may say: the lab, its host, its media, its layers."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads it at run time
from typing import Literal

from pydantic import Field

from components.spec.places import PlaceSpec
from components.spec.values import (
    FilePath,
    Folder,
    Gib,
    Mib,
    Name,
    Seconds,
    Sha256,
    SpecModel,
    Uri,
    Whole,
)

POOLS = "/var/lib/libvirt/nestlab"
"""Folder of the outer host under which each lab keeps its disks."""


class HostSpec(SpecModel):
    """The outer host, and how much of it the lab may take."""

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
    memory_mib: Mib | None = Field(
        None,
        description="Budget for the memory of the first layer altogether, MiB; default: no limit",
    )
    disk_gib: Gib | None = Field(
        None,
        description="Budget for the disks of the first layer altogether, GiB; default: no limit",
    )
    cores: Whole | None = Field(
        None,
        ge=1,
        description="Budget for the virtual cores of the first layer altogether, which may exceed the "
        "host's real ones; default: no limit",
    )


class BootSpec(SpecModel):
    """How machines are started and how long they are waited for."""

    concurrency: Whole | None = Field(
        None, ge=1, description="Machines starting at the same time; default: the host's cores"
    )
    ready_s: Seconds = Field(600, description="Longest wait for a nested hypervisor, seconds")
    lease_s: Seconds = Field(300, description="Longest wait for a guest, seconds")


class MediumSpec(SpecModel):
    """An ISO or a disk image of this machine."""

    path: FilePath = Field(description="File, seen from the project's folder; ~ is your home")
    sha256: Sha256 | None = Field(None, description="SHA-256 of the file; default: not checked")


class TemplateSpec(SpecModel):
    """A container's root file system: a tarball of this machine."""

    path: FilePath = Field(description="Tarball, seen from the project's folder; ~ is your home")
    sha256: Sha256 | None = Field(None, description="SHA-256 of the file; default: not checked")


class LabSpec(PlaceSpec):
    """A lab: what stands on the outer host, layer by layer."""

    name: Name = Field(description="Name of the lab: machines on the outer host begin with it")
    host: HostSpec = Field(default_factory=HostSpec, description="The outer host")
    boot: BootSpec = Field(
        default_factory=BootSpec, description="How machines are started and waited for"
    )
    media: Mapping[Name, MediumSpec] = Field(
        default_factory=dict, description="ISOs and disk images that guests use, by name"
    )
    templates: Mapping[Name, TemplateSpec] = Field(
        default_factory=dict,
        description="Root file systems of containers, by name, beside those built into a kind",
    )

    @property
    def pool_path(self) -> str:
        """Folder of the outer host that holds the lab's disks."""
        return self.host.pool_path or f"{POOLS}/{self.name}"
