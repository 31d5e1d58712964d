"""What the first job hands to the second: a report, whose every part has a bound.

The second job holds a token and takes the report for hostile: the first one worked on what a stranger wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.refused import Refused

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 8 << 20
"""Of a report, bytes."""
Short = Annotated[str, Field(max_length=200)]
Long = Annotated[str, Field(max_length=2000)]
Count = Annotated[int, Field(ge=0, le=1 << 40)]
Operation = Literal["create", "update", "replace", "delete"]


class BadReport(Refused):
    """What was handed over is no report."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Change(_Part):
    """What becomes of one resource."""

    operation: Operation
    kind: Short = Field(description="Its type, as libvirt:index/domain:Domain")
    name: Short
    why: Annotated[list[Short], Field(max_length=40)] = Field(
        default_factory=list,
        description="Properties that differ; of a replaced one those it is replaced for",
    )


class Finding(_Part):
    """What a rule of the policy pack says."""

    rule: Short
    level: Literal["mandatory", "advisory"]
    text: Long
    line: Annotated[int, Field(ge=0, le=1 << 21)] = Field(
        0, description="In the stack file; 0: not known"
    )
    name: Short = Field("", description="The resource")


class Bill(_Part):
    """What a lab takes of its outer host."""

    memory_mib: Count
    cores: Count
    disk_gib: Count
    addresses: Count = Field(description="Of its networks on the outer host, used or not")


class Node(_Part):
    """A network or machine of a lab's picture."""

    path: Annotated[list[Short], Field(max_length=16)] = Field(
        description="Names from the outside in"
    )
    what: Short = Field(description="network, guest, container, or the kind of a nested hypervisor")
    text: Short = Field("", description="Its address, or its subnet and mode")
    networks: Annotated[list[Short], Field(max_length=64)] = Field(
        default_factory=list, description="Those of its place that it is on"
    )


class Version(_Part):
    """A stack as one branch has it."""

    bill: Bill
    nodes: Annotated[list[Node], Field(max_length=2000)]


class Stack(_Part):
    """A stack that differs between the branches."""

    name: Short
    was: Short = Field("", description="Its name before, where it was renamed")
    fate: Literal["added", "changed", "removed", "renamed", "broken"]
    refused: Annotated[str, Field(max_length=20000)] = Field("", description="Why it is broken")
    changes: Annotated[list[Change], Field(max_length=5000)] = Field(default_factory=list)
    same: Count = 0
    losses: Annotated[list[Long], Field(max_length=1000)] = Field(default_factory=list)
    findings: Annotated[list[Finding], Field(max_length=500)] = Field(default_factory=list)
    before: Version | None = None
    after: Version | None = None


class Report(_Part):
    """All that a comment says."""

    version: Literal[1] = 1
    number: Annotated[int, Field(ge=0, le=1 << 40)] = Field(
        0, description="Of the pull request; 0: none"
    )
    base: Short
    head: Short
    stacks: Annotated[list[Stack], Field(max_length=100)]
    left_out: Count = Field(0, description="Stacks that differ, and are too many to be shown")


def read(file: Path) -> Report:
    """Return the report in ``file``.

    Raises:
        BadReport: it is none, or beyond the bounds.
    """
    with file.open("rb") as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise BadReport(f"{file} is larger than {LARGEST} bytes, and no report is")
    try:
        return Report.model_validate_json(data)
    except ValidationError as wrong:
        first = wrong.errors(include_input=False, include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise BadReport(
            f"{file} is no report that this version writes: {at or 'the whole'}: {first['msg']}"
            f" ({wrong.error_count()} in all). Make it again with `nestlab review`."
        ) from None
