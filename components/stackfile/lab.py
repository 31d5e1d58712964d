"""The whole of what a stack may say: the lab, its host, its media, its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from components.stackfile.host import HostSpec  # noqa: TC001 - pydantic reads it at run time
from components.stackfile.places import PlaceSpec, kind_tag
from components.stackfile.registry import DEFAULT, HOSTS
from components.stackfile.values import FilePath, Many, Name, Seconds, Sha256, SpecModel


class _ByKind:
    """Validates the outer host with the model of its ``kind``."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        del source
        choices = {kind_tag(name): handler.generate_schema(it.model) for name, it in HOSTS.items()}
        return core_schema.tagged_union_schema(choices, discriminator=_host_kind)


def _host_kind(value: Any) -> str:
    """Return the branch of an outer host: one whose kind is left out is a machine with libvirt."""
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return kind_tag(DEFAULT if kind is None else kind)


def _usual_host() -> HostSpec:
    return HOSTS[DEFAULT].model(kind=DEFAULT)


class BootSpec(SpecModel):
    """How machines are started and how long they are waited for."""

    concurrency: Many | None = Field(
        None, description="Machines starting at the same time; default: the host's cores"
    )
    ready_s: Seconds = Field(600, description="Longest wait for a nested hypervisor, seconds")
    lease_s: Seconds = Field(300, description="Longest wait for a guest, seconds")


class MediumSpec(SpecModel):
    """An ISO or a disk image of this machine."""

    path: FilePath = Field(description="File, relative to the project's folder; ~ is your home")
    sha256: Sha256 | None = Field(None, description="SHA-256 of the file; default: not checked")


class TemplateSpec(SpecModel):
    """A container's root file system: a tarball of this machine."""

    path: FilePath = Field(description="Tarball, relative to the project's folder; ~ is your home")
    sha256: Sha256 | None = Field(None, description="SHA-256 of the file; default: not checked")


class LabSpec(PlaceSpec):
    """A lab: what stands on the outer host, layer by layer."""

    name: Name = Field(description="Name of the lab: machines on the outer host begin with it")
    host: Annotated[HostSpec, _ByKind()] = Field(
        default_factory=_usual_host, description="The outer host"
    )
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
        """What the path of the lab's own folder begins with; empty where the host has no folders.

        What follows is the lab's mark, a random number: so the folder is nobody else's, whatever lies
        beside it.
        """
        return f"{self.host.folders}/{self.name}" if self.host.folders else ""
