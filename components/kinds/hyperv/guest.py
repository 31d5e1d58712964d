"""Guests of Hyper-V on Windows Server, by its PowerShell cmdlets.

A seed is a second DVD drive (``settings``). Left out: generation 2's secure boot (lab images are not signed for it), dynamic memory, checkpoints,
spoofing of MAC addresses: no hypervisor of a lab stands inside these guests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.hyperv.cmdlets import DISK_S, ask, remove_folder
from components.kinds.hyperv.facts import GuestFacts, generation, read
from components.kinds.hyperv.medium import IMAGE_SUFFIX
from components.kinds.hyperv.names import (
    DISK,
    disk_of,
    folder_of,
    problem_of_name,
    problem_of_owner,
)
from components.kinds.hyperv.objects import Vhd, objects, properties
from components.kinds.hyperv.powershell import Script
from components.kinds.hyperv.settings import (
    DATA_AT,
    GIB,
    MIB,
    differences,
    has_disk,
    insert_again,
    make_disk,
    model_of,
    most_discs,
    under_checkpoint,
)
from components.reach.driver import Driver, DriverError, foreign
from components.reach.orders import GuestOrder
from components.reach.waiting import Seen, say, wait_for

if TYPE_CHECKING:
    from components.kinds.hyperv.facts import Guest
    from components.reach.shell import Shell

LEAST_MIB = 32
"""Least memory of a guest: "between 32 MB and" is what Hyper-V itself says."""
MOST_NICS = {"legacy": 4, "synthetic": 8}
"""Of one guest (Microsoft: Plan for Hyper-V scalability)."""
STEADY = frozenset({"Running", "Off", "Saved", "Paused"})
STILL_S = 120.0
"""How long a guest may take to end what it is in the middle of: starting, saving."""


class GuestDriver(Driver[GuestOrder]):
    """Virtual machines of generation 1 (firmware bios) or 2 (uefi).

    The disk is a dynamic VHDX, or a differencing one on the uploaded image; it is made under another
    name first, so that a disk that is there is whole, and is removed only with its guest.
    """

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "firmware", "image", "store", "owner")

    @override
    def problem(self, wanted: GuestOrder) -> str:
        names = [problem_of_name("network", nic.network) for nic in wanted.nics]
        named = [problem_of_name("guest", wanted.name), problem_of_owner(wanted), *names]
        return next(filter(None, named), "") or _problem_of_hardware(wanted)

    @override
    def look(self, shell: Shell, wanted: GuestOrder) -> Seen:
        found = read(shell, wanted)
        name = wanted.name
        if found.guest is None:
            return Seen(ok=False, text=f"guest {name} is not there any more")
        if wrong := differences(found, found.guest, wanted).wrong:
            return Seen(ok=False, text=f"guest {name} {wrong[0]}")
        state = found.guest.vm.state
        return Seen(ok=state == "Running", text=f"guest {name} is {state.lower()}")

    @override
    def ensure(self, shell: Shell, wanted: GuestOrder) -> None:
        found = read(shell, wanted)
        if found.guest is None:
            _make(shell, wanted, found)
            found = read(shell, wanted)
        guest = found.guest
        if guest is None:
            raise DriverError(f"guest {wanted.name} on {shell.name} was made and is gone again")
        if guest.vm.state not in STEADY:
            found = _still(shell, wanted)
            guest = found.guest
            if guest is None:
                raise DriverError(f"guest {wanted.name} on {shell.name} was removed meanwhile")
        _keeps_its_disk(shell, found, wanted)
        _keeps_its_checkpoints(shell, found, guest, wanted)
        work = differences(found, guest, wanted)
        state = guest.vm.state
        if work.off and state != "Off":
            say(f"{wanted.name}: switched off for its new settings ({work.wrong[0]})")
            state = "Off"
        if state == "Paused":
            work.script.add("Resume-VM", take=work.vm)
        elif state != "Running":
            if state == "Off":
                insert_again(work, wanted)
            work.script.add("Start-VM", take=work.vm)
        if len(work.script.calls) > 1:
            ask(shell, work.script, timeout_s=DISK_S)

    @override
    def remove(self, shell: Shell, wanted: GuestOrder) -> None:
        found = read(shell, wanted)
        if found.guest:
            script = Script()
            vm = {"VM": [script.add("Get-VM", Id=found.guest.vm.id)]}
            if found.guest.vm.state not in {"Off", "Saved"}:
                script.add("Stop-VM", take=vm, TurnOff=True, Force=True)
            script.add("Remove-VM", take=vm, Force=True)
            ask(shell, script, timeout_s=DISK_S)
        remove_folder(shell, folder_of(wanted))


def _problem_of_size(wanted: GuestOrder) -> str:
    memory = wanted.memory_mib
    if memory < LEAST_MIB or memory % 2:
        return f"{memory} MiB of memory: Hyper-V gives {LEAST_MIB} or more, by twos"
    most = most_discs(wanted)
    if len(wanted.disks) > len(DATA_AT):
        return f"{len(wanted.disks)} further disks: Hyper-V has places for {len(DATA_AT)} here"
    if len(wanted.discs) > most:
        return f"{len(wanted.discs)} discs: Hyper-V has drives for {most} of them there"
    return ""


def _problem_of_hardware(wanted: GuestOrder) -> str:
    """Say what Hyper-V does not give a guest; empty when it gives all of it."""
    if wrong := _problem_of_size(wanted):
        return wrong
    models = [model_of(nic) for nic in wanted.nics]
    for model, most in MOST_NICS.items():
        if models.count(model) > most:
            return f"{models.count(model)} NICs of model {model}: Hyper-V gives a guest {most}"
    if wanted.firmware == "uefi" and "legacy" in models:
        return "a legacy NIC with firmware uefi: generation 2 has synthetic ones alone"
    if wanted.firmware == "bios" and "network" in wanted.boot and "legacy" not in models:
        return "boot from the network with firmware bios: only a legacy NIC does, or firmware uefi"
    if wanted.image and not wanted.image.lower().endswith(IMAGE_SUFFIX):
        return f"image {wanted.image}: Hyper-V takes {IMAGE_SUFFIX} alone"
    return ""


def _still(shell: Shell, wanted: GuestOrder) -> GuestFacts:
    """Wait until a guest is not in the middle of something."""
    found: list[GuestFacts] = []

    def steady() -> Seen:
        found[:] = [read(shell, wanted)]
        guest = found[0].guest
        state = guest.vm.state if guest else "Off"
        return Seen(ok=state in STEADY, text=f"it is {state.lower()}")

    wait_for(wanted.name, steady, deadline_s=STILL_S)
    return found[0]


def _keeps_its_disk(shell: Shell, found: GuestFacts, wanted: GuestOrder) -> None:
    """Refuse to make a disk smaller, or to take it away, while its guest stays."""
    want = wanted.disk_gib * GIB
    if DISK in found.files and not found.disk_bytes:
        # In its own words, why it can't be read.
        script = Script()
        script.add("Get-VHD", *properties(Vhd), Path=disk_of(wanted))
        found.disk_bytes = objects(Vhd, ask(shell, script)[0])[0].size
    if not found.disk_bytes or (wanted.image and not want) or found.disk_bytes <= want:
        return
    raise DriverError(
        f"the disk of {wanted.name} on {shell.name} has {found.disk_bytes / GIB:g} GiB, and the stack "
        f"says {want // GIB}: it can grow, not shrink; write {-(-found.disk_bytes // GIB)}, or remove "
        "the guest from the stack, `pulumi up`, and add it again: what is on it is lost then"
    )


def _keeps_its_checkpoints(
    shell: Shell, found: GuestFacts, guest: Guest, wanted: GuestOrder
) -> None:
    """Refuse to grow a disk that a checkpoint stands on."""
    if stands := under_checkpoint(found, guest, wanted):
        raise DriverError(
            f"guest {wanted.name} on {shell.name} has a checkpoint ({stands}), which would not fit to a "
            "larger disk: remove its checkpoints (`Remove-VMCheckpoint`), or give the disk its size of before"
        )


def _make(shell: Shell, wanted: GuestOrder, found: GuestFacts) -> None:
    """Make the guest itself, on the disk that it had if that is still there."""
    if found.strangers:
        raise foreign(shell, f"guest {wanted.name}", "rename this guest, or remove that one")
    script = Script()
    script.add("New-Item", ItemType="Directory", Force=True, Path=folder_of(wanted))
    if has_disk(wanted):
        if DISK in found.files:
            say(f"{wanted.name}: made again, on its own disk")
        else:
            make_disk(script, wanted)
    script.add(
        "New-VM",
        Name=wanted.name,
        Generation=generation(wanted),
        MemoryStartupBytes=wanted.memory_mib * MIB,
        NoVHD=True,
        Path=folder_of(wanted),
    )
    ask(shell, script, timeout_s=DISK_S)


DRIVER = GuestDriver()
