"""The doctor's checks: each turns what was found into one row of the table.

Who calls them hands over what was measured; what costs nothing to look at they look at themselves.
Rules and numbers of the processor and of KVM are those of the course (part 1.1 of its text).
"""

from __future__ import annotations

import grp
import platform
import re
from typing import TYPE_CHECKING

from toolchain.bootstrap import paths
from toolchain.bootstrap.ui import Problem
from toolchain.doctor import addresses, bootproof, capacity, kvm, stack_needs, trial
from toolchain.doctor.report import Check, State
from toolchain.machine import daemons, packages, processes

if TYPE_CHECKING:
    from pathlib import Path

    from toolchain.doctor.bootproof import Proof
    from toolchain.doctor.kvm import Access
    from toolchain.doctor.stack_needs import Needs
    from toolchain.doctor.trial import Reaping, Trip
    from toolchain.doctor.verdict import Evidence, Verdict
    from toolchain.machine.system import System

SET_UP = "python3 -m toolchain host"
BUILD = "python3 -m toolchain toolchain"
SLOW_DOMAIN_S = 5.0
"""Most that creating and destroying a domain may take together: 0.3 and 1.6 s are usual."""
CROWDED = 4
"""Virtual cores for one real one; beyond, guests wait for each other while they boot."""
NESTED_CONF = "/etc/modprobe.d/kvm-nested.conf"


def _sudo(system: System, *commands: str) -> tuple[str, ...]:
    return commands if system.is_root() else tuple(f"sudo {command}" for command in commands)


def processor() -> Check:
    """Can it run 64-bit guests, and run them in hardware."""
    name, machine, flags = "processor", platform.machine(), kvm.flags()
    if machine not in {"x86_64", "AMD64"}:
        advice = "Nested hosts are x86-64 systems: use a machine with a 64-bit x86 system."
        return Check(name, State.FAIL, f"its system is {machine}, not x86_64", advice)
    if "lm" not in flags:
        advice = "Hypervisors are 64-bit systems: use another machine."
        return Check(name, State.FAIL, "no flag lm: it is no 64-bit processor", advice)
    extension = next((flag for flag in kvm.MODULE_OF if flag in flags), "")
    if extension:
        return Check(name, State.OK, f"64 bits (lm), hardware virtualization ({extension})")
    found = "64 bits (lm), but neither vmx nor svm: guests have to be emulated"
    if "hypervisor" in flags:
        advice = (
            "This machine is a guest itself: its host must nest (kvm_intel or kvm_amd with nested=1) "
            "and give it <cpu mode='host-passthrough'/>."
        )
    else:
        advice = "Enable VT-x or AMD-V (SVM) in the firmware's settings."
    return Check(name, State.WARN, found, advice)


def nested(system: System) -> Check:
    """Does KVM give its guests what they need to have guests."""
    name, found = "nested KVM", kvm.nested()
    if found is None:
        return Check(name, State.NA, "neither kvm_intel nor kvm_amd is loaded")
    if found.on:
        return Check(name, State.OK, f"{found.module} has nested on")
    line = f"options {found.module} nested=1"
    return Check(
        name,
        State.WARN,
        f"{found.module} has nested off: guests on KVM see neither vmx nor svm",
        "Switch it on and load the module again while no guest runs, or reboot:",
        (
            f"echo '{line}' | {'' if system.is_root() else 'sudo '}tee {NESTED_CONF}",
            *_sudo(system, f"modprobe -r {found.module}", f"modprobe {found.module}"),
        ),
    )


def device(system: System, state: str, access: Access | None) -> Check:
    """Is /dev/kvm there, and for the user that libvirt runs QEMU as."""
    name = str(daemons.KVM)
    if not state or access is None:
        module = next((kvm.MODULE_OF[flag] for flag in kvm.MODULE_OF if flag in kvm.flags()), "")
        if not module:
            return Check(name, State.NA, "not there, nor would this processor make use of it")
        return Check(
            name,
            State.WARN,
            "not there, although the processor could",
            "Load the module; if that fails, the firmware's settings keep it off:",
            _sudo(system, f"modprobe {module}"),
        )
    shown = _owner_and_mode(state)
    how = "opened as" if access.tried else "by its mode open to"
    if access.opens:
        return Check(name, State.OK, f"{shown}, {how} {access.who}")
    how = "could not open it" if access.tried else "can't open it by its mode"
    return Check(
        name,
        State.WARN,
        f"{shown}: {access.who}, who runs libvirt's QEMU, {how}",
        "Give it to the group kvm, and have libvirt look again:",
        open_commands(system, access.who),
    )


def open_commands(system: System, who: str) -> tuple[str, ...]:
    """What gives libvirt's QEMU /dev/kvm, and makes libvirt forget what it knew about it."""
    if daemons.wanted_kvm_state():
        return (SET_UP,)
    mine = (
        f"usermod -aG kvm {who}",
        f"chown root:kvm {daemons.KVM}",
        f"chmod 0660 {daemons.KVM}",
    )
    if daemons.has_service_manager():
        return _sudo(system, *mine, "systemctl restart libvirtd")
    return (*_sudo(system, *mine), SET_UP)


def _owner_and_mode(state: str) -> str:
    owner, mode = state.split()
    gid = int(owner.partition(":")[2])
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return f"group {group}, mode {mode}"


def kvm_guest(found: Evidence) -> Check:
    """Does a BIOS guest run on KVM."""
    name, proof = "KVM guest", found.kvm
    if proof is None:
        reason = f"{daemons.KVM} can't be opened" if found.device else f"no {daemons.KVM}"
        return Check(name, State.NA, f"not tried: {reason}")
    if not proof.booted:
        return Check(
            name,
            State.WARN,
            f"{daemons.KVM} is there, but a BIOS guest on it {proof.why}",
            "Guests are emulated instead: slower, but nested KVM works inside all the same.",
        )
    if proof.nesting:
        return Check(name, State.OK, f"{_ran(proof)} and sees {proof.nesting}")
    return Check(
        name,
        State.WARN,
        f"{_ran(proof)}, but sees neither vmx nor svm: guests inside are emulated",
        "See `nested KVM` above.",
    )


def emulated_guest(found: Evidence) -> Check:
    """Does the same guest run emulated: the proof of the proof, and what remains without KVM."""
    name, proof = "emulation", found.control
    if proof is None:
        return Check(name, State.NA, "not tried: not needed where KVM runs guests")
    if proof.booted:
        sees = f" and sees {proof.nesting}" if proof.nesting else ""
        return Check(name, State.OK, f"{_ran(proof)}{sees}")
    advice = "QEMU or its firmware (SeaBIOS) is damaged: install it again."
    packages_named = "apt-get install --reinstall qemu-system-x86 seabios"
    return Check(name, State.FAIL, f"a BIOS guest {proof.why}", advice, (packages_named,))


def _ran(proof: Proof) -> str:
    return f"a BIOS guest ran through in {proof.seconds:.1f} s"


def remembered_guest(verdict: Verdict) -> Check:
    """The last try, where none was made now."""
    state = State.OK if verdict.accelerator == "kvm" else State.WARN
    return Check("KVM guest", state, f"{verdict.why} (tried {verdict.checked})")


def programs(system: System) -> Check:
    """Are the system's programs there."""
    name, lacking = "programs", packages.missing(system)
    if not lacking:
        return Check(name, State.OK, "all there")
    found = f"missing: {' '.join(lacking)}"
    if system.which("apt-get"):
        install = f"apt-get install --no-install-recommends {' '.join(lacking)}"
        return Check(
            name, State.FAIL, found, f"`{SET_UP}` installs them, or do:", _sudo(system, install)
        )
    return Check(name, State.FAIL, found, "Install them; these are Debian's names.")


def qemu(system: System) -> Check:
    """Is QEMU there, and which."""
    name = "QEMU"
    told = system.run([bootproof.QEMU, "--version"], timeout_s=20)
    version = re.search(r"version (\S+)", told.out)
    if told.ok and version:
        return Check(name, State.OK, f"{version[1]}, {system.which(bootproof.QEMU)}")
    return Check(name, State.FAIL, f"{bootproof.QEMU}: {told.last}", "Set up:", (SET_UP,))


def libvirt(system: System) -> Check:
    """Does libvirt answer, and where does it live."""
    name = "libvirt"
    try:
        pid = daemons.libvirt_pid()
    except Problem as refused:
        return Check(name, State.FAIL, str(refused))
    if pid is None:
        return Check(name, State.FAIL, f"nobody answers on {daemons.SOCKETS[0]}", "", (SET_UP,))
    told = system.run(["virsh", "-c", daemons.URI, "version", "--daemon"], timeout_s=60)
    if not told.ok:
        return Check(name, State.FAIL, f"`virsh version` says: {told.last}", "", (SET_UP,))
    daemon = re.search(r"daemon: (\S+)", told.out)
    hypervisor = re.search(r"Running hypervisor: (.+)", told.out)
    version = " with ".join(found[1] for found in (daemon, hypervisor) if found)
    return Check(name, State.OK, f"{version}, {_home(pid)}")


def _home(pid: int) -> str:
    if namespace := daemons.where(pid):
        return f"in network namespace {namespace}"
    if daemons.has_service_manager():
        return "run by systemd"
    return f"run by {processes.name(pid) or 'process'} (pid {pid}), not started by nestlab"


def domain(system: System, kind: str, trip: Trip, reaping: Reaping, access: Access | None) -> Check:
    """How long does libvirt take for a domain, and why so long."""
    name = "domain"
    if trip.why:
        advice = f"See {daemons.KVM} above and libvirtd's log in /var/log/libvirt."
        return Check(name, State.FAIL, f"a trial domain of type {kind}: {trip.why}", advice)
    found = f"created in {trip.create_s:.1f} s, destroyed in {trip.destroy_s:.1f} s (type {kind})"
    if trip.create_s + trip.destroy_s <= SLOW_DOMAIN_S:
        return Check(name, State.OK, found)
    causes = []
    if access and not access.opens:
        causes.append(
            f"{access.who} can't open {daemons.KVM}, so libvirt drops what it knows of QEMU and "
            "probes it again for each domain"
        )
    if reaping.seconds > trial.SLOW_REAPING_S:
        causes.append(
            f"{reaping.reaper} collects dead processes only after up to {reaping.seconds:.1f} s, and "
            "libvirt waits for each that it ends"
        )
    if not causes:
        why = f"neither cause known for that is met: {daemons.KVM} opens, process 1 is quick"
        return Check(name, State.WARN, f"{found}; slow, {why}", "See libvirtd's log.")
    commands = open_commands(system, access.who) if access and not access.opens else ()
    return Check(name, State.WARN, f"{found}; slow: {'; and '.join(causes)}", "", commands)


def process_one(reaping: Reaping) -> Check:
    """Does whoever adopts orphans collect them soon."""
    name = "reaping"
    found = f"{reaping.reaper} collects dead processes within {reaping.seconds:.1f} s"
    if reaping.seconds <= trial.SLOW_REAPING_S:
        return Check(name, State.OK, found)
    advice = (
        "Each end of a guest takes that much longer. A container should be started with an "
        "init that waits for its children."
    )
    return Check(name, State.WARN, found, advice)


def stack_file(stack: str, needs: Needs) -> Check:
    """Can the stack file be deployed, as far as it says so itself."""
    if needs.refused:
        return Check("stack", State.FAIL, f"{stack} can't be deployed", needs.refused)
    if needs.why:
        return Check("stack", State.NA, f"{stack} was not read: {needs.why}")
    if needs.absent:
        advice = "Put them there, or correct the paths in the stack file; the kind's page in docs/ has what to download."
        found = f"{stack} names files that are not there: {', '.join(needs.absent)}"
        return Check("stack", State.FAIL, found, advice)
    return Check("stack", State.OK, stack)


def memory(stack: str, needs: Needs) -> Check:
    """Is there memory for the stack's first layer."""
    name, total, free = "memory", capacity.memory_mib(), capacity.available_mib()
    have = f"{free} MiB available of {total} MiB"
    if elsewhere := _not_asked(needs):
        return Check(name, State.NA, f"{have}; {elsewhere}")
    found = f"stack {stack} takes {needs.memory_mib} MiB, {have}"
    if needs.memory_mib > total:
        advice = f"Make the hosts in stacks/Pulumi.{stack}.yaml smaller, or take another stack."
        return Check(name, State.FAIL, found, advice)
    if needs.memory_mib > free:
        advice = "Unless it is this lab that runs already: end something, or make the lab smaller."
        return Check(name, State.WARN, found, advice)
    return Check(name, State.OK, found)


def disk(stack: str, needs: Needs, folder: Path) -> Check:
    """Is there room for the stack's disks; they grow as they are written to."""
    at, free = capacity.disk_free_gib(folder)
    have = f"{free:.0f} GiB free in {at}"
    if elsewhere := _not_asked(needs):
        return Check("disk", State.NA, f"{have}; {elsewhere}")
    found = f"stack {stack} takes up to {needs.disk_gib} GiB, {have}"
    if needs.disk_gib > free:
        advice = (
            "Disks are thin and begin small, but guests stop when the host's disk is full: free "
            "space, or set lab.host.pool_path to a folder with room."
        )
        return Check("disk", State.WARN, found, advice)
    return Check("disk", State.OK, found)


def cores(stack: str, needs: Needs) -> Check:
    """Do virtual cores crowd the real ones."""
    real = capacity.cores()
    if elsewhere := _not_asked(needs):
        return Check("cores", State.NA, f"{real}; {elsewhere}")
    found = f"stack {stack} has {needs.cores} virtual cores on {real} real ones"
    if needs.cores > CROWDED * real:
        advice = "Guests wait for each other: expect slow boots, or make the lab smaller."
        return Check("cores", State.WARN, found, advice)
    return Check("cores", State.OK, found)


def address_ranges(system: System, needs: Needs, namespace: str) -> Check:
    """Are the stack's outer subnets free where its guests will live."""
    name = "addresses"
    if elsewhere := _not_asked(needs):
        return Check(name, State.NA, elsewhere)
    if not needs.subnets:
        return Check(name, State.NA, "the stack has no subnet of its own on the outer host")
    used = addresses.usage(system, namespace, needs.networks)
    listed = ", ".join(needs.subnets.values())
    if overlaps := addresses.collisions(needs.subnets, used):
        advice = "Give the stack's network another subnet, or remove what has it."
        state = State.FAIL if any(overlap.blocks for overlap in overlaps) else State.WARN
        return Check(name, state, "; ".join(overlap.words for overlap in overlaps), advice)
    if used.unseen:
        return Check(name, State.OK, f"{listed}: no other network of libvirt's; {used.unseen}")
    return Check(name, State.OK, f"{listed}: free")


def _not_asked(needs: Needs) -> str:
    if needs.why:
        return f"not checked: {needs.why}"
    if not needs.uri.startswith("qemu:///"):
        return f"not checked: the stack's outer host is {needs.uri}"
    return ""


def engine() -> Check:
    """Is the Pulumi engine where the commands look for it."""
    name, program = "engine", paths.BIN / "pulumi"
    if not stack_needs.PYTHON.exists():
        return Check(name, State.WARN, "the Python environment is not there", "", (BUILD,))
    if not program.exists():
        return Check(name, State.WARN, f"{program.name} is not there", "", (BUILD,))
    return Check(name, State.OK, f"{program.relative_to(paths.ROOT)}")
