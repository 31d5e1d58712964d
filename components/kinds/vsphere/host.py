"""ESXi hosts managed by a vCenter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field
from typing_extensions import override

from components.stackfile.host import HTTPS_PORT, NODE, ClusterSpec, Entry, HostKind
from components.stackfile.places import Drives, Offers
from components.stackfile.values import matches, text_schema

if TYPE_CHECKING:
    from components.stackfile.machines import GuestSpec

LABEL = r"^[^\s/\\%][^/\\%]*$"
"""vSphere escapes these three in names of its inventory."""
USER = r"^[^\s:/@$%-][^\s:/$%]{0,127}$"
User = Annotated[
    str,
    AfterValidator(
        matches(
            USER,
            "a user of vSphere is NAME@DOMAIN, without blanks, :, /, $ and %",
            "write it like administrator@vsphere.local",
        )
    ),
    text_schema("NAME@DOMAIN", USER),
]
Server = Annotated[
    str,
    AfterValidator(
        matches(
            NODE[:-1] + r"(:[1-9][0-9]{0,4})?$",
            "a vCenter is given by its host name or address, without https://",
            "write it like vcenter.example.test",
        )
    ),
    text_schema("HOST or HOST:PORT", NODE[:-1] + r"(:[1-9][0-9]{0,4})?$"),
]
Label = Annotated[
    str,
    AfterValidator(
        matches(
            LABEL,
            "a name of vSphere's inventory has no /, \\ or %",
            "give the name that its web interface shows",
        )
    ),
    text_schema("Name in vSphere's inventory", LABEL),
]


class VsphereHost(ClusterSpec):
    """ESXi hosts managed by a vCenter; the password is `nestlab:hostPassword`."""

    kind: Literal["vsphere"] = Field(
        description="What the outer host is: ESXi hosts managed by a vCenter"
    )
    server: Server = Field(description="The vCenter, HOST or HOST:PORT")
    user: User = Field("administrator@vsphere.local", description="Who makes the lab: NAME@DOMAIN")
    datacenter: Label = Field(description="Datacenter in the vCenter's inventory")
    datastore: Label = Field(description="Datastore of the node for disks and ISOs")
    switch: Label = Field(
        "vSwitch0", description="Standard switch of the node with its network cards: mode bridge"
    )

    @property
    @override
    def where(self) -> str:
        return self.server

    @property
    @override
    def entry(self) -> Entry:
        host, _, port = self.server.partition(":")
        return Entry("server", self.user, host, int(port or HTTPS_PORT))


def drives(spec: GuestSpec) -> Drives:
    """Return what a guest has drives for: VMware's machines have two IDE controllers of two (configuration maximums)."""
    disk = bool(spec.disk_gib) and spec.disk_bus == "ide"
    return Drives(
        4 - disk - bool(spec.iso) - bool(spec.cloud_init),
        "IDE has 4 places, and its iso, configuration and a disk on IDE take one each",
    )


HOST = HostKind(
    name="vsphere",
    title="vSphere",
    model=VsphereHost,
    offers=Offers(
        nic_models=("vmxnet3", "e1000e", "e1000"),
        disk_buses=("scsi", "sata", "ide"),
        modes=("bridge", "isolated"),
        # VMware's configuration maximums: 10 NICs of a virtual machine.
        nics=10,
        containers=False,
        nests=True,
        ends=True,
        needs_nic=True,
        uplink="host.switch",
        images=False,
        probes=("none", "tcp", "ssh"),
        drives=drives,
        disks=8,
        fixed={
            "agent": "VMware's tools find their host by themselves: install open-vm-tools in it",
            "console": "its web interface shows screens",
            "video": "its own adapter",
        },
    ),
)
