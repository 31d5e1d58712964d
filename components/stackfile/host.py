"""What all outer hosts share: how much of them the lab may take, and what the spec knows of a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from components.stackfile.problems import Problem, refuse
from components.stackfile.values import Cores, Flag, Gib, Many, Mib, SpecModel, matches, text_schema

if TYPE_CHECKING:
    from components.stackfile.places import Offers

HTTPS_PORT = 443
PASSWORD = "hostPassword"  # noqa: S105 - its name
"""Key of the stack's configuration, a secret, that holds the password of a remote host."""
SET_PASSWORD = f"run `pulumi config set --secret nestlab:{PASSWORD}`"
NODE = r"^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$"
Accelerates = Literal["auto", "kvm", "tcg"]
NodeName = Annotated[
    str,
    AfterValidator(
        matches(
            NODE,
            "a node has a host's name or address: letters, digits, hyphens, dots, underscores",
            "give the name that the cluster shows",
        )
    ),
    text_schema("Node: letters, digits, hyphens, dots, underscores", NODE),
]


class HostSpec(SpecModel):
    """The outer host, and how much of it the lab may take."""

    kind: str = Field(description="What the outer host is")
    memory_mib: Mib | None = Field(
        None,
        description="Budget for the memory of the first layer altogether, MiB; default: no limit",
    )
    disk_gib: Gib | None = Field(
        None,
        description="Budget for the disks of the first layer altogether, GiB; default: no limit",
    )
    cores: Many | None = Field(
        None,
        description="Budget for the virtual cores of the first layer altogether, which may exceed the "
        "host's real ones; default: no limit",
    )

    @property
    def where(self) -> str:
        """Where it is, as the stack says."""
        raise NotImplementedError

    @property
    def entry(self) -> Entry | None:
        """Who is entered where; None for this machine."""
        raise NotImplementedError

    @property
    def is_here(self) -> bool:
        """Whether it is the machine that deploys."""
        return False

    @property
    def accelerates(self) -> Accelerates:
        """What runs the first layer; auto: the doctor knows. A cluster has KVM, or what its maker's product is made of."""
        return "kvm"

    @property
    def swept(self) -> str:
        """How what a lab left there is asked for once it is taken down; empty: each number there is swept by what keeps it."""
        return ""

    @property
    def chosen(self) -> str | None:
        """The folder that the stack names for labs' disks; None for none."""
        return None

    @property
    def folders(self) -> str:
        """Folder under which each lab keeps its disks; empty where the host has no folders."""
        return ""

    @property
    def ends_networks(self) -> bool:
        """Whether its own networks end there, out of reach of the machine that deploys, though it is no cluster."""
        return False

    @property
    def own_files(self) -> Mapping[str, str]:
        """Files of this machine that the way to it takes, by the option that names them."""
        return {}


@dataclass(frozen=True, slots=True)
class Entry:
    """Somebody at an outer host other than this machine."""

    at: str
    """Field of the host that names it."""
    user: str
    host: str
    port: int
    """As given, or its protocol's own."""


class NodeSpec(SpecModel):
    """What one node of a cluster has for labs; each lab stands on one node, and has to fit there."""

    memory_mib: Mib = Field(
        description="Memory for labs, MiB; labs are spread over the nodes in proportion to it"
    )
    disk_gib: Gib = Field(description="Disk for labs, GiB")
    cores: Cores = Field(
        description="Virtual cores for one lab, which may exceed the node's real ones"
    )


class ClusterSpec(HostSpec):
    """A remote cluster: a lab stands on one of its nodes."""

    insecure: Flag = Field(
        False,
        description="Whether any certificate will do; a self-signed one too, and the server is not verified",
    )
    nodes: Annotated[Mapping[NodeName, NodeSpec], Field(min_length=1)] = Field(
        description="Nodes that labs may stand on, by name, with what each has for them"
    )
    node: NodeName | None = Field(
        None,
        description="Node the lab stands on; default: one with room for it, always the same for the same name of a lab",
    )

    @model_validator(mode="before")
    @classmethod
    def _has_no_secret(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            rule = "stack files are read by many"
            wrong = [
                Problem(field, "a secret given", rule, f"remove it, and {SET_PASSWORD}")
                for field in ("password", "token", "secret", "api_token")
                if field in data
            ]
            if wrong:
                refuse(*wrong)
        return data


@dataclass(frozen=True, slots=True)
class HostKind:
    """All the spec knows of one kind of outer host, `host` in `components/kinds/NAME`."""

    name: str
    title: str
    """How people call it, in messages."""
    model: type[HostSpec]
    offers: Offers
