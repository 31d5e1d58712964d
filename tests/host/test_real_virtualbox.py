"""The laws of `tests.contract` on a real VirtualBox: Debian's own, in an emulated machine.

A failure here is what the stub of VBoxManage does otherwise than VBoxManage does: both have to be put
right, the driver and `tests.support.stubs.virtualbox`. Guests start for real, from a CD that halts the
processor; nothing here looks into them.

It is tried when it is asked for: the first time packages are fetched and a kernel module compiled, and
each command of VirtualBox' takes a second under emulation.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from components.kinds.virtualbox import medium, network
from components.kinds.virtualbox.guest import DRIVER as GUEST
from components.kinds.virtualbox.guest import UNIT
from components.kinds.virtualbox.model import KIND
from components.reach import waiting
from components.reach.driver import driver_of
from components.reach.orders import Nic, Reservation
from tests.contract.case import Case
from tests.contract.conftest import Trial
from tests.contract.test_laws import (
    test_1_what_was_made_satisfies_a_look,
    test_2_made_again_nothing_changes,
    test_3_and_4_removed_twice_or_never_made_is_fine,
    test_5_a_strangers_of_the_same_name_is_left_alone,
    test_6_made_whatever_command_fails,
    test_7_removed_whatever_command_fails,
    test_9_content_is_sent_once,
    test_10_an_edit_arrives_and_nothing_else_changes,
    test_10_what_was_done_by_hand_is_seen_and_mended,
)
from tests.support import images, virtualbox_image
from tests.support.emulated import Emulated, booted
from tests.support.orders import MAC, OWNER, guest_order, medium_order, network_order
from toolchain.machine.system import System
from toolchain.testing import SOAK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder
    from components.reach.shell import SshShell

__all__ = [
    "test_1_what_was_made_satisfies_a_look",
    "test_2_made_again_nothing_changes",
    "test_3_and_4_removed_twice_or_never_made_is_fine",
    "test_5_a_strangers_of_the_same_name_is_left_alone",
    "test_6_made_whatever_command_fails",
    "test_7_removed_whatever_command_fails",
    "test_9_content_is_sent_once",
    "test_10_an_edit_arrives_and_nothing_else_changes",
    "test_10_what_was_done_by_hand_is_seen_and_mended",
]
pytestmark = [pytest.mark.host, pytest.mark.soak]

STORE = "/var/lib/nestlab/virtualbox"
THEIRS = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c09"
KERNEL = (
    "root=/dev/vda rw console=ttyS0 quiet panic=1 no_timer_check systemd.service_watchdogs=no "
    "systemd.default_timeout_start_sec=1800 systemd.default_device_timeout_sec=1800 "
    "systemd.mask=systemd-modules-load.service systemd.mask=systemd-journal-flush.service"
)
"""Emulated beside other work a kernel that checks its timer finds none, and a minute is no time for a service:
the two that are masked have it written in their units."""
RESOLVER = "10.0.2.3"
"""What the image has in resolv.conf."""
SPACE = re.compile(r"[ \t]+")


# What it holds -----------------------------------------------------------------------------------

LOOK = r"""
VBoxManage list vms | sed -n 's/.*{\(.*\)}$/\1/p' | while read -r uuid; do
    echo "@vm $uuid"; VBoxManage showvminfo "$uuid" --machinereadable
done
echo @natnets; VBoxManage list --long natnets
echo @interfaces; VBoxManage list hostonlyifs
echo @servers; VBoxManage list dhcpservers
echo @extra; VBoxManage getextradata global enumerate
echo @disks; VBoxManage list hdds | grep ^Location
echo @files; find /var/lib/nestlab /root -path /root/.config -prune -o -type f -printf '%p %s\n' | sort
echo @units; find /etc/systemd/system -name 'nestlab*' -printf '%p %l\n' | sort
"""
"""All at once, past the driver and what it reads with."""
SHOWN = re.compile(
    r"name|VMState|memory|cpus|chipset|firmware|graphicscontroller|boot\d|vrde|storagecontroller(name|type)\d"
    r"|(SATA|IDE|SCSI|VirtIO)-\d+-\d+"
)
NIC = re.compile(
    r"(nic|nictype|macaddress|cableconnected|nat-network|hostonlyadapter|bridgeadapter)(\d+)"
)


def held(ssh: SshShell) -> dict[str, Any]:
    """Return what VirtualBox has, as its own words but for what it counts."""
    done = ssh.run(["sh", "-c", LOOK], timeout_s=600)
    assert done.ok, done.said
    parts: dict[str, list[str]] = {}
    for line in done.out.splitlines():
        if line.startswith("@"):
            parts[line] = []
        elif line.strip():
            next(reversed(parts.values())).append(SPACE.sub(" ", line.rstrip()))
    found: dict[str, Any] = {}
    for name, lines in parts.items():
        found[name] = _guest(lines) if name.startswith("@vm ") else _plain(name, lines)
    return found


def _guest(lines: list[str]) -> dict[str, str]:
    pairs = dict(re.sub('"', "", line).partition("=")[::2] for line in lines if "=" in line)
    out = {
        key[3:] for key, value in pairs.items() if re.fullmatch(r"nic\d+", key) and value == "none"
    }
    return {
        key: value
        for key, value in pairs.items()
        if SHOWN.fullmatch(key) or ((nic := NIC.fullmatch(key)) and nic[2] not in out)
    }


def _plain(name: str, lines: list[str]) -> list[str]:
    if name == "@servers":
        return _servers(lines)
    # A disk's and an interface's own number is drawn anew each time.
    return [line for line in lines if not re.match(r"(GUID|UUID|HardwareAddress|Status):", line)]


def _servers(lines: list[str]) -> list[str]:
    """Without what VirtualBox sets itself whenever a NAT network starts: options of all (V1)."""
    kept, of_all = [], False
    for line in lines:
        if re.match(r"\S.*:", line):
            of_all = line.startswith("Global Configuration")
        if not of_all:
            kept.append(line)
    return kept


def options(ssh: SshShell) -> dict[str, str]:
    """Return the options that the server of the NAT network gives to all."""
    text = ssh.run(["VBoxManage", "list", "dhcpservers"], timeout_s=300).out
    # VirtualBox has one for a host-only network of its own, and lists it first.
    own = re.split(r"(?m)^NetworkName: +own\n", text)[-1]
    of_all = own.partition("Global Configuration")[2].partition("Groups:")[0]
    return dict(re.findall(r"(?m)^\s+(\d+)/\w+:\s*(\S.*)$", of_all))


# The machine -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    if not os.environ.get(SOAK):
        pytest.skip(
            f"a real VirtualBox takes an hour under emulation: `python3 -m toolchain test host --soak`,"
            f" or set {SOAK}"
        )
    image = virtualbox_image.ensure(System())
    arguments = ["-machine", "q35", "-cpu", "max", "-smp", "1", "-m", "3072"]
    arguments += ["-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd")]
    arguments += ["-append", KERNEL]
    folder = tmp_path_factory.mktemp("virtualbox")
    with booted("vbox1", image / "root.qcow2", folder, arguments=arguments, observe=held) as made:
        for module in ("vboxdrv", "vboxnetflt", "vboxnetadp"):
            done = made.ssh.run(["modprobe", module], timeout_s=300)
            assert done.ok, done.said
        # VirtualBox' own server starts with its first command, and takes its time.
        assert made.ssh.run(["VBoxManage", "list", "hostinfo"], timeout_s=300).ok
        yield made


@pytest.fixture(scope="module")
def pristine(machine: Emulated) -> Callable[[], Emulated]:
    return machine.keep()


@pytest.fixture(scope="module")
def halting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CD that boots, by El Torito, to a processor that is halted for good."""
    folder = tmp_path_factory.mktemp("halting")
    (folder / "tree").mkdir()
    # cli; hlt; jmp to the hlt: a guest that asks for no more of an emulated processor.
    (folder / "tree/boot.bin").write_bytes(b"\xfa\xf4\xeb\xfd".ljust(2048, b"\0"))
    line = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "HALT", "-b", "boot.bin", "-no-emul-boot"]
    line += ["-boot-load-size", "4", "-o", str(folder / "halt.iso"), str(folder / "tree")]
    subprocess.run(line, check=True, timeout=60, capture_output=True)
    return folder / "halt.iso"


# The cases ---------------------------------------------------------------------------------------

ASKS = frozenset(
    {
        *(f"VBoxManage {word}" for word in ("showvminfo", "list", "getextradata")),
        *("systemctl is-enabled", "stat", "cat", "ls", "ip", "sha256sum"),
    }
)
PATIENCE = {"components.kinds.virtualbox.guest.STOP_S": 5.0}
"""The guest is halted, and hears no button."""


def vbox(*words: str) -> Callable[[Emulated], None]:
    def do(machine: Emulated) -> None:
        done = machine.ssh.run(["VBoxManage", *words], timeout_s=300)
        assert done.ok, done.said

    return do


def steps(*each: Callable[[Emulated], object]) -> Callable[[Emulated], None]:
    def do(machine: Emulated) -> None:
        for step in each:
            step(machine)

    return do


def by_hand(*words: str) -> Callable[[Emulated], None]:
    def do(machine: Emulated) -> None:
        done = machine.ssh.run(list(words), timeout_s=300)
        assert done.ok, done.said

    return do


def networks(mode: str, afresh: Callable[[], Emulated]) -> Case[Emulated, NetworkOrder]:
    order = network_order(mode=mode, dhcp_start="10.78.0.4")
    server = "--network=" + ("own" if mode == "nat" else "HostInterfaceNetworking-vboxnet0")
    harms = {
        "its server is removed": vbox("dhcpserver", "remove", server),
        "a lease is another": vbox(
            "dhcpserver", "modify", server, f"--mac-address={MAC}", "--fixed-address=10.78.0.77"
        ),
        "its server is disabled": vbox("dhcpserver", "modify", server, "--disable"),
    }
    nat: dict[str, Any] = {
        "stranger": vbox("natnetwork", "add", "--netname", "own", "--network", "10.1.0.0/24"),
        "harms": harms
        | {
            "its subnet is another": vbox(
                "natnetwork", "modify", "--netname", "own", "--network", "10.99.0.0/24"
            ),
            "it is removed": vbox("natnetwork", "remove", "--netname", "own"),
        },
    }
    isolated: dict[str, Any] = {
        "no_stranger": "VirtualBox names interfaces itself",
        "harms": harms
        | {
            "its address is another": vbox(
                "hostonlyif", "ipconfig", "vboxnet0", "--ip", "192.168.56.9"
            ),
            "it is removed": vbox("hostonlyif", "remove", "vboxnet0"),
        },
    }
    return Case(
        f"virtualbox.network {mode}",
        lambda _: afresh(),
        lambda _: order,
        asks=ASKS,
        edits={
            "reservations": [Reservation("52:54:00:00:00:0a", "10.78.0.10", "x")],
            "domain": "lab.test",
            "dhcp": {"dhcp": False, "reservations": []},
        },
        fixed=dict.fromkeys(
            ("subnet", "prefix", "gateway", "dhcp_start", "dhcp_end"), "tried on the stub"
        ),
        hows=("cut",),
        patience=PATIENCE,
        **(nat if mode == "nat" else isolated),
    )


def media(name: str, afresh: Callable[[], Emulated]) -> Case[Emulated, MediumOrder]:
    def order(folder: Path) -> MediumOrder:
        file = folder / ("live.iso" if name == "iso" else "base.qcow2")
        file.write_bytes(images.iso() if name == "iso" else images.qcow2(2 << 30))
        return medium_order(file, store=STORE)

    harms = {"it is removed": by_hand("sh", "-c", f"rm {STORE}/*")}
    if name == "iso":
        harms["half of it is left"] = by_hand("truncate", "-s", "1000", f"{STORE}/live.iso")
    return Case(
        f"virtualbox.medium {name}",
        lambda _: afresh(),
        order,
        asks=ASKS,
        no_stranger="the store is the lab's own",
        fixed=dict.fromkeys(("path", "sha256", "size"), "another content, not a setting"),
        harms=harms,
        sends=lambda machine: [call.command for call in machine.calls].count("put"),
        hows=("cut",),
        patience=PATIENCE,
    )


PLUG = Nic("natnetwork own", MAC, "e1000", "10.78.0.9")


def guest(**other: Any) -> GuestOrder:
    plain = guest_order(memory_mib=128, cores=1, disk_gib=1)
    return replace(plain, nics=[PLUG], iso=f"{STORE}/halt.iso", store=STORE, **other)


def guests(afresh: Callable[[], Emulated]) -> Case[Emulated, GuestOrder]:
    off = vbox("controlvm", OWNER, "poweroff")

    def changed(*words: str) -> Callable[[Emulated], None]:
        return steps(off, vbox("modifyvm", OWNER, *words))

    port = ("--storagectl", "SATA", "--port", "1", "--device", "0")
    return Case(
        "virtualbox.guest",
        lambda _: afresh(),
        lambda _: guest(),
        asks=ASKS,
        stranger=vbox("createvm", "--name", "web", "--ostype", "Other_64", "--register"),
        edits={
            "memory_mib": 192,
            "disk_bus": "virtio",
            "nics": [replace(PLUG, model="virtio"), Nic("bridged ", "52:54:00:00:00:0b", "", "")],
            "autostart": False,
        },
        fixed=dict.fromkeys(
            ("cores", "firmware", "machine", "video", "boot", "iso", "seed", "console", "ready"),
            "tried on the stub",
        ),
        harms={
            "it is off": off,
            "it is saved": vbox("controlvm", OWNER, "savestate"),
            "it is paused": vbox("controlvm", OWNER, "pause"),
            "its memory is another": changed("--memory", "64"),
            "its NIC is another": changed("--nictype1", "virtio"),
            "it has one more NIC": changed("--nic2", "nat"),
            "its CD is out": steps(off, vbox("storageattach", OWNER, *port, "--medium", "none")),
            "it does not start with its host": by_hand("systemctl", "disable", UNIT.of(OWNER)),
            "its disk is removed": steps(off, by_hand("rm", f"{STORE}/guests/{OWNER}/disk.vdi")),
            "it is unregistered": steps(off, vbox("unregistervm", OWNER)),
        },
        hows=("cut",),
        patience=PATIENCE,
    )


CASES: dict[str, Callable[[Callable[[], Emulated]], Case[Emulated, Any]]] = {
    "network nat": lambda afresh: networks("nat", afresh),
    "network isolated": lambda afresh: networks("isolated", afresh),
    "medium iso": lambda afresh: media("iso", afresh),
    "medium image": lambda afresh: media("image", afresh),
    "guest": guests,
}


@dataclass(frozen=True)
class Real(Trial):
    """A trial whose host is made once: what was made before is gone back to."""

    kept: dict[str, Callable[[], Emulated]] = field(default_factory=dict)

    @override
    def made(self) -> Emulated:
        if self.case.name not in self.kept:
            host: Emulated = super().made()
            self.kept[self.case.name] = host.keep()
        return self.kept[self.case.name]()


@pytest.fixture(scope="module")
def kept() -> dict[str, Callable[[], Emulated]]:
    """Snapshots with what is ordered, by the case's name."""
    return {}


@pytest.fixture(scope="module")
def for_guests(pristine: Callable[[], Emulated], halting: Path) -> Callable[[], Emulated]:
    """A host with a network and a CD, and somebody else's guest."""
    host = pristine()
    network.DRIVER.ensure(host.shell(), network_order(dhcp_start="10.78.0.4"))
    medium.DRIVER.ensure(host.shell(), medium_order(halting, store=STORE))
    vbox("createvm", "--name", "theirs", "--ostype", "Other_64", "--uuid", THEIRS, "--register")(
        host
    )
    return host.keep()


@pytest.fixture(params=CASES)
def trial(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    machine: Emulated,
    kept: dict[str, Callable[[], Emulated]],
) -> Iterator[Trial]:
    name = request.param
    which = "for_guests" if name == "guest" else "pristine"
    afresh = request.getfixturevalue(which)
    case = CASES[name](afresh)
    for where, value in case.patience.items():
        monkeypatch.setattr(where, value)
    monkeypatch.setattr(waiting, "POLL_S", 0.5)
    before = machine.snapshots
    order = case.order(tmp_path)
    made = Real(case, driver_of(case.name.partition(" ")[0]), order, afresh, kept)
    if case.name not in kept:
        made.made()
        before = machine.snapshots
    yield made
    machine.forget(before)


@pytest.mark.parametrize("name", ["a b", "a'b;$(id)", "ä日本😀", "-n"])
def test_8_a_networks_name_arrives_or_is_refused(
    pristine: Callable[[], Emulated], name: str
) -> None:
    wanted = network_order(name=name, dhcp_start="10.78.0.4")
    if network.DRIVER.problem(wanted):
        return
    host = pristine()
    network.DRIVER.ensure(host.shell(), wanted)
    told = host.ssh.run(["VBoxManage", "list", "natnets"], timeout_s=300).out
    assert re.findall(r"(?m)^Name:[ ]+(.*)$", told) == [name]
    seen = network.DRIVER.look(host.shell(), wanted)
    assert seen.ok, seen.text


# V1 and V2 ---------------------------------------------------------------------------------------


@pytest.fixture
def running(for_guests: Callable[[], Emulated], monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """A host whose guest runs on the lab's NAT network, which has a domain."""
    monkeypatch.setattr("components.kinds.virtualbox.guest.STOP_S", 5.0)
    host = for_guests()
    network.DRIVER.ensure(host.shell(), domain())
    GUEST.ensure(host.shell(), guest())
    return host


def domain() -> NetworkOrder:
    return network_order(dhcp_start="10.78.0.4", domain="lab.test")


def settled(host: Emulated) -> None:
    for driver, wanted in ((network.DRIVER, domain()), (GUEST, guest())):
        assert isinstance(driver, (type(network.DRIVER), type(GUEST)))
        for seen in (driver.look(host.shell(), wanted), driver.glance(host.shell(), wanted)):  # type: ignore[arg-type]
            assert seen.ok, seen.text


def test_v1_what_virtualbox_sets_itself_when_a_nat_network_starts_is_no_change(
    running: Emulated,
) -> None:
    given = options(running.ssh)
    assert given["6"] == RESOLVER, "the host's resolver, whatever the lab says"
    settled(running)
    before = len(running.calls)
    network.DRIVER.ensure(running.shell(), domain())
    changed = [call.argv for call in running.calls[before:] if call.argv[0] != "list"]
    assert [words for words in changed if words[0] != "getextradata"] == []
    assert options(running.ssh) == given
    servers = running.ssh.run(["VBoxManage", "list", "dhcpservers"], timeout_s=300).out
    own = servers.partition("Individual Config")[2]
    assert re.search(r"15/\w+: +lab\.test", own), "a machine's own domain VirtualBox leaves alone"


def test_v2_what_the_plan_keeps_clear_of_is_what_virtualbox_has_there(running: Emulated) -> None:
    assert set(KIND.offers.keeps["nat"]) == {2, 3}
    told = running.ssh.run(["VBoxManage", "list", "--long", "natnets"], timeout_s=300).out
    assert re.search(r"127\.0\.0\.1=2", told), "its host's loopback"
    for resolver, told in (("127.0.0.53", "10.78.0.3"), ("127.0.0.1", "10.78.0.2")):
        by_hand("sh", "-c", f"echo nameserver {resolver} >/etc/resolv.conf")(running)
        vbox("controlvm", OWNER, "poweroff")(running)
        GUEST.ensure(running.shell(), guest())
        assert options(running.ssh)["6"] == told, f"7.2's own, or its host's loopback: {resolver}"
        settled(running)
