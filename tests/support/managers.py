"""Hosts whose NIC a real manager has: Debian's own systemd boots in namespaces, with networkd, NetworkManager, ifupdown.

Nothing is installed on this machine, and none of its NICs is in there. The kernel is this machine's, so of its
settings those of the network alone can be written there. The outer network has dnsmasq as its DHCP server.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from tests.support import machine_image
from tests.support.netns import Namespace, namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.machine.system import System

PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "systemd-resolved", "network-manager", "ifupdown", "isc-dhcp-client"),
    *("iproute2", "procps", "psmisc", "bridge-utils", "iputils-ping", "python3-minimal", "nftables", "iptables"),
)  # fmt: skip
EXCLUDED = tuple(f"/usr/share/{each}/*" for each in ("doc", "man", "locale", "icons", "help"))
MASKED = (
    *("systemd-udevd.service", "systemd-sysctl.service", "systemd-modules-load.service"),
    *("systemd-journal-flush.service", "getty.target", "systemd-logind.service", "systemd-random-seed.service"),
    *("systemd-networkd-wait-online.service", "NetworkManager-wait-online.service", "systemd-pstore.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "systemd-firstboot.service", "systemd-timesyncd.service"),
)  # fmt: skip
CUSTOMIZE = f"""\
set -eu
chroot "$1" dpkg-query -W systemd network-manager ifupdown isc-dhcp-client >"$1/versions"
chroot "$1" systemctl --quiet mask {" ".join(MASKED)}
chroot "$1" systemctl --quiet disable NetworkManager networking systemd-networkd
rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/etc/machine-id
: >"$1/etc/machine-id"
"""
FILES = {
    # Without udev nobody says of a veth that it is none of NetworkManager's, nor that it is a NIC.
    "etc/NetworkManager/conf.d/nics.conf": "[device]\nmatch-device=interface-name:nic*\nmanaged=1\n",
    "etc/network/interfaces": "auto lo\niface lo inet loopback\n",
}
RECIPE = machine_image.Recipe(
    "managers", "bookworm", ("main",), PACKAGES, EXCLUDED, 0, FILES, CUSTOMIZE
)
BOOT = """
set -e
mount -t tmpfs -o mode=755 root /mnt
cd /mnt
tar -xf "$0"
mount -t proc proc proc
for x in proc/sys proc/sys/net; do mount -o bind $x $x; done
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
for x in null zero full random urandom tty; do touch dev/$x; mount --bind /dev/$x dev/$x; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 run run
mount -t tmpfs tmp tmp
mkdir old
pivot_root . old
umount -l old
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
"""
UP_S = 60
GROUPS = tuple(Path("/sys/fs/cgroup", each) for each in ("unified", ""))


def ensure(system: System) -> Path:
    """See `machine_image.ensure`."""
    return machine_image.ensure(system, RECIPE)


@dataclass
class Managed(Namespace):
    """A host with systemd; a `components.reach.shell.Shell`."""

    pid: int = 0
    """Of its systemd, as this machine counts."""

    @property
    @override
    def inside(self) -> list[str]:
        """See `Namespace.inside`."""
        return ["nsenter", "--all", f"--target={self.pid}", "env", f"PATH={PATH}"]

    def comes(self, script: str, within_s: float = 30) -> None:
        """Wait until ``script`` succeeds, by what the host does by itself."""
        until = time.monotonic() + within_s
        while not (done := self.run(["sh", "-c", script])).ok:
            assert time.monotonic() < until, f"{script}: {done.said}"
            time.sleep(0.1)


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextlib.contextmanager
def booted(image: Path) -> Iterator[Managed]:
    """A host whose systemd is up, and that has no NIC yet."""
    group = (
        next(each for each in GROUPS if (each / "cgroup.procs").exists()) / f"nestlab-{os.getpid()}"
    )
    group.mkdir()
    words = ["unshare", "-n", "-m", "-p", "-u", "-i", "-C", "--fork", "--kill-child"]
    script = f'echo $$ >{group}/cgroup.procs; exec "$@"'
    holder = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL"),
            *("sh", "-c", script, "sh", *words, "--propagation", "private"),
            "sh",
            "-c",
            BOOT,
            str(image / "root.tar"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield _up(holder)
    finally:
        holder.kill()
        holder.wait()
        _emptied(group)


def _up(holder: subprocess.Popen[bytes]) -> Managed:
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    until = time.monotonic() + UP_S
    while True:
        assert holder.poll() is None, "the host did not boot"
        for pid in children.read_text().split():
            made = Managed(holder, "host", pid=int(pid))
            comm = Path(f"/proc/{pid}/comm").read_text().strip()
            if comm == "systemd" and made.run(["systemctl", "is-active", "multi-user.target"]).ok:
                return made
        assert time.monotonic() < until, "the host is not up"
        time.sleep(0.1)


def _emptied(group: Path) -> None:
    """Remove the groups that a host's systemd made, once its processes are gone."""
    until = time.monotonic() + 10
    for each in sorted(
        (path for path in [group, *group.rglob("*")] if path.is_dir()), reverse=True
    ):
        while True:
            try:
                each.rmdir()
                break
            except OSError:
                assert time.monotonic() < until, f"{each} is in use"
                time.sleep(0.1)


@contextlib.contextmanager
def network(host: Managed, log: Path) -> Iterator[Namespace]:
    """Plug NIC ``nic0`` of ``host`` into an outer network whose DHCP server has leases renewed after some seconds."""
    with namespace("outer") as outer:
        outer.must(f"ip link add port0 type veth peer name nic0 netns {host.pid}")
        outer.must("ip link set port0 up; ip addr add 192.0.2.1/24 dev port0")
        options = ("6,192.0.2.53", "15,lab.test", "58,6", "59,60")
        words = [
            *(
                "dnsmasq",
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--port=0",
                "--user=root",
            ),
            *("--interface=port0", "--bind-interfaces", "--dhcp-range=192.0.2.100,192.0.2.150,120"),
            *(f"--dhcp-option={each}" for each in options),
            *(f"--dhcp-leasefile={log}.leases", f"--log-facility={log}", f"--pid-file={log}.pid"),
        ]
        with subprocess.Popen([*outer.inside, *words]) as server:
            try:
                yield outer
            finally:
                server.kill()
                host.run(["ip", "link", "del", "nic0"])
