"""Set this machine up for labs: programs, libvirt, /dev/kvm (``python3 -m toolchain host``).

It does what is missing and nothing else, so a second run is silent and quick. Where somebody's
libvirtd runs already, that one is used as it is: no domain, pool or network in it is touched.

What this deliberately leaves out: it never removes a package, never changes libvirt's settings in
/etc, and never starts libvirt's network ``default``.
"""

from __future__ import annotations

import argparse
import grp
import os
import subprocess
import sys

from toolchain.bootstrap import cache, paths, ui
from toolchain.machine import daemons, packages
from toolchain.machine.system import System

PREPARE, STOP = "--as-root=prepare", "--as-root=stop"
"""The halves that change the machine; under sudo they run as a process of their own."""


def ready(system: System) -> bool:
    """Whether nothing is left to do: packages there, libvirt answers, /dev/kvm as it should be."""
    if packages.missing(system) or daemons.libvirt_pid() is None:
        return False
    if daemons.has_service_manager():
        return True
    record = daemons.read_record()
    worse = daemons.wanted_kvm_state() or (record.libvirtd and daemons.unfit(record.libvirtd))
    if worse and (system.is_root() or system.can_sudo()):
        return False
    if record.libvirtd is None:
        return True
    return record.kvm == daemons.kvm_state() and daemons.namespace_is_there()


def prepare(system: System) -> None:
    """Install and start what is missing. Root only.

    Raises:
        Problem: a package can't be installed, or libvirt does not start.
    """
    # What the machine's own users read (packages, libvirt's files) is not made as private as ours.
    before = os.umask(daemons.UMASK)
    try:
        _prepare(system)
    finally:
        os.umask(before)


def _prepare(system: System) -> None:
    with daemons.lock():
        if lacking := packages.missing(system):
            packages.install(system, lacking)
            ui.say(f"installed {' '.join(lacking)}")
    if daemons.has_service_manager():
        daemons.start_services(system)
        return
    with ui.step("start libvirt"):
        done = daemons.start(system)
    for words in done:
        ui.say(words)


def take_down(system: System) -> None:
    """Stop what `prepare` started. Root only.

    Raises:
        Problem: it is still in use.
    """
    with ui.step("stop libvirt"):
        done = daemons.stop(system)
    for words in done:
        ui.say(words)


def as_root(system: System, half: str) -> None:
    """Run ``half`` (`PREPARE` or `STOP`) with root's rights: at once, or through sudo.

    Raises:
        Problem: neither root nor sudo without a password; the message says what to do by hand.
    """
    if system.is_root():
        (prepare if half == PREPARE else take_down)(system)
    elif system.can_sudo():
        # -E is not asked for: sudo's own clean environment is what daemons should inherit.
        script = f"import sys; sys.path.insert(0, {str(paths.ROOT)!r}); from toolchain import host"
        run = f"{script}; sys.exit(host.entry(['{half}']))"
        # Not through System: its progress lines belong on the user's terminal as they come.
        done = subprocess.run(["sudo", "-n", sys.executable, "-B", "-c", run], check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
    else:
        raise ui.Problem(by_hand(system, half))


def by_hand(system: System, half: str) -> str:
    """What somebody without root and sudo must have done for them."""
    if half == STOP:
        return (
            f"libvirt in network namespace {daemons.NAMESPACE} was started by root, and stopping "
            "it needs root; sudo without a password is not there. Run `make clean` as root."
        )
    if lacking := packages.missing(system):
        return packages.refusal(system, lacking)
    if daemons.has_service_manager():
        start = "Run `sudo systemctl start libvirtd.socket`"
    else:
        start = "Run `python3 -m toolchain host` as root once"
    return (
        "libvirt does not answer, and starting it needs root; sudo without a password is not "
        f"there. {start}, then repeat this."
    )


def namespace() -> str:
    """Name of the network namespace that guests are reached from; empty: the machine's own."""
    return paths.NETNS.read_text().strip() if paths.NETNS.is_file() else ""


def write_namespace(pid: int) -> str:
    """Write where libvirt's process ``pid`` lives to ``.nestlab/netns``; return that name.

    Empty means the machine's own network: guests are then reached directly.
    """
    name = daemons.where(pid)
    cache.write(paths.NETNS, name)
    return name


def check_access(system: System) -> None:
    """Refuse a user whom libvirt would refuse later, in the middle of a deployment.

    Raises:
        Problem: not root, not in the group libvirt, and libvirt says no.
    """
    if system.is_root() or _in_group("libvirt"):
        return
    asked = system.run(["virsh", "-c", daemons.URI, "uri"], timeout_s=30)
    if not asked.ok:
        raise ui.Problem(f"libvirt does not let you in: {asked.last}. {daemons.JOIN_GROUP}")


def _in_group(name: str) -> bool:
    try:
        return grp.getgrnam(name).gr_gid in os.getgroups()
    except KeyError:
        return False


def main(argv: list[str]) -> int:
    """Set the machine up; nothing is printed when nothing had to be done."""
    parser = argparse.ArgumentParser(
        prog="python3 -m toolchain host",
        description="Install what labs need, start libvirt where no service manager does.",
    )
    parser.add_argument("--as-root", choices=["prepare", "stop"], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    system = System()
    if options.as_root:
        (prepare if options.as_root == "prepare" else take_down)(system)
        return 0
    if not ready(system):
        as_root(system, PREPARE)
    pid = daemons.libvirt_pid()
    if pid is None:
        raise ui.Problem(f"libvirt was started, but nobody answers on {daemons.SOCKETS[0]}.")
    check_access(system)
    write_namespace(pid)
    return 0


def stop(argv: list[str]) -> int:
    """Stop what the set-up started (for ``make clean``); Debian's packages stay.

    Raises:
        Problem: domains or other processes still run in there.
    """
    del argv  # clean's own options
    system = System()
    if daemons.RECORD.exists() or daemons.namespace_is_there():
        as_root(system, STOP)
    return 0


def entry(argv: list[str]) -> int:
    """`main` for the process that sudo starts: a problem is told, not raised."""
    try:
        return main(argv)
    except ui.Problem as problem:
        ui.fail(str(problem))
        return 1
