"""Gates against a libvirt in memory: what they see on a diff, how they mend, how they leave.

A failure here means that a lab does not come back after somebody switched something off, or that a
plain `pulumi up` throws a machine away that was only asleep.
"""

from __future__ import annotations

import stat
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pulumi.runtime import rpc
from typing_extensions import override

from components.gates import keys as key_files
from components.gates import probes
from components.gates.codec import has_unknown
from components.gates.marks import UNKNOWN
from components.gates.secrets import READABLE, PasswordProvider, SshKeyProvider
from components.kinds.libvirt import census, firewall, lease, virsh
from components.kinds.libvirt import probe as libvirt
from components.kinds.libvirt.gates.machine import Domain, MachineGateProvider
from components.kinds.libvirt.gates.network import NetworkGateProvider
from components.kinds.libvirt.virsh import Virsh, VirshError
from components.reach import interrupt
from components.reach.orders import Reservation
from components.reach.shell import Result, Unreachable
from components.reach.waiting import NotReady, Seen
from tests.support.libvirtd import FakeLibvirt, LocalLibvirt, parsed

if TYPE_CHECKING:
    from pathlib import Path

URI = "qemu:///system"
MAC = "52:54:00:00:00:01"


@pytest.fixture(params=[LocalLibvirt, FakeLibvirt], ids=["outer", "nested"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    """The libvirt that every gate of the test finds at its target."""
    made: FakeLibvirt = request.param(name="kvm1")
    for module in (virsh, libvirt):
        monkeypatch.setattr(module, "shell_of", lambda _: made)
    return made


def of_machine(**other: Any) -> dict[str, Any]:
    props: dict[str, Any] = {
        "name": "kvm1-web-gate",
        "target": {"kind": "local", "name": "this machine"},
        "uri": URI,
        "domain": "web",
        "instance": "abc",
        "probe": {"kind": "none"},
        "reach": {},
        "key_folder": "",
        "console_log": "",
        "deadline_s": 5.0,
        "reset_s": 0.0,
    }
    return props | other


def asked(**other: Any) -> Domain:
    """A machine as its gate is given it."""
    return MachineGateProvider().given(of_machine(**other))


def of_network(**other: Any) -> dict[str, Any]:
    props: dict[str, Any] = {
        "name": "lab-gate",
        "target": {"kind": "local", "name": "this machine"},
        "uri": URI,
        "network": "lab",
        "instance": "abc",
        "reservations": [],
    }
    return props | other


def host(number: int) -> dict[str, str]:
    return {
        "mac": f"52:54:00:00:00:{number:02x}",
        "address": f"10.77.0.{number}",
        "name": f"m{number}",
    }


def forget() -> None:
    """Let the next look ask again, as one does that comes seconds later."""
    census._shared.clear()


# Machines -------------------------------------------------------------------------------------


def test_a_machine_that_runs_is_no_change(place: FakeLibvirt) -> None:
    place.domain("web")
    made = MachineGateProvider().create(of_machine())
    assert made.id == "kvm1-web-gate"
    outs = made.outs
    assert outs
    assert outs["console"] == "vnc://127.0.0.1:0"
    assert outs["answers"] == "running"
    assert "<name>web</name>" in outs["definition"]
    forget()
    assert MachineGateProvider().diff("", outs, of_machine()).changes is False
    assert not place.commands(), "a machine that is up was touched"


@pytest.mark.parametrize("state", ["shut off", "paused", "crashed", "pmsuspended", "in shutdown"])
def test_a_machine_in_another_state_is_a_change_told_in_words_and_is_brought_back(
    state: str, place: FakeLibvirt, capsys: pytest.CaptureFixture[str]
) -> None:
    place.domain("web")
    outs = MachineGateProvider().create(of_machine()).outs
    assert outs
    place.domains["web"].state = state
    forget()
    assert MachineGateProvider().diff("", outs, of_machine()).changes is True
    expected = f"kvm1-web-gate: domain web is {state}; `pulumi up` mends it\n"
    assert capsys.readouterr().err == expected

    def goes_on(at: FakeLibvirt, words: list[str]) -> None:
        if state == "in shutdown" and "domstate" in words and len(at.said) > 6:
            at.domains["web"].state = "shut off" if at.domains["web"].state == state else "running"
            at.before = None

    place.before = goes_on
    place.said.clear()
    MachineGateProvider().update("", outs, of_machine())
    assert place.domains["web"].state == "running"
    forget()
    assert MachineGateProvider().diff("", outs, of_machine()).changes is False


def test_a_machine_that_was_paused_is_not_started_over(place: FakeLibvirt) -> None:
    place.domain("web", "paused")
    MachineGateProvider().create(of_machine())
    assert place.commands() == ["resume web"], "its memory would be lost"


def test_a_machine_that_somebody_removed_is_defined_again_with_its_old_self(
    place: FakeLibvirt, capsys: pytest.CaptureFixture[str]
) -> None:
    place.domain("web", uuid="1aa914a0-1e3c-5a96-a217-7583ad2d0ff0")
    outs = MachineGateProvider().create(of_machine()).outs
    assert outs
    before = place.domains.pop("web").xml
    forget()
    assert MachineGateProvider().diff("", outs, of_machine()).changes is True
    assert "domain web is not defined any more" in capsys.readouterr().err
    MachineGateProvider().update("", outs, of_machine())
    assert place.domains["web"].xml == before, "another UUID is another domain to the provider"
    assert place.domains["web"].state == "running"
    assert place.domains["web"].autostart


def test_a_machine_that_never_was_is_not_made_of_nothing(place: FakeLibvirt) -> None:
    with pytest.raises(VirshError, match="domain web is not defined at kvm1"):
        MachineGateProvider().create(of_machine())
    assert not place.domains


def test_a_place_that_does_not_answer_is_a_change_told_in_words(
    place: FakeLibvirt, capsys: pytest.CaptureFixture[str]
) -> None:
    place.domain("web")
    outs = MachineGateProvider().create(of_machine()).outs
    assert outs
    place.down = True
    forget()
    assert MachineGateProvider().diff("", outs, of_machine()).changes is True
    said = capsys.readouterr().err
    assert said.startswith("kvm1-web-gate: "), said
    assert " kvm1: " in said, "nothing says which place it is"
    assert said.endswith("; `pulumi up` mends it\n")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, "other") for field in ("instance", "uri", "domain", "key_folder")),
        ("probe", {"kind": "libvirt"}),
        ("reach", {"port": 23}),
    ],
)
def test_another_input_is_a_change_without_looking(
    field: str, value: object, place: FakeLibvirt
) -> None:
    place.domain("web")
    outs = MachineGateProvider().create(of_machine()).outs
    assert outs
    place.said.clear()
    news = of_machine(**{field: value})
    assert MachineGateProvider().diff("", outs, news).changes is True
    assert not place.said


def test_another_deadline_is_no_change(place: FakeLibvirt) -> None:
    place.domain("web")
    outs = MachineGateProvider().create(of_machine()).outs
    assert outs
    forget()
    assert MachineGateProvider().diff("", outs, of_machine(deadline_s=9.0)).changes is False


@pytest.mark.parametrize(
    "unknown",
    [
        UNKNOWN,
        {"port": UNKNOWN},
        rpc.UNKNOWN,
        rpc.deserialize_property(rpc.UNKNOWN, keep_unknowns=True),
    ],
)
def test_what_is_not_known_yet_is_a_change_and_nobody_is_asked(
    unknown: Any, place: FakeLibvirt
) -> None:
    assert has_unknown(unknown)
    assert MachineGateProvider().diff("", of_machine(), of_machine(reach=unknown)).changes is True
    assert not place.said


def test_the_engines_own_mark_of_unknown_values_is_known() -> None:
    assert rpc.UNKNOWN == UNKNOWN
    struct = {"given": "x", "not": rpc.UNKNOWN}
    import asyncio  # noqa: PLC0415

    sent = asyncio.run(rpc.serialize_properties(struct, {}))
    got = rpc.deserialize_properties(sent, keep_unknowns=True)
    assert has_unknown(got)
    assert not has_unknown(got["given"])


@pytest.mark.parametrize("kind", ["lease", "tcp"])
def test_a_machine_is_waited_for_until_its_probe_answers(kind: str, place: FakeLibvirt) -> None:
    place.domain("web", "shut off")
    place.network("lab")
    probe = {
        "lease": {"kind": "libvirt.lease", "network": "lab", "mac": MAC, "address": "10.77.0.5"},
        "tcp": {"kind": "tcp", "host": "10.77.0.5", "port": 22.0},
    }[kind]
    looks = []

    def boots(at: FakeLibvirt, words: list[str]) -> None:
        # What a poll asks: the census, by virsh here and by a script on a nested host.
        if words[0] == "sh" or "domstats" in words[-1]:
            looks.append(words)
        if len(looks) > 5:
            at.leases[MAC] = "10.77.0.5"
            at.ports.add(("10.77.0.5", 22))

    place.before = boots
    outs = MachineGateProvider().create(of_machine(probe=probe)).outs
    assert outs
    assert outs["answers"] in {"leased 10.77.0.5", "10.77.0.5:22 answers"}
    assert len(looks) > 5


def test_a_lease_of_another_address_than_planned_is_no_answer(place: FakeLibvirt) -> None:
    """A DHCP server that does not know the reservation leases any address, and nobody looks there."""
    place.domain("web")
    place.network("lab")
    place.leases[MAC] = "10.77.0.99"
    probe = {"kind": "libvirt.lease", "network": "lab", "mac": MAC, "address": "10.77.0.5"}
    with pytest.raises(NotReady, match=r"leased 10\.77\.0\.99 on lab, and 10\.77\.0\.5 is"):
        MachineGateProvider().create(of_machine(probe=probe, deadline_s=0.1))
    place.leases[MAC] = "10.77.0.5"
    outs = MachineGateProvider().create(of_machine(probe=probe)).outs
    assert outs
    assert outs["answers"] == "leased 10.77.0.5"


def test_a_lease_that_an_earlier_plan_left_does_not_hide_the_planned_one() -> None:
    told = " 2026-11-24 06:00:00   {mac}   ipv4   {address}/24   web   01:{mac}\n"
    lines = "".join(told.format(mac=MAC, address=f"10.77.0.{last}") for last in (99, 5))

    class Place(LocalLibvirt):
        @override
        def run(self, *_: Any, **__: Any) -> Result:
            return Result(0, lines, "")

    probe = {"kind": "libvirt.lease", "network": "lab", "mac": MAC, "address": "10.77.0.5"}
    assert lease.probe(asked(probe=probe), Virsh(Place(), URI)).ok


def test_a_guest_that_sleeps_and_lost_its_lease_is_no_change(place: FakeLibvirt) -> None:
    place.domain("web")
    place.network("lab")
    place.leases[MAC] = "10.77.0.5"
    probe = {"kind": "libvirt.lease", "network": "lab", "mac": MAC, "address": "10.77.0.5"}
    outs = MachineGateProvider().create(of_machine(probe=probe)).outs
    assert outs
    place.leases.clear()
    forget()
    assert MachineGateProvider().diff("", outs, of_machine(probe=probe)).changes is False


def test_a_machine_that_is_late_is_told_with_all_that_helps(place: FakeLibvirt) -> None:
    place.domain("web")
    place.files["/var/log/web-console.log"] = "\x1b[2JLinux\n\nKernel panic\x07: no root\n"
    props = of_machine(
        probe={"kind": "tcp", "host": "10.78.0.5", "port": 22},
        console_log="/var/log/web-console.log",
        deadline_s=0.05,
    )
    with pytest.raises(NotReady) as late:
        MachineGateProvider().create(props)
    assert str(late.value).splitlines() == [
        "kvm1-web-gate: not ready after 0 s; last seen: 10.78.0.5:22 takes no connection yet",
        "  look at it on kvm1: virsh -c qemu:///system console web   (Ctrl-] leaves)",
        "  screen: vnc://127.0.0.1:0",
        "  last lines of /var/log/web-console.log:",
        "    | Linux",
        "    | Kernel panic: no root",
    ]


def test_a_place_that_falls_silent_while_waiting_does_not_hide_what_was_waited_for(
    place: FakeLibvirt,
) -> None:
    place.domain("web")

    def falls_silent(at: FakeLibvirt, words: list[str]) -> None:
        at.down = len(at.said) > 3 and bool(words)

    place.before = falls_silent
    props = of_machine(probe={"kind": "tcp", "host": "10.78.0.5", "port": 22}, deadline_s=1.0)
    with pytest.raises(NotReady, match=r"kvm1-web-gate: not ready .*last seen: .*kvm1"):
        MachineGateProvider().create(props)


def test_a_machine_that_stops_while_it_is_waited_for_is_seen_as_that(place: FakeLibvirt) -> None:
    place.domain("web")

    def panics(at: FakeLibvirt, words: list[str]) -> None:
        if len(at.said) > 4 and words:
            at.domains["web"].state = "shut off"

    place.before = panics
    props = of_machine(probe={"kind": "tcp", "host": "10.78.0.5", "port": 22}, deadline_s=1.0)
    with pytest.raises(NotReady, match="last seen: domain web stopped running"):
        MachineGateProvider().create(props)


def test_a_machine_that_pauses_again_and_again_is_not_up(place: FakeLibvirt) -> None:
    place.domain("web", "paused")

    def full_disk(at: FakeLibvirt, words: list[str]) -> None:
        if "domstate" in words:
            at.domains["web"].state = "paused"

    place.before = full_disk
    with pytest.raises(NotReady, match="last seen: domain web is paused"):
        MachineGateProvider().create(of_machine(deadline_s=0.05))


def test_a_wait_ends_when_the_engine_wants_to_stop(place: FakeLibvirt) -> None:
    place.domain("web")
    props = of_machine(probe={"kind": "tcp", "host": "10.78.0.5", "port": 22}, deadline_s=60.0)
    threading.Timer(0.05, interrupt.CANCELLED.set).start()
    with pytest.raises(NotReady, match="kvm1-web-gate: stopped while waiting; last seen: "):
        MachineGateProvider().create(props)


def test_a_machine_that_goes_is_left_as_its_provider_expects_it(place: FakeLibvirt) -> None:
    place.domain("web")
    outs = MachineGateProvider().create(of_machine()).outs
    assert outs
    del place.domains["web"]
    MachineGateProvider().delete("", outs)
    assert "web" in place.domains, "the provider fails to delete a domain that is not there"
    assert place.domains["web"].state == "shut off"


@pytest.mark.parametrize("broken", ["down", "no definition"])
def test_a_gate_can_always_be_taken_away(broken: str, place: FakeLibvirt) -> None:
    place.domain("web")
    outs = MachineGateProvider().create(of_machine()).outs
    assert outs
    if broken == "down":
        place.down = True
    else:
        del place.domains["web"]
        outs["definition"] = None
    MachineGateProvider().delete("", outs)


def keys(folder: Path) -> dict[str, Any]:
    return of_machine(
        key_folder=str(folder),
        reach={
            "host": "10.77.0.5",
            "port": 22.0,
            "private_key": "KEY\n",
            "host_key": "ssh-ed25519 AA kvm1",
        },
    )


def test_keys_for_libvirts_clients_are_written_for_the_owner_alone(
    place: FakeLibvirt, tmp_path: Path
) -> None:
    place.domain("web")
    folder = tmp_path / "local" / "kvm1"
    MachineGateProvider().create(keys(folder))
    assert (folder / "id_ed25519").read_text() == "KEY\n"
    assert (folder / "known_hosts").read_text() == "10.77.0.5 ssh-ed25519 AA\n"
    for path in (folder / "id_ed25519", folder / "known_hosts"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(each.name for each in folder.iterdir()) == ["id_ed25519", "known_hosts"]


def test_a_port_beside_22_is_in_the_known_hosts_as_openssh_writes_it(tmp_path: Path) -> None:
    props = keys(tmp_path / "kvm2")
    props["reach"]["port"] = 2209
    given = MachineGateProvider().given(props)
    key_files.write_keys(given.key_folder, given.reach)
    text = (tmp_path / "kvm2" / "known_hosts").read_text()
    assert text == "[10.77.0.5]:2209 ssh-ed25519 AA\n"


@pytest.mark.parametrize("down", [False, True])
def test_keys_go_with_their_machine_also_when_its_place_is_silent(
    down: bool, place: FakeLibvirt, tmp_path: Path
) -> None:
    place.domain("web")
    folder = tmp_path / "local" / "kvm1"
    outs = MachineGateProvider().create(keys(folder)).outs
    assert outs
    place.down = down
    MachineGateProvider().delete("", outs)
    assert not folder.parent.exists(), "a key stays on the disk of the machine"


# Networks -------------------------------------------------------------------------------------


def test_a_network_that_is_up_is_no_change(place: FakeLibvirt) -> None:
    place.network("lab")
    outs = NetworkGateProvider().create(of_network(reservations=[host(5)])).outs
    assert outs
    forget()
    assert NetworkGateProvider().diff("", outs, of_network(reservations=[host(5)])).changes is False


def test_a_network_that_was_stopped_is_started_and_guests_are_plugged_in_again(
    place: FakeLibvirt, capsys: pytest.CaptureFixture[str]
) -> None:
    place.network("lab")
    place.network("other")
    place.domain("web")
    place.domain("db")
    place.taps = {"web": ("lab", "vnet3"), "db": ("other", "vnet4")}
    outs = NetworkGateProvider().create(of_network()).outs
    assert outs
    place.networks["lab"].state = "inactive"
    forget()
    assert NetworkGateProvider().diff("", outs, of_network()).changes is True
    assert capsys.readouterr().err == "lab-gate: network lab is down; `pulumi up` mends it\n"
    NetworkGateProvider().update("", outs, of_network())
    assert place.networks["lab"].state == "active"
    plugged = [words for words in place.said if words[0] == "ip"]
    assert plugged == [["ip", "link", "set", "vnet3", "master", "nllab", "up"]]


def test_a_network_whose_nat_rules_are_gone_is_started_again(
    place: FakeLibvirt, capsys: pytest.CaptureFixture[str]
) -> None:
    place.network("lab")
    nat = "<forward mode='nat'/><bridge"
    place.networks["lab"].xml = place.networks["lab"].xml.replace("<bridge", nat)
    place.domain("web")
    place.taps = {"web": ("lab", "vnet3")}
    outs = NetworkGateProvider().create(of_network()).outs
    assert outs
    forget()
    assert NetworkGateProvider().diff("", outs, of_network()).changes is False
    place.flushed = {"lab"}
    forget()
    assert NetworkGateProvider().diff("", outs, of_network()).changes is True
    assert "network lab is up, and its NAT rules are gone" in capsys.readouterr().err
    place.said.clear()
    NetworkGateProvider().update("", outs, of_network())
    assert place.commands() == ["net-destroy lab", "net-start lab"]
    assert place.flushed == set()
    assert ["ip", "link", "set", "vnet3", "master", "nllab", "up"] in place.said


@pytest.mark.parametrize(
    ("told", "lacking"),
    [
        ("asked\n-A LIBVIRT_PRT -s 10.77.0.0/24 ! -d 10.77.0.0/24 -j MASQUERADE\n", False),
        (("table ip libvirt_network {\n ip saddr 10.77.0.0/24 ip daddr != 10.77.0.0/24 counter "
         "packets 0 bytes 0 masquerade\n}\nasked\n"), False),
        ("-P POSTROUTING ACCEPT\nasked\n", True),
        ("", False),
    ],
)  # fmt: skip
def test_rules_are_read_as_both_firewalls_print_them(told: str, lacking: bool) -> None:
    class Asked:
        name = "there"

        def run(self, *_: Any, **__: Any) -> Result:
            return Result(0, told, "")

    shell: Any = Asked()
    assert firewall.lacks(shell, "10.77.0.0/24") is lacking, "what can't be asked is not missing"


def test_guests_are_plugged_into_a_network_that_its_provider_made_anew(place: FakeLibvirt) -> None:
    place.network("lab")
    place.domain("web")
    place.taps = {"web": ("lab", "vnet3")}
    outs = NetworkGateProvider().create(of_network()).outs
    assert outs
    assert not [words for words in place.said if words[0] == "ip"], "nobody was on it before"
    NetworkGateProvider().update("", outs, of_network(instance="another"))
    plugged = [words for words in place.said if words[0] == "ip"]
    assert plugged == [["ip", "link", "set", "vnet3", "master", "nllab", "up"]]


def test_a_network_that_somebody_removed_comes_back_with_its_addresses(place: FakeLibvirt) -> None:
    place.network("lab", uuid="1aa914a0-1e3c-5a96-a217-7583ad2d0ff0")
    news = of_network(reservations=[host(5), host(6)])
    outs = NetworkGateProvider().create(news).outs
    assert outs
    uuid = place.networks.pop("lab").uuid
    forget()
    assert NetworkGateProvider().diff("", outs, news).changes is True
    NetworkGateProvider().update("", outs, news)
    assert place.networks["lab"].uuid == uuid
    assert place.networks["lab"].state == "active"
    assert place.networks["lab"].autostart
    assert place.hosts("lab") == [tuple(host(n).values()) for n in (5, 6)]


def test_a_network_that_never_was_is_not_made_of_nothing(place: FakeLibvirt) -> None:
    with pytest.raises(VirshError, match="network lab is not defined at kvm1"):
        NetworkGateProvider().create(of_network())
    assert not place.networks


def test_a_network_that_goes_is_left_as_its_provider_expects_it(place: FakeLibvirt) -> None:
    place.network("lab")
    outs = NetworkGateProvider().create(of_network()).outs
    assert outs
    del place.networks["lab"]
    NetworkGateProvider().delete("", outs)
    assert "lab" in place.networks
    place.down = True
    NetworkGateProvider().delete("", outs)


HOSTS = st.lists(st.integers(2, 9), unique=True, max_size=6)


def reserve(at: Virsh, wanted: list[dict[str, str]]) -> str:
    facts = at.network("lab")
    assert facts
    return at.reserve("lab", facts, [Reservation(**one) for one in wanted])


@settings(max_examples=60, deadline=None)
@given(before=HOSTS, after=HOSTS, up=st.booleans())
def test_reservations_become_exactly_the_planned_ones_by_their_difference_alone(
    before: list[int], after: list[int], up: bool
) -> None:
    place = FakeLibvirt()
    place.network("lab", "active" if up else "inactive")
    at = Virsh(place, URI)
    reserve(at, [host(n) for n in before])
    place.said.clear()
    told = reserve(at, [host(n) for n in after])
    assert told == place.networks["lab"].xml, "it is defined again from this when it is removed"
    assert sorted(place.hosts("lab")) == sorted(tuple(host(n).values()) for n in after)
    changes = [words for words in place.commands() if words.startswith("net-update")]
    gone, new = set(before) - set(after), set(after) - set(before)
    assert len(changes) == len(gone) + len(new), "guests that stay would lose their lease"
    deletes = [" delete " in words for words in changes]
    assert deletes == sorted(deletes, reverse=True), "an address is freed before another takes it"


def test_two_machines_may_swap_their_addresses(place: FakeLibvirt) -> None:
    place.network("lab")
    at = Virsh(place, URI)
    one, two = host(5), host(6)
    reserve(at, [one, two])
    swapped = [one | {"address": two["address"]}, two | {"address": one["address"]}]
    reserve(at, swapped)
    assert sorted(each[1] for each in place.hosts("lab")) == ["10.77.0.5", "10.77.0.6"]
    assert {mac: ip for mac, ip, _ in place.hosts("lab")}[one["mac"]] == "10.77.0.6"


# What gates share -----------------------------------------------------------------------------


def test_the_gates_of_a_place_look_together(place: FakeLibvirt) -> None:
    for name in ("a", "b", "c"):
        place.domain(name)
        place.network(name)
    provider, plain = MachineGateProvider(), NetworkGateProvider()
    for name in ("a", "b", "c"):
        assert provider.look(asked(domain=name)).ok
        assert plain.look(plain.given(of_network(network=name))).ok
    assert len(place.said) == 1, "each command takes an emulated machine a third of a second"


@pytest.mark.parametrize("gate", ["machine", "network"])
def test_after_mending_the_next_look_is_a_new_one(gate: str, place: FakeLibvirt) -> None:
    place.domain("web", "shut off")
    place.network("lab", "inactive")
    provider: Any = {"machine": MachineGateProvider, "network": NetworkGateProvider}[gate]()
    props = {"machine": of_machine, "network": of_network}[gate]()
    assert not provider.look(provider.given(props)).ok
    outs = provider.create(props).outs
    assert provider.diff("", outs, props).changes is False


def test_names_are_read_whole_from_a_census(place: FakeLibvirt) -> None:
    place.domain("web", "shut off")
    place.domain("local-kvm1", "in shutdown")
    place.network("lab", "inactive")
    seen = census.take(Virsh(place, URI))
    assert seen.domains == {"web": "shut off", "local-kvm1": "in shutdown"}
    assert seen.networks == {"lab": False}


def test_a_failure_of_virsh_is_told_apart_from_an_object_that_is_gone(place: FakeLibvirt) -> None:
    def loses_its_mind(_: FakeLibvirt, words: list[str]) -> None:
        raise Unreachable(f"{words[0]} did not end")

    at = Virsh(place, URI)
    assert at.domain_state("nobody") is None
    assert at.domain("nobody") is None
    assert at.network("nobody") is None
    place.before = loses_its_mind
    with pytest.raises(Unreachable):
        at.domain_state("nobody")


def test_definitions_go_through_standard_input_and_hold_the_secrets(place: FakeLibvirt) -> None:
    place.domain("web")
    xml = place.domains["web"].xml.replace("</domain>", "<passwd>hunter2</passwd></domain>")
    Virsh(place, URI).define("domain", xml)
    assert not any("hunter2" in word for words in place.said for word in words), (
        "arguments of a process can be read by everybody"
    )
    facts = Virsh(place, URI).domain("web")
    assert facts
    assert "hunter2" in facts.definition


# Generated secrets ----------------------------------------------------------------------------


def test_keys_open_what_their_public_half_is_put_on() -> None:
    import io  # noqa: PLC0415

    import paramiko  # noqa: PLC0415

    outs = SshKeyProvider().create({"comment": "key"}).outs
    assert outs
    kind, blob, comment = outs["public"].split()
    assert (kind, comment) == ("ssh-ed25519", "key")
    private = paramiko.Ed25519Key.from_private_key(io.StringIO(outs["private"]))
    assert private.get_base64() == blob
    again = SshKeyProvider().create({"comment": "key"}).outs
    assert again
    assert again["private"] != outs["private"]
    assert SshKeyProvider().diff("", outs, {"comment": "renamed"}).changes is False


def test_passwords_are_as_long_as_vnc_takes_and_can_be_read_aloud() -> None:
    made = {
        (PasswordProvider().create({"name": "p", "length": 8.0}).outs or {})["value"]
        for _ in range(200)
    }
    assert len(made) == 200
    assert {len(each) for each in made} == {8}, "VNC takes no more and would ignore the rest"
    assert set("".join(made)) <= set(READABLE)
    assert not set("0O1lI") & set(READABLE)
    for each in made:
        kinds = {letter.isdigit() or letter.islower() + 2 for letter in each}
        assert len(kinds) == 3, "Windows wants three kinds of letters"


def test_another_length_is_another_password() -> None:
    old = {"name": "p", "length": 8.0}
    same = PasswordProvider().diff("", old, {"name": "p", "length": 8})
    other = PasswordProvider().diff("", old, {"name": "p", "length": 10})
    assert (same.changes, other.changes, other.replaces) == (False, True, ["length"])


def test_a_probe_has_a_glance_that_costs_no_login(place: FakeLibvirt) -> None:
    place.domain("web")
    assert probes.glance(asked(probe={"kind": "libvirt.lease"}), Virsh(place, URI)) == Seen(
        ok=True, text="running"
    )
    assert parsed(place.domains["web"].xml).findtext("name") == "web"


def test_a_guest_that_hangs_is_reset_until_it_comes_up(
    place: FakeLibvirt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.domain("web")
    place.network("lab")
    clock = iter(range(0, 10_000, 15))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))

    def comes_up_after_two(at: FakeLibvirt, words: list[str]) -> None:
        if words[-2:] == ["reset", "web"]:
            resets.append(words)
        if len(resets) == 2:
            at.leases[MAC] = "10.77.0.5"

    resets: list[list[str]] = []
    place.before = comes_up_after_two
    probe = {"kind": "libvirt.lease", "network": "lab", "mac": MAC, "address": "10.77.0.5"}
    outs = MachineGateProvider().create(of_machine(probe=probe, reset_s=60.0, deadline_s=9e9)).outs
    assert outs
    assert outs["answers"] == "leased 10.77.0.5"
    assert len(resets) == 2
    assert "not up after 60 s, no DHCP lease" in capsys.readouterr().err


def test_a_guest_whose_host_starts_again_meanwhile_is_waited_for(
    place: FakeLibvirt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.domain("web")
    place.network("lab")
    clock = iter(range(0, 10_000, 15))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))

    def gone_for_a_while(at: FakeLibvirt, words: list[str]) -> None:
        told.append(words)
        if 20 < len(told) < 40:
            raise Unreachable("kvm1: no route to host")
        if len(told) == 40:
            at.leases[MAC] = "10.77.0.5"

    told: list[list[str]] = []
    place.before = gone_for_a_while
    probe = {"kind": "libvirt.lease", "network": "lab", "mac": MAC, "address": "10.77.0.5"}
    outs = MachineGateProvider().create(of_machine(probe=probe, reset_s=60.0, deadline_s=9e9)).outs
    assert outs
    assert outs["answers"] == "leased 10.77.0.5"
    assert "it was reset" not in capsys.readouterr().err.split("no route to host")[-1]


def test_a_guest_whose_host_stays_silent_fails_in_words_about_that_host(place: FakeLibvirt) -> None:
    place.domain("web")
    place.network("lab")

    def silent(_: FakeLibvirt, words: list[str]) -> None:
        told.append(words)
        if len(told) > 12:
            raise Unreachable("kvm1: no route to host")

    told: list[list[str]] = []
    place.before = silent
    probe = {"kind": "libvirt.lease", "network": "lab", "mac": MAC, "address": "10.77.0.5"}
    with pytest.raises(NotReady) as late:
        MachineGateProvider().create(of_machine(probe=probe, reset_s=0.01, deadline_s=2.0))
    assert "last seen: kvm1: no route to host" in str(late.value)
    assert "kvm1, which it runs on, does not answer itself: run the same command again" in str(
        late.value
    )


@pytest.mark.parametrize(
    ("before", "stood", "resets"),
    [("running", True, 1), ("running", False, 0), ("shut off", True, 0)],
)
def test_a_host_that_was_up_runs_and_is_silent_is_reset_once(
    before: str, stood: bool, resets: int, place: FakeLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.domain("web", before)
    place.network("lab")
    if stood:
        Virsh(place, URI).note_stood("web")
    clock = iter(range(0, 100_000, 15))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    probe = {"kind": "libvirt.lease", "network": "lab", "mac": MAC, "address": "10.77.0.5"}
    with pytest.raises(NotReady):
        MachineGateProvider().create(of_machine(probe=probe, stuck_s=120.0, deadline_s=2000.0))
    assert sum(words.startswith("reset ") for words in place.commands()) == resets


def test_a_guest_is_not_reset_unless_the_stack_says_so(place: FakeLibvirt) -> None:
    place.domain("web")
    place.network("lab")
    probe = {"kind": "libvirt.lease", "network": "lab", "mac": MAC, "address": "10.77.0.5"}
    with pytest.raises(NotReady):
        MachineGateProvider().create(of_machine(probe=probe, deadline_s=0.1))
    assert not any("reset" in words for words in place.commands())


@pytest.mark.parametrize("kind", ["domain", "network"])
def test_another_object_of_the_same_name_is_left_alone_and_named(
    kind: str, place: FakeLibvirt
) -> None:
    place.domain("web")
    place.network("lab")
    provider: Any = MachineGateProvider() if kind == "domain" else NetworkGateProvider()
    news = of_machine() if kind == "domain" else of_network(reservations=[host(5)])
    outs = provider.create(news).outs
    stranger = "11111111-2222-4333-8444-555555555555"
    place.domain("web", "crashed", uuid=stranger)
    place.network("lab", "inactive", uuid=stranger)
    forget()
    before = len(place.commands())
    with pytest.raises(VirshError, match=r"is not this lab's any more, somebody made another one"):
        provider.update("", outs, news)
    assert place.commands()[before:] == []
