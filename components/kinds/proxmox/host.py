"""A Proxmox VE cluster, or one machine with Proxmox VE, that runs long before the lab and after it."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, WithJsonSchema
from typing_extensions import override

from components.stackfile.host import HTTPS_PORT, ClusterSpec, Entry, HostKind
from components.stackfile.places import Drives, Offers
from components.stackfile.values import Bridge, Flag, endpoint, matches, text_schema

USER = r"^[^\s:/@!$%-][^\s:/@!$%]*@[A-Za-z][A-Za-z0-9._-]+(![A-Za-z][A-Za-z0-9._-]+)?$"
PACKED = (
    "by gzip, xz, zstd or bzip2 (8.4's PVE/Storage.pm, VZTMPL_EXT_RE_1; 9 takes a plain tar, too)"
)
"""How a container's template is compressed."""
DISCS = Drives(4, "they are sata2 to sata5")
"""qm.conf(5): sata0 to sata5; a disk and a seed have the first two where they are on SATA."""
STORAGE = r"^[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]$"
"""pve-storage-id of its API."""
User = Annotated[
    str,
    AfterValidator(
        matches(
            USER,
            "a user of Proxmox VE is NAME@REALM, or NAME@REALM!TOKENID with an API token",
            "write it like root@pam",
        )
    ),
    text_schema("NAME@REALM, or NAME@REALM!TOKENID", USER),
]
Storage = Annotated[
    str,
    AfterValidator(
        matches(
            STORAGE,
            "a storage has letters, digits, dots, hyphens and underscores",
            "give the name that `pvesm status` shows",
        )
    ),
    text_schema("Storage, as `pvesm status` shows it", STORAGE),
]
Endpoint = Annotated[
    str,
    AfterValidator(endpoint("https://pve.example.test:8006")),
    WithJsonSchema({"type": "string", "pattern": "^https://"}),
]


class ProxmoxHost(ClusterSpec):
    """A Proxmox VE cluster; the password or the token's secret is `nestlab:hostPassword`."""

    kind: Literal["proxmox"] = Field(description="What the outer host is: a Proxmox VE cluster")
    endpoint: Endpoint = Field(
        description="Its API, https://HOST:8006; any node of the cluster answers for all"
    )
    user: User = Field(
        "root@pam", description="Who makes the lab: NAME@REALM, or NAME@REALM!TOKENID with a token"
    )
    files: Storage = Field(
        "local", description="Storage of the node for ISOs, disk images (content import), templates"
    )
    disks: Storage = Field("local-lvm", description="Storage of the node for disks")
    linked: Flag = Field(
        True,
        description="Whether guests made from an image are linked clones; false where `disks` can't: "
        "LVM without a thin pool",
    )
    uplink: Bridge = Field(
        "vmbr0", description="Bridge of the node that networks of mode bridge join by default"
    )

    @property
    @override
    def where(self) -> str:
        return self.endpoint

    @property
    @override
    def entry(self) -> Entry:
        parts = urlsplit(self.endpoint)
        return Entry("endpoint", self.user, parts.hostname or "", parts.port or HTTPS_PORT)


HOST = HostKind(
    name="proxmox",
    title="Proxmox VE",
    model=ProxmoxHost,
    offers=Offers(
        nic_models=("virtio", "e1000", "e1000e", "vmxnet3", "rtl8139"),
        disk_buses=("scsi", "virtio", "sata", "ide"),
        virtio=("scsi", "virtio"),
        # Its bridges translate no addresses.
        modes=("bridge", "isolated"),
        # net0 to net31 of its API.
        nics=32,
        containers=True,
        packed=PACKED,
        nests=True,
        ahci=("q35",),
        ends=True,
        probes=("none", "tcp", "ssh"),
        drives=lambda _: DISCS,
        disks=8,
        uplink="host.uplink",
        fixed={
            "console": "its web interface shows screens, with noVNC",
            "command": "a container runs its template's init",
        },
    ),
)
