"""Set this machine up for labs: programs, libvirt, /dev/kvm (``python3 -m toolchain host``).

It does what is missing and nothing else, so a second run is silent and quick. Where somebody's
libvirtd runs already, that one is used as it is: no domain, pool or network in it is touched.

What this deliberately leaves out: it never removes a package, never changes libvirt's settings in
/etc, and never starts libvirt's network ``default``.
"""

from __future__ import annotations

import argparse
import getpass
import grp
import os
import sys

from toolchain import daemons, packages, paths, ui
from toolchain.system import System

PRIVILEGED = "--as-root"
"""Marks the second half, which runs as root, possibly under sudo."""


def ready(system: System) -> bool:
    """Whether nothing is left to do: packages there, libvirt answers, /dev/kvm as it should be."""
    if packages.missing(system) or daemons.libvirt_pid() is None:
        return False
    if daemons.has_service_manager():
        return True
    record = daemons.read_record()
    if record.libvirtd is None:
        return True
    return (
        daemons.wanted_kvm_state() in {"", daemons.kvm_state()}
        and record.kvm == daemons.kvm_state()
        and daemons.namespace_is_there()
    )


def prepare(system: System) -> None:
    """Install and start what is missing. Root only.

    Raises:
        Problem: a package can't be installed, or libvirt does not start.

    """
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


def _prepare_as_root(system: System) -> None:
    if system.is_root():
        prepare(system)
        return
    if system.can_sudo():
        argv = ["sudo", "-n", sys.executable, "-m", "toolchain.host", PRIVILEGED]
        os.chdir(paths.ROOT)
        if os.spawnvp(os.P_WAIT, argv[0], argv):
            raise SystemExit(1)
        return
    if lacking := packages.missing(system):
        raise ui.Problem(packages.refusal(system, lacking))
    msg = (
        "libvirt does not answer, and starting it needs root; sudo without a password is not "
        "there. Start it as root (`sudo systemctl start libvirtd.socket`, or `python3 -m "
        "toolchain host` as root) and run this again."
    )
    raise ui.Problem(msg)


def write_namespace() -> str:
    """Write the namespace's name to ``.nestlab/netns`` (empty: the machine's own); return it."""
    pid = daemons.libvirt_pid()
    if pid is None:
        msg = f"libvirt does not answer on {daemons.SOCKETS[0]}, right after it was started."
        raise ui.Problem(msg)
    name = daemons.where(pid)
    target = paths.NETNS
    if not target.is_file() or target.read_text().strip() != name:
        target.parent.mkdir(exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}")
        fresh.write_text(name)
        fresh.replace(target)
    return name


def main(argv: list[str]) -> int:
    """Set the machine up; nothing is printed when nothing had to be done."""
    parser = argparse.ArgumentParser(prog="python3 -m toolchain host", description=__doc__)
    parser.add_argument(PRIVILEGED, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    system = System()
    if options.as_root:
        prepare(system)
        return 0
    if not ready(system):
        _prepare_as_root(system)
    write_namespace()
    return 0


def in_libvirt_group() -> bool:
    """Whether this user may speak to libvirt: root, or in the group libvirt."""
    if os.geteuid() == 0:
        return True
    try:
        group = grp.getgrnam("libvirt")
    except KeyError:
        return False
    return group.gr_gid in os.getgroups() or getpass.getuser() in group.gr_mem


def stop(argv: list[str]) -> int:
    """Stop what the set-up started; Debian's packages stay."""
    del argv
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ui.Problem as problem:
        ui.fail(str(problem))
        sys.exit(1)
