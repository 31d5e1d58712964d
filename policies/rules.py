"""All rules of the pack, in the order in which they are documented (docs/policies.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity import CAPACITY
from console_exposure import CONSOLE_EXPOSURE
from esxi_nic import ESXI_NIC
from isolation import ISOLATION
from media import MEDIA
from nested_cpu import NESTED_CPU
from overlaps import OVERLAPS
from plain_secrets import PLAIN_SECRETS
from secret_marks import SECRET_MARKS
from shared_objects import SHARED_OBJECTS
from sizes import SIZES
from spoofing_need import SPOOFING_NEED
from teaching_safety import TEACHING_SAFETY

if TYPE_CHECKING:
    from pulumi_policy.policy import Policy

POLICIES: list[Policy] = [
    NESTED_CPU,
    ESXI_NIC,
    SIZES,
    CAPACITY,
    CONSOLE_EXPOSURE,
    ISOLATION,
    OVERLAPS,
    SHARED_OBJECTS,
    SECRET_MARKS,
    PLAIN_SECRETS,
    MEDIA,
    TEACHING_SAFETY,
    SPOOFING_NEED,
]
