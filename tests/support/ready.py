"""What host tests unpack from Debian's packages, made before they go where no mirror is reached.

On a machine without a service manager the tests run in libvirt's network namespace (toolchain/testing.py).
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from tests.support import cloud_image, managers, virtualbox_image, wifi_image
from tests.support.appliance import image
from toolchain.bootstrap import ui
from toolchain.machine.system import System
from toolchain.testing import SOAK

if TYPE_CHECKING:
    from collections.abc import Callable

SOAKS: tuple[tuple[str, str, Callable[[], object]], ...] = (
    ("cloud image of the guests", "3 minutes, once", lambda: cloud_image.ensure(System())),
    ("image with VirtualBox", "many minutes, once", lambda: virtualbox_image.ensure(System())),
    ("image with network managers", "a minute, once", lambda: managers.ensure(System())),
    ("image with Wi-Fi", "3 minutes, once", lambda: wifi_image.ensure(System())),
)
"""Images of tests that only run with `SOAK` set."""


def main() -> int:
    """Make what the cache lacks; without root or mmdebstrap the tests themselves say why they skip."""
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        return 0
    with ui.step("image of the appliances", "a minute, once"):
        image.base()
    for name, takes, make in SOAKS if os.environ.get(SOAK) else ():
        try:
            with ui.step(name, takes):
                make()
        except ui.Problem as problem:
            # The tests that need it fail by it; the others need not.
            ui.warn(str(problem))
    return 0


if __name__ == "__main__":
    sys.exit(main())
