"""What host tests unpack from Debian's packages, made before they go where no mirror is reached.

On a machine without a service manager the tests run in libvirt's network namespace (toolchain/testing.py).
"""

from __future__ import annotations

import os
import shutil
import sys

from tests.support.appliance import image
from toolchain.bootstrap import ui


def main() -> int:
    """Make what the cache lacks; without root or mmdebstrap the tests themselves say why they skip."""
    if os.geteuid() == 0 and shutil.which("mmdebstrap"):
        with ui.step("image of the appliances", "a minute, once"):
            image.base()
    return 0


if __name__ == "__main__":
    sys.exit(main())
