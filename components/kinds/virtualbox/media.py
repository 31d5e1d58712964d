"""The CD that makes a cloud image of Debian or Ubuntu a VirtualBox host: cloud-init's, from plain data.

What goes through the engine is plain data, and `cloud_init` wants a `Setup`; here one becomes the other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from components.media import cloud_init

if TYPE_CHECKING:
    from components.media.answers import Answers

LABEL = cloud_init.LABEL
OPTIONS = ("package", "extension_pack", "licence")
PACKAGES = ("qemu-utils", "socat")
"""qemu-img converts disk images: VirtualBox reads some of qcow2 only, and writes none of it. socat opens a
guest's console."""


def files(answers: Answers) -> dict[str, bytes]:
    """Return what is on the CD `LABEL`.

    Options: ``package``, Oracle's .deb on the tools' CD, empty for the distribution's package;
    ``extension_pack`` on the same CD, and ``licence``, the SHA-256 by which its licence is accepted.
    """
    answers.only(OPTIONS)
    product = cloud_init.virtualbox(
        deb=answers.option("package", "") or None,
        extension_pack=answers.option("extension_pack", "") or None,
        licence=answers.option("licence", "") or None,
    )
    told = {"product": product, "packages": PACKAGES}
    return cloud_init.files(replace(answers, options=told))
