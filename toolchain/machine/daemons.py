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
import socket
import stat
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.bootstrap.ui import Problem, step
from toolchain.machine import processes
from toolchain.machine.processes import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.machine.system import System

NAMESPACE = "nestlab"
STATE = Path("/run/nestlab")
RECORD = STATE / "daemons.json"
CONF = STATE / "libvirtd.conf"
KVM = Path("/dev/kvm")
NAMESPACE_FILE = Path("/run/netns") / NAMESPACE
UDEV_SOCKET = Path("/run/udev/control")
SERVICE_MANAGER = Path("/run/systemd/system")
KERNEL_KVM_STATE = "0:0 0600"
LIBVIRT_RUN = Path("/run/libvirt")

# The monolithic daemon first, then the modular one that newer systems may run instead.
SOCKETS = (LIBVIRT_RUN / "libvirt-sock", LIBVIRT_RUN / "virtqemud-sock")
LOG_SOCKET = LIBVIRT_RUN / "virtlogd-sock"

URI = "qemu:///system"
UMASK = 0o022
"""What a service manager gives its daemons (systemd.exec(5)); whoever starts ours may have another."""
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15

JOIN_GROUP = (
    "libvirt is for root and the group libvirt: "
    "run `sudo adduser $USER libvirt`, log out and in again, and repeat."
)

# Debian's libvirtd asks polkit about everyone but root, and polkit needs a running system bus,
# which machines without a service manager lack: there the socket's group decides.
# The read-only socket shows where every lab's disks lie, so it is the group's too.
LIBVIRTD_CONF = """\
unix_sock_group = "libvirt"
unix_sock_ro_perms = "0770"
unix_sock_rw_perms = "0770"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""


@dataclass(frozen=True)
class Record:
    """What we started: the daemons, and /dev/kvm's state when libvirtd first looked at it."""

    daemons: dict[str, Process]
    kvm: str

    @property
    def libvirtd(self) -> Process | None:
        """The libvirtd that we started, when it still runs."""
        daemon = self.daemons.get("libvirtd")
        return daemon if daemon and daemon.alive else None


def has_service_manager() -> bool:
    """Whether systemd runs this machine (sd_booted(3) looks for the same directory)."""
    return SERVICE_MANAGER.is_dir()


def listener(path: Path) -> int | None:
    """Pid of who listens on the unix socket ``path``; None when nobody does.

    Raises:
        Problem: the socket is there, but this user may not open it.

    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except PermissionError as refused:
            raise Problem(f"{path}: permission denied. {JOIN_GROUP}") from refused
        except OSError:
            return None
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", peer)[0]
    return pid


def libvirt_pid() -> int | None:
    """Pid of who answers for libvirt here, whoever started it; None when nobody does."""
    for path in SOCKETS:
        if (pid := listener(path)) is not None:
            return pid
    return None


def read_record() -> Record:
    """What earlier runs started; empty when nothing is recorded or the record is torn."""
    try:
        data = json.loads(RECORD.read_text())
        return Record(
            {name: Process(**told) for name, told in data["daemons"].items()}, data["kvm"]
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return Record({}, "")


def write_record(record: Record) -> None:
    """Keep ``record`` for the next run; written beside and renamed, so it is never half there."""
    fresh = RECORD.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(record)))
    fresh.replace(RECORD)


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Only one set-up at a time on this machine, whatever checkout it is run from. Root only."""
    STATE.mkdir(exist_ok=True)
    # Whoever is no root reads in there whether libvirt is ours.
    STATE.chmod(0o755)
    with (STATE / "lock").open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step("wait for another set-up on this machine"):
                fcntl.flock(held, fcntl.LOCK_EX)
        yield


def kvm_state() -> str:
    """Owner, group and mode of /dev/kvm as text; empty without such a device."""
    try:
        found = KVM.stat()
    except FileNotFoundError:
        return ""
    return f"{found.st_uid}:{found.st_gid} {stat.S_IMODE(found.st_mode):04o}"


def wanted_kvm_state() -> str:
    """What udev would make of /dev/kvm; empty when that is not ours to say.

    Debian's rule (50-udev-default.rules) is group kvm, mode 0660. Where udev runs, it decides; and
    whoever moved the device away from the kernel's root:root 0600 (a container engine, an
    administrator, the udev outside a container) had a reason.
    """
    if not KVM.is_char_device() or UDEV_SOCKET.exists() or kvm_state() != KERNEL_KVM_STATE:
        return ""
    try:
        return f"0:{grp.getgrnam('kvm').gr_gid} 0660"
    except KeyError:
        return ""


def mend_kvm() -> bool:
    """Give /dev/kvm what udev would have given it; whether that changed anything. Root only.

    libvirt's QEMU runs as libvirt-qemu (group kvm). With root:root 0600 libvirt sees KVM while it
    probes as root and loses it as libvirt-qemu, and probes again at each domain: 50 s a create.
    """
    if not wanted_kvm_state():
        return False
    os.chown(KVM, 0, grp.getgrnam("kvm").gr_gid)
    KVM.chmod(0o660)
    return True


def namespace_is_there() -> bool:
    """Whether ``nestlab`` is a real namespace: after a reboot only its empty file may be left."""
    try:
        return NAMESPACE_FILE.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def namespace_of(pid: int) -> int:
    """Number of the network namespace that ``pid`` lives in; 0 when that can't be seen."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return 0


def where(pid: int) -> str:
    """Name of the namespace to reach guests from: ``nestlab``, or empty for the machine's own."""
    ours = read_record().libvirtd
    if ours and ours.pid == pid:
        return NAMESPACE
    inside = namespace_is_there() and namespace_of(pid) == NAMESPACE_FILE.stat().st_ino
    return NAMESPACE if inside else ""


def unfit(ours: Process) -> bool:
    """Whether a libvirtd of ours was started with another umask or configuration than today's.

    It writes what its dnsmasq reads, who is another user: with umask 077 or 027 no reservation holds.
    """
    try:
        return processes.umask(ours.pid) != UMASK or CONF.read_text() != LIBVIRTD_CONF
    except OSError:
        return True


def _must(system: System, argv: list[str], remedy: str, *, timeout_s: float = 30) -> None:
    done = system.run(argv, timeout_s=timeout_s)
    if not done.ok:
        raise Problem(f"`{' '.join(argv)}` failed: {done.last}. {remedy}")


def outside() -> list[str]:
    """Return what runs a command where the name of a namespace is everybody's.

    The name is a mount. `ip netns exec` (ip-netns(8)) unshares its mounts: a name given in there is for
    others an empty file, which they can't enter.
    """
    own = Path("/proc/self/ns/mnt").readlink()
    for pid in reversed(processes.ancestors(os.getpid())):
        try:
            theirs = Path(f"/proc/{pid}/ns/mnt").readlink()
        except OSError:
            continue  # gone, or of a container's host
        return [] if theirs == own else ["nsenter", f"--mount=/proc/{pid}/ns/mnt"]
    return []


def make_namespace(system: System, libvirtd: Process | None) -> None:
    """Make the namespace, or give its name back to the one that our libvirtd still lives in."""
    remedy = "Network namespaces need CAP_SYS_ADMIN: a container must be started privileged."
    if not namespace_is_there():
        if NAMESPACE_FILE.exists():
            NAMESPACE_FILE.unlink()
        if libvirtd:
            _must(
                system, [*outside(), "ip", "netns", "attach", NAMESPACE, str(libvirtd.pid)], remedy
            )
        else:
            _must(system, [*outside(), "ip", "netns", "add", NAMESPACE], remedy)
    inside = ["ip", "netns", "exec", NAMESPACE]
    _must(system, ["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], remedy)
    forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
    _must(system, [*inside, "sh", "-c", forward], remedy)


def _start(system: System, argv: list[str], path: Path) -> Process:
    """Start a daemon in the namespace; it answers on ``path`` when this returns."""
    log = Path("/var/log/libvirt") / f"{Path(argv[0]).name}.log"
    remedy = f"See {log}."
    _must(
        system,
        ["ip", "netns", "exec", NAMESPACE, *argv],
        remedy,
        timeout_s=START_TIMEOUT_S,
    )
    pid = listener(path)
    found = processes.identify(pid) if pid else None
    if found is None:
        raise Problem(f"{argv[0]} started, but nobody answers on {path}. {remedy}")
    return found


def start(system: System) -> list[str]:
    """See to it that libvirt answers; return what had to be done, in words. Root only.

    Raises:
        Problem: the namespace can't be made, or a daemon does not start.

    """
    with lock():
        done: list[str] = []
        if mend_kvm():
            done.append(f"gave {KVM} to group kvm (mode 0660), as udev would")
        record = read_record()
        ours = record.libvirtd
        pid = libvirt_pid()
        if pid is not None and (ours is None or ours.pid != pid):
            return done
        if ours and (pid is None or record.kvm != kvm_state() or unfit(ours)):
            done.append("restarted libvirtd" if pid else "replaced a libvirtd that did not answer")
            ours.stop(timeout_s=STOP_TIMEOUT_S)
            ours = None
        if ours is None or not namespace_is_there():
            make_namespace(system, ours)
        if ours:
            return done
        CONF.write_text(LIBVIRTD_CONF)
        daemons = {name: daemon for name, daemon in record.daemons.items() if daemon.alive}
        if listener(LOG_SOCKET) is None:
            daemons["virtlogd"] = _start(system, ["virtlogd", "-d"], LOG_SOCKET)
            # Written at once: a crash between the two daemons must not orphan the first.
            write_record(Record(daemons, kvm_state()))
        daemons["libvirtd"] = _start(system, ["libvirtd", "-d", "-f", str(CONF)], SOCKETS[0])
        write_record(Record(daemons, kvm_state()))
        done.append(f"started virtlogd and libvirtd in network namespace {NAMESPACE}")
        return done


def start_services(system: System) -> None:
    """Have systemd start libvirt when nobody answers for it yet. Root only.

    Raises:
        Problem: no libvirt unit could be started.

    """
    if libvirt_pid() is not None:
        return
    for unit in ("libvirtd.socket", "virtqemud.socket"):
        system.run(["systemctl", "start", unit], timeout_s=START_TIMEOUT_S)
        if libvirt_pid() is not None:
            return
    raise Problem(
        "libvirt does not answer, and neither libvirtd.socket nor virtqemud.socket could be "
        "started. See `systemctl status libvirtd` and `journalctl -u libvirtd`."
    )


def in_use(system: System, record: Record) -> list[str]:
    """Who keeps the namespace busy, in words: running domains, then other people's processes."""
    users: list[str] = []
    if record.libvirtd:
        listed = system.run(["virsh", "-c", URI, "list", "--name"])
        if not listed.ok:
            users.append(f"libvirtd, which does not say what runs in it ({listed.last})")
        users += [f"domain {name}" for name in listed.out.split("\n") if name]
    if not namespace_is_there():
        return users
    known = {daemon.pid for daemon in record.daemons.values() if daemon.alive}
    mine = set(processes.ancestors(os.getpid()))
    for pid in _inside(system):
        # libvirtd's own children are its short-lived probes of QEMU; a domain's QEMU is no child.
        if pid in known | mine or processes.parent(pid) in known or _is_libvirts_dnsmasq(pid):
            continue
        name = processes.name(pid)
        if name and not (users and name.startswith("qemu-system")):
            users.append(f"process {pid} ({name})")
    return users


def _inside(system: System) -> list[int]:
    return [int(pid) for pid in system.run(["ip", "netns", "pids", NAMESPACE]).out.split()]


def _is_libvirts_dnsmasq(pid: int) -> bool:
    # Two of each network: dnsmasq and its helper for leases; both name libvirt's configuration.
    return "--conf-file=/var/lib/libvirt/dnsmasq/" in processes.command_line(pid)


def stop(system: System) -> list[str]:
    """Stop the daemons we started and delete the namespace; return what was done. Root only.

    Networks still up in there go down with their namespace; their definitions stay, as do those
    of domains and pools.

    Raises:
        Problem: somebody still uses the namespace, or a daemon can't be stopped.

    """
    with lock():
        record = read_record()
        if not namespace_is_there() and not record.libvirtd:
            _forget()
            return []
        if users := in_use(system, record):
            shown = ", ".join(users[:8]) + (", ..." if len(users) > 8 else "")  # noqa: PLR2004
            raise Problem(
                f"libvirt in network namespace {NAMESPACE} is still in use by {shown}. It serves "
                "all checkouts of this machine, so it is not stopped under anybody: take the labs "
                "down (`make down`), end what else runs there, and repeat."
            )
        if record.libvirtd:
            for uuid in system.run(["virsh", "-c", URI, "net-list", "--uuid"]).out.split():
                system.run(["virsh", "-c", URI, "net-destroy", uuid])
        for title in ("libvirtd", "virtlogd"):
            daemon = record.daemons.get(title)
            if daemon and not daemon.stop(timeout_s=STOP_TIMEOUT_S):
                raise Problem(f"{title} (pid {daemon.pid}) does not end, not even when killed.")
        for pid in _inside(system) if namespace_is_there() else []:
            left = processes.identify(pid)
            if left and _is_libvirts_dnsmasq(pid):
                left.stop(timeout_s=STOP_TIMEOUT_S)
        if namespace_is_there():
            _must(system, [*outside(), "ip", "netns", "delete", NAMESPACE], "Delete it by hand.")
        _forget()
        return [f"stopped libvirtd and virtlogd, deleted network namespace {NAMESPACE}"]


def _forget() -> None:
    for path in (RECORD, CONF):
        path.unlink(missing_ok=True)
