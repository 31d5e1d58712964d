"""What the components are made from where libvirt is meant. Made by ``python -m components.stackfile.args``: edit the models."""

from __future__ import annotations

from typing import Literal, TypedDict


class LibvirtHostArgs(TypedDict, total=False):
    """A machine with libvirt, and how much of it the lab may take."""

    kind: Literal["libvirt"]
    """What the outer host is: a machine with libvirt."""
    memory_mib: int | None
    """Budget for the memory of the first layer altogether, MiB; default: no limit."""
    disk_gib: int | None
    """Budget for the disks of the first layer altogether, GiB; default: no limit."""
    cores: int | None
    """Budget for the virtual cores of the first layer altogether, which may exceed the host's real ones; default: no limit."""
    uri: str
    """Its libvirt: qemu:///system, or qemu+ssh://USER@HOST/system?keyfile=PATH."""
    accelerator: Literal["auto", "kvm", "tcg"]
    """What runs the first layer: kvm; tcg, emulation; auto, the doctor's verdict on this machine; for another one say which."""
    pool_path: str | None
    """Its folder in which the lab makes one of its own for its disks; default: /var/lib/libvirt/nestlab."""
