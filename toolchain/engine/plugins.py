"""Which plugins a stack asks for, and where the engine of this checkout looks for them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from toolchain.bootstrap import paths, pins
from toolchain.engine import stack_file

if TYPE_CHECKING:
    from pathlib import Path

ALWAYS = "libvirt"
"""The plugin of this machine's libvirt, of nested KVM hosts, and of most stacks."""
ASKED_BY = {"proxmoxve": "proxmox", "vsphere": "vsphere"}
"""Plugin -> what a stack says that needs it, as the kind of its outer host or of a hypervisor."""
COMMENT = re.compile(r"(^|\s)#.*", re.MULTILINE)


def of(stack: str) -> tuple[pins.Program, ...]:
    """Return the plugins that ``stack`` asks for; of a stack that is not there only libvirt's.

    Its words are looked through, as the Python that reads YAML may not be there yet. A word too many
    costs a build that was not needed, and none is overlooked, however the file is written.
    """
    text = stack_file.words(paths.ROOT / "stacks" / f"Pulumi.{stack}.yaml")
    text = COMMENT.sub("", text)
    asked = {ALWAYS} | {plugin for plugin, word in ASKED_BY.items() if word in text}
    return tuple(plugin for plugin in pins.PLUGINS if plugin.plugin in asked)


def place(plugin: pins.Program) -> Path:
    """Return where the engine looks for ``plugin``."""
    folder = f"resource-{plugin.plugin}-v{plugin.version}"
    return paths.HOME / "plugins" / folder / plugin.name


def lacking(stack: str) -> list[str]:
    """Return the names of the plugins that ``stack`` asks for and that are not there."""
    return [each.plugin for each in of(stack) if not os.access(place(each), os.X_OK)]
