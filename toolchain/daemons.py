"""libvirt's daemons where no service manager runs: in a network namespace of their own.

Containers, CI runners and rescue systems have no systemd. There virtlogd and libvirtd are started
here, inside the network namespace ``nestlab``: lab bridges, dnsmasq and guests then never meet the
machine's own addresses. The unix sockets are files, so clients outside reach the daemons as usual.

The namespace and the daemons belong to the machine, not to a checkout: all checkouts share them.
What was started is recorded with pid and start time, because a pid alone may by now belong to
somebody else's process. This module leaves alone every libvirtd that it did not start.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE = "nestlab"
STATE = Path("/run/nestlab")
KVM = Path("/dev/kvm")

# libvirtd's own order of preference: the monolithic daemon, then the modular one of newer systems.
SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15

# Debian's libvirtd asks polkit about everyone but root, and polkit needs a running system bus,
# which machines without a service manager lack: the socket's group decides there instead.
LIBVIRTD_CONF = """\
unix_sock_group = "libvirt"
unix_sock_rw_perms = "0770"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""
