"""Whole shipped stacks on this machine's own libvirt, the products played by appliances.

A failure here is a stack that can't come up: answers that the installer does not find or that say
something else than was planned, a gate that never opens, a way in that is refused; or harm at either layer
that `pulumi up` does not mend. See `tests.support.appliance`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Any

import pytest
from fakepve.certs import make_cert

from components.kinds.hyperv.powershell import ARGV, Script
from tests.host.test_lab import changes
from tests.support import images, standins
from tests.support.appliance import image
from tests.support.checkout import Checkout, virsh
from toolchain.bootstrap import pins
from toolchain.engine import golang

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.appliance.image import Image

pytestmark = [pytest.mark.host, pytest.mark.spread]

State = Any
STATE = "/var/lib/appliance/machine/state.json"


@dataclass(frozen=True)
class Case:
    """How one kind's stack is looked at, and harmed, from inside its hypervisor."""

    machine: str
    media: Callable[[Image, Path], None]
    """Puts what the stack file names into the project's folder for media."""
    runs: Callable[[State], set[str]]
    """The guests that run, by what the product knows."""
    guests: set[str]
    stop: Callable[[State], list[str]]
    """Switches one of them off, by the product's own command."""
    edit: tuple[str, int]
    """A guest whose memory becomes so many MiB."""
    edited: tuple[list[str], str]
    """A command there, and what it says then."""
    state: tuple[str, ...] = ("cat", STATE)
    """What prints what the product knows, as JSON."""


def _cloud(appliance: Image, to: Path) -> None:
    image.cloud_image(appliance, to)


def _virtualbox(appliance: Image, media: Path) -> None:
    _cloud(appliance, media / "noble-server-cloudimg-amd64.img")
    standins.debian_iso(media).rename(media / "debian-12-netinst.iso")


def _workstation(appliance: Image, media: Path) -> None:
    _cloud(appliance, media / "debian-12-generic-amd64.qcow2")
    bundle = media / "VMware-Workstation-Full-17.6.4-24832109.x86_64.bundle"
    bundle.write_bytes(b"#!/usr/bin/env bash\n# VMware Installer Launcher\n" + bytes(600))
    standins.debian_iso(media).rename(media / "TinyCore-current.iso")


def _xenserver(appliance: Image, media: Path) -> None:
    made = image.beside(appliance, "boot/isolinux/isolinux.bin")
    standins.xcpng_iso(media, beside=made).rename(media / "xcp-ng.iso")
    standins.debian_iso(media).rename(media / "live.iso")


def _esxi(appliance: Image, media: Path) -> None:
    made = image.beside(appliance, "ISOLINUX.BIN")
    standins.esxi_iso(media, beside=made).rename(media / "esxi.iso")
    standins.debian_iso(media).rename(media / "live.iso")


def _proxmox(appliance: Image, media: Path) -> None:
    booted = standins.fat_image("", appliance.uefi.read_bytes())
    made = image.beside(appliance, "boot/grub/i386-pc/eltorito.img") | {"efi.img": booted}
    standins.proxmox_iso(media, beside=made).rename(media / "proxmox-ve.iso")
    (media / "debian-12-nocloud-amd64.qcow2").write_bytes(images.qcow2())


def _hyperv(appliance: Image, media: Path) -> None:
    booted = standins.fat_image("", appliance.uefi.read_bytes())
    made = image.beside(appliance) | {"efi/microsoft/boot/efisys_noprompt.bin": booted}
    standins.windows_iso(media, beside=made).rename(media / "windows-server.iso")
    standins.debian_iso(media).rename(media / "debian-netinst.iso")


def _hyperv_stops(_: State) -> list[str]:
    script = Script()
    guest = {"VM": [script.add("Get-VM", Name="debian")]}
    script.add("Stop-VM", take=guest, TurnOff=True, Force=True)
    return ["sh", "-c", f"printf %s {quote(script.document())} | {join(ARGV)}"]


def _virtualbox_runs(state: State) -> set[str]:
    return {each["name"] for each in state["vms"].values() if each["VMState"] == "running"}


def _xenserver_runs(state: State) -> set[str]:
    return {each["name-label"] for each in state["vm"].values() if each["power-state"] == "running"}


def _xenserver_stops(state: State) -> list[str]:
    [uuid] = [key for key, each in state["vm"].items() if each["name-label"] == "outside"]
    return ["xe", "vm-shutdown", f"uuid={uuid}", "--force"]


def _esxi_runs(state: State) -> set[str]:
    on = [each["vmx"] for each in state["vms"].values() if each["power"] == "Powered on"]
    return {vmx.split("/")[-2] for vmx in on}


def _esxi_stops(state: State) -> list[str]:
    [vmid] = [key for key, each in state["vms"].items() if "/outside/" in each["vmx"]]
    return ["vim-cmd", "vmsvc/power.off", vmid]


def _proxmox_runs(state: State) -> set[str]:
    return {each["name"] for each in state if each["status"] == "running"}


def _proxmox_stops(state: State) -> list[str]:
    [vmid] = [each["vmid"] for each in state if each["name"] == "pve-live"]
    return ["qm", "stop", str(vmid)]


PVE_GUESTS = ("pvesh", "get", "/cluster/resources", "--type", "vm", "--output-format", "json")
GUESTS = "/var/lib/nestlab/workstation/guests"
CASES = {
    "virtualbox": Case(
        machine="virtualbox1",
        media=_virtualbox,
        runs=_virtualbox_runs,
        guests={"installer", "web", "edge"},
        stop=lambda _: ["VBoxManage", "controlvm", "installer", "poweroff"],
        edit=("web", 768),
        edited=(["cat", STATE], '"memory": 768'),
    ),
    "workstation": Case(
        machine="workstation1",
        media=_workstation,
        runs=lambda state: {path.split("/")[-2] for path in state["running"]},
        guests={"tiny", "web"},
        stop=lambda _: ["vmrun", "stop", f"{GUESTS}/tiny/guest.vmx", "hard"],
        edit=("web", 768),
        edited=(["cat", f"{GUESTS}/web/guest.vmx"], 'memsize = "768"'),
    ),
    "xenserver": Case(
        machine="xenserver1",
        media=_xenserver,
        runs=_xenserver_runs,
        guests={"outside", "inside"},
        stop=_xenserver_stops,
        edit=("inside", 768),
        edited=(["cat", STATE], str(768 << 20)),
    ),
    "hyperv": Case(
        machine="hyperv1",
        media=_hyperv,
        runs=lambda state: {
            each["Name"] for each in state["vms"].values() if each["State"] == "Running"
        },
        guests={"ipxe", "debian"},
        stop=_hyperv_stops,
        edit=("debian", 768),
        edited=(["cat", STATE], str(768 << 20)),
    ),
    "proxmox": Case(
        machine="proxmox1",
        media=_proxmox,
        state=PVE_GUESTS,
        runs=_proxmox_runs,
        guests={"pve-live", "pve-clone"},
        stop=_proxmox_stops,
        edit=("pve-clone", 768),
        edited=([*PVE_GUESTS], f'"maxmem": {768 << 20}'),
    ),
    "esxi": Case(
        machine="esxi1",
        media=_esxi,
        runs=_esxi_runs,
        guests={"outside", "inside"},
        stop=_esxi_stops,
        edit=("inside", 768),
        edited=(
            ["cat", "/vmfs/volumes/datastore1/nestlab/guests/inside/inside.vmx"],
            'memSize = "768"',
        ),
    ),
}


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What plays all of them: with the SDK's simulator where it is built."""
    folder = tmp_path_factory.mktemp("appliance")
    certificate, key, _ = make_cert(str(folder), hosts=("esxi1",))
    served = {"sdk.pem": Path(certificate), "sdk.key": Path(key)}
    if (program := golang.place(pins.VCSIM)).is_file():
        served["vcsim"] = program
    return image.image_of(folder, [(file, f"{image.CODE}/{at}") for at, file in served.items()])


@pytest.mark.parametrize("kind", CASES)
def test_a_shipped_stack_lives_through_everything_on_its_appliance(
    kind: str, appliance: Image, tmp_path: Path
) -> None:
    case = CASES[kind]
    if kind == "esxi" and not golang.place(pins.VCSIM).is_file():
        pytest.skip("needs vcsim: run `make toolchain`")
    checkout = Checkout.make(tmp_path / "checkout", stack=kind)
    media = checkout.root / "media"
    media.mkdir()
    case.media(appliance, media)
    try:
        _prepare(checkout, kind)
        _lives(checkout, case)
    finally:
        checkout.destroy()


def _prepare(checkout: Checkout, kind: str) -> None:
    done = checkout.make_target("toolchain", f"STACK={kind}")
    assert done.code == 0, done.said
    checkout.prepare("host")
    facts = checkout.root / ".nestlab" / "host.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"stands_in": [kind]}))
    done = checkout.pulumi("stack", "init", kind)
    assert done.code == 0, done.said


def _lives(checkout: Checkout, case: Case) -> None:
    def inside(*command: str) -> str:
        done = checkout.inside(*command, host=case.machine)
        assert done.code == 0, done.said
        return done.said

    def state() -> State:
        return json.loads(inside(*case.state))

    def all_run() -> None:
        assert case.runs(state()) >= case.guests, state()

    said = checkout.preview()
    for guest in case.guests:
        assert f" {case.machine}-{guest}-" in said, "both layers are shown before either is there"
    checkout.up()
    all_run()
    assert set(changes(checkout.up())) == {"unchanged"}

    guest, mib = case.edit
    checkout.edit(
        lambda lab: lab["hypervisors"][case.machine]["guests"][guest].update(memory_mib=mib)
    )
    said = checkout.up()
    updated = re.findall(r"~ +\S+ (\S+) updated", said)
    own = f"{case.machine}-{guest}-"
    assert updated, said
    assert [name for name in updated if not name.startswith(own)] == [], said
    assert set(changes(said)) == {"updated", "unchanged"}, said
    command, shown = case.edited
    assert shown in inside(*command)

    inside(*case.stop(state()))
    assert not case.runs(state()) >= case.guests
    assert "`pulumi up` mends it" in checkout.preview()
    checkout.up()
    all_run()

    # Switched off the hard way: what it was told at its first boot is on its disk.
    virsh("destroy", f"{checkout.lab}-{case.machine}")
    assert "is shut off; `pulumi up` mends it" in checkout.preview()
    checkout.up()
    all_run()
    assert set(changes(checkout.up())) == {"unchanged"}

    checkout.down()
    assert checkout.left() == []
