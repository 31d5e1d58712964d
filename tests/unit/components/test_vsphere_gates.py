"""Gates of vSphere on a vCenter in memory: what they see, mend and leave, and every call failing once.

A failure here means somebody else's machine or network is touched, a guest is made twice, or what was
wrong is told in words that help nobody.
"""

from __future__ import annotations

import copy
import ssl
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest

from components.gates.marks import UNKNOWN
from components.kinds.vsphere import api as remote
from components.kinds.vsphere import hardware
from components.kinds.vsphere.api import Api, Node, Vsphere, VsphereError, sdk
from components.kinds.vsphere.gates.guest import VsphereGuestProvider
from components.kinds.vsphere.gates.network import VsphereNetworkProvider
from components.kinds.vsphere.gates.node import VsphereNodeProvider
from components.kinds.vsphere.gates.slot import VsphereSlotProvider
from components.reach.shell import Unreachable
from components.reach.waiting import NotReady
from tests.unit.components.test_vsphere_hardware import UUID, WANTED, config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from components.gates.base import Gate

API: dict[str, Any] = {"server": "vc.test", "user": "me", "password": "hunter2", "insecure": True}
OWNER = "11111111-2222-5333-8444-555555555555"
Props = dict[str, Any]
vim = sdk().vim

GATES = tuple(
    import_module(f"components.kinds.vsphere.gates.{name}")
    for name in ("base", "guest", "network", "node", "slot")
)


def mended(provider: Gate[Any], olds: Props, news: Props) -> Props:
    """What the engine gets of a gate that mends; without ``olds`` for the first time."""
    done = provider.update("", olds, news) if olds else provider.create(news)
    return done.outs or {}


def everywhere(patch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    """Replace ``name`` in every gate that has it."""
    for module in GATES:
        patch.setattr(module, name, value, raising=False)


class Vcenter:
    """What `Vsphere` offers, of one host; any call can be made to fail."""

    name = "vc.test"

    def __init__(self) -> None:
        self.machines: list[SimpleNamespace] = []
        self.switches: dict[str, list[str]] = {"vSwitch0": ["vmnic0"]}
        self.groups: dict[str, Any] = {}
        self.node_ids = Node("host-1", "resgroup-1", "datastore-1")
        self.sessions = self.calls = 0
        self.done: list[str] = []
        self.fails_at = -1
        self.failure: Callable[[], Exception] = lambda: VsphereError("SystemError")

    def __call__(self, api: Api) -> Vcenter:
        assert api == Api(**API)
        return self

    def __enter__(self) -> Self:
        with self._call():
            self.sessions += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.sessions -= 1

    @contextmanager
    def _call(self) -> Iterator[None]:
        fails = self.calls == self.fails_at
        self.calls += 1
        if fails:
            raise self.failure()
        yield

    told = _call

    def machine(self, *, state: str = "poweredOn", note: str = f"nestlab {OWNER}") -> Any:
        made = config()
        made.annotation = note
        self.machines.append(SimpleNamespace(name=made.name, config=made, state=state))
        return self.machines[-1]

    def node(self, *_: str) -> Node:
        with self._call():
            return self.node_ids

    def store(self, moid: str) -> str:
        assert moid == "datastore-1"
        return "store"

    def by_uuid(self, uuid: str) -> Any:
        with self._call():
            return next((one for one in self.machines if one.config.uuid == uuid), None)

    def by_name(self, datacenter: str, name: str) -> Any:
        assert datacenter == "DC"
        with self._call():
            return next((one for one in self.machines if one.name == name), None)

    def read(self, machine: Any, *paths: str) -> Props:
        with self._call():
            told = {
                "name": machine.name,
                "config": copy.deepcopy(machine.config),
                "config.annotation": machine.config and machine.config.annotation,
                "runtime.powerState": machine.state,
                "runtime.connectionState": "disconnected",
            }
            return {path: told[path] for path in paths if told[path] is not None}

    def power_on(self, machine: Any, deadline_s: float) -> None:
        assert deadline_s
        with self._call():
            self.done.append("on")
            machine.state = "poweredOn"

    def power_off(self, machine: Any) -> None:
        with self._call():
            self.done.append("off")
            machine.state = "poweredOff"

    def reconfigure(self, machine: Any, spec: Any) -> None:
        with self._call():
            self.done.append("reconfigure")
            if spec.memoryMB:
                assert machine.state == "poweredOff"
                machine.config.hardware.memoryMB = spec.memoryMB
            if spec.bootOptions:
                machine.config.bootOptions = spec.bootOptions
            for change in spec.deviceChange:
                key = change.device.key
                kept = [one for one in machine.config.hardware.device if one.key != key]
                machine.config.hardware.device = [*kept, change.device]

    def create(self, datacenter: str, spec: Any, pool: str, host: str) -> Any:
        assert (datacenter, pool, host) == ("DC", "resgroup-1", "host-1")
        with self._call():
            self.done.append("create")
            if any(one.name == spec.name for one in self.machines):
                raise VsphereError(f"DuplicateName ({spec.name})")
            made = self.machine(state="poweredOff", note=spec.annotation)
            made.name, made.config.uuid, made.config.bootOptions = spec.name, spec.uuid, None
            return made

    def remove(self, machine: Any) -> None:
        with self._call():
            self.done.append("remove")
            self.machines.remove(machine)

    def networks(self, host: str) -> Any:
        assert host == "host-1"
        return self

    @property
    def networkInfo(self) -> Any:  # noqa: N802 - the API's name
        return SimpleNamespace(
            vswitch=[SimpleNamespace(name=name, pnic=nics) for name, nics in self.switches.items()],
            portgroup=[SimpleNamespace(spec=spec) for spec in self.groups.values()],
        )

    def network_id(self, datacenter: str, group: str) -> str:
        assert datacenter == "DC"
        return f"id-of-{group}"

    # The API's names, and what it refuses.

    def AddVirtualSwitch(self, name: str, spec: Any) -> None:  # noqa: N802
        assert name not in self.switches
        assert spec.bridge is None, "no network card"
        self.switches[name] = []

    def UpdateVirtualSwitch(self, name: str, spec: Any) -> None:  # noqa: N802
        assert spec.bridge is None
        self.switches[name] = []

    def RemoveVirtualSwitch(self, name: str) -> None:  # noqa: N802
        del self.switches[name]

    def AddPortGroup(self, spec: Any) -> None:  # noqa: N802
        assert spec.name not in self.groups
        self.groups[spec.name] = spec

    def UpdatePortGroup(self, name: str, spec: Any) -> None:  # noqa: N802
        assert name in self.groups
        self.groups[name] = spec

    def RemovePortGroup(self, name: str) -> None:  # noqa: N802
        del self.groups[name]


@pytest.fixture
def vcenter(monkeypatch: pytest.MonkeyPatch) -> Vcenter:
    made = Vcenter()
    everywhere(monkeypatch, "Vsphere", made)
    return made


def every_call_failing(run: Callable[[], object], vcenter: Vcenter) -> Iterator[Exception]:
    """Run once for each call that is made, which fails; yield what was raised, if anything was."""
    vcenter.calls, vcenter.fails_at = 0, -1
    saved = copy.deepcopy((vcenter.machines, vcenter.switches, vcenter.groups))
    run()
    for number in range(vcenter.calls):
        vcenter.machines, vcenter.switches, vcenter.groups = copy.deepcopy(saved)
        vcenter.calls, vcenter.fails_at = 0, number
        try:
            run()
        except Exception as raised:  # noqa: BLE001 - it is what is asked about
            yield raised
        assert vcenter.sessions == 0, "a session was left open"


# The node -----------------------------------------------------------------------------------------

NODE = {
    "name": "host-node",
    "api": API,
    "server": "vc.test",
    "datacenter": "DC",
    "node": "esx1",
    "datastore": "store",
}


def test_a_host_is_known_by_its_ids_and_another_one_of_its_name_is_noticed(
    vcenter: Vcenter, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = VsphereNodeProvider()
    made = mended(provider, {}, dict(NODE))
    assert (made["host"], made["pool"], made["store"]) == ("host-1", "resgroup-1", "datastore-1")
    assert made["endpoint"] == "vc.test"
    assert not provider.diff("", made, NODE).changes
    vcenter.node_ids = Node("host-2", "resgroup-2", "datastore-1")
    assert provider.diff("", made, NODE).changes
    assert "host esx1 is another one than it was" in capsys.readouterr().err
    assert mended(provider, made, dict(NODE))["host"] == "host-2"


def test_a_lab_on_another_host_is_another_lab(vcenter: Vcenter) -> None:
    provider = VsphereNodeProvider()
    made = mended(provider, {}, dict(NODE))
    assert provider.diff("", made, NODE | {"node": "esx2"}).replaces == ["node"]
    assert not provider.diff("", made, NODE | {"api": API | {"password": "new"}}).replaces
    assert not vcenter.sessions


def test_a_vcenter_that_does_not_answer_is_told_and_breaks_no_preview(
    vcenter: Vcenter, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = VsphereNodeProvider()
    made = mended(provider, {}, dict(NODE))
    vcenter.calls, vcenter.fails_at = 0, 0
    vcenter.failure = lambda: Unreachable("vc.test: connection refused")
    assert provider.diff("", made, NODE).changes
    assert "host-node: vc.test: connection refused; `pulumi up` mends it" in capsys.readouterr().err


# Networks -----------------------------------------------------------------------------------------


def network(**more: Any) -> Props:
    return {
        "name": "own-gate",
        "api": API,
        "datacenter": "DC",
        "host": "host-1",
        "group": "lab-own-1a2b3c4d",
        "switch": "nl1a2b3c4d",
        "own": True,
        "allowPromiscuous": False,
        "allowForgedTransmits": False,
        "allowMacChanges": False,
        **more,
    }


def test_an_isolated_network_has_a_switch_without_network_cards(vcenter: Vcenter) -> None:
    provider = VsphereNetworkProvider()
    made = mended(provider, {}, network())
    assert (made["network"], made["network_id"]) == ("lab-own-1a2b3c4d", "id-of-lab-own-1a2b3c4d")
    assert vcenter.switches["nl1a2b3c4d"] == []
    security = vcenter.groups["lab-own-1a2b3c4d"].policy.security
    assert (security.allowPromiscuous, security.forgedTransmits, security.macChanges) == (
        False,
        False,
        False,
    )
    assert not provider.diff("", made, network()).changes
    provider.delete("", made)
    assert (vcenter.switches, vcenter.groups) == ({"vSwitch0": ["vmnic0"]}, {})
    provider.delete("", made)


@pytest.mark.parametrize(
    ("word", "theirs"),
    [
        ("allowPromiscuous", "allowPromiscuous"),
        ("allowForgedTransmits", "forgedTransmits"),
        ("allowMacChanges", "macChanges"),
    ],
)
def test_what_machines_may_do_is_set_and_put_back(
    word: str, theirs: str, vcenter: Vcenter, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = VsphereNetworkProvider()
    made = mended(provider, {}, network())
    setattr(vcenter.groups["lab-own-1a2b3c4d"].policy.security, theirs, True)
    assert provider.diff("", made, network()).changes
    said = f"own-gate: port group lab-own-1a2b3c4d: its machines may ({word})"
    assert said in capsys.readouterr().err
    mended(provider, made, network())
    assert getattr(vcenter.groups["lab-own-1a2b3c4d"].policy.security, theirs) is False
    allowed = network(**{word: True})
    mended(provider, made, allowed)
    assert getattr(vcenter.groups["lab-own-1a2b3c4d"].policy.security, theirs) is True


def _without_group(vcenter: Vcenter) -> None:
    vcenter.groups.clear()


def _without_all(vcenter: Vcenter) -> None:
    vcenter.groups.clear()
    del vcenter.switches["nl1a2b3c4d"]


def _with_uplink(vcenter: Vcenter) -> None:
    vcenter.switches["nl1a2b3c4d"] = ["vmnic1"]


def _in_vlan(vcenter: Vcenter) -> None:
    vcenter.groups["lab-own-1a2b3c4d"].vlanId = 7


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_without_group, "port group lab-own-1a2b3c4d is not there any more"),
        (_without_all, "switch nl1a2b3c4d is not there any more"),
        (_with_uplink, "switch nl1a2b3c4d has got an uplink"),
        (_in_vlan, "port group lab-own-1a2b3c4d is in VLAN 7"),
    ],
    ids=["port group", "switch", "uplink", "VLAN"],
)
def test_a_network_that_somebody_changed_is_told_and_mended(
    harm: Callable[[Vcenter], None],
    said: str,
    vcenter: Vcenter,
    capsys: pytest.CaptureFixture[str],
) -> None:
    provider = VsphereNetworkProvider()
    made = mended(provider, {}, network())
    harm(vcenter)
    assert provider.diff("", made, network()).changes
    assert said in capsys.readouterr().err
    mended(provider, made, network())
    assert not provider.diff("", made, network()).changes
    for raised in every_call_failing(lambda: mended(provider, made, network()), vcenter):
        assert isinstance(raised, VsphereError)


def test_the_hosts_own_switch_is_only_used(vcenter: Vcenter) -> None:
    provider = VsphereNetworkProvider()
    bridge = network(switch="vSwitch0", own=False)
    made = mended(provider, {}, bridge)
    assert vcenter.groups["lab-own-1a2b3c4d"].vswitchName == "vSwitch0"
    provider.delete("", made)
    assert vcenter.switches == {"vSwitch0": ["vmnic0"]}
    with pytest.raises(
        VsphereError, match="no switch vSwitch9, which the stack names; there is vS"
    ):
        mended(provider, {}, network(switch="vSwitch9", own=False))


def test_a_network_elsewhere_is_another_one(vcenter: Vcenter) -> None:
    provider = VsphereNetworkProvider()
    made = mended(provider, {}, network())
    assert provider.diff("", made, network(host="host-2")).replaces == ["host"]
    assert not provider.diff("", made, network(host=UNKNOWN)).replaces
    assert vcenter.sessions == 0


# Names --------------------------------------------------------------------------------------------

SLOT = {
    "name": "web-slot",
    "api": API,
    "server": "vc.test",
    "datacenter": "DC",
    "called": "lab-web",
    "owner": OWNER,
}


def test_a_name_that_somebody_else_has_is_refused_and_his_machine_left_alone(
    vcenter: Vcenter,
) -> None:
    provider = VsphereSlotProvider()
    vcenter.machine(note="precious")
    with pytest.raises(VsphereError, match="DC has a guest lab-web that is not this lab's: rename"):
        mended(provider, {}, dict(SLOT))
    provider.delete("", dict(SLOT))
    vcenter.machines[0].config = None
    with pytest.raises(VsphereError, match="is not this lab's"):
        mended(provider, {}, dict(SLOT))
    assert vcenter.done == []


def test_what_a_killed_run_left_is_cleared_once(
    vcenter: Vcenter, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = VsphereSlotProvider()
    vcenter.machine()
    made = mended(provider, {}, dict(SLOT))
    assert vcenter.done == ["remove"]
    assert "web-slot: removed what a run that did not end left of it" in capsys.readouterr().err
    vcenter.machine()
    assert not provider.diff("", made, SLOT).changes
    mended(provider, made, SLOT | {"api": API})
    assert vcenter.done == ["remove"], "by now it is the guest"
    left = made | {"left": True}
    assert provider.diff("", left, SLOT).changes
    assert mended(provider, left, dict(SLOT))["left"] is False
    assert vcenter.done == ["remove"] * 2
    vcenter.machine()
    provider.delete("", made)
    assert not vcenter.machines


# Guests -------------------------------------------------------------------------------------------


def guest(**more: Any) -> Props:
    return {
        "name": "web-gate",
        "api": API,
        "datacenter": "DC",
        "host": "host-1",
        "pool": "resgroup-1",
        "store": "datastore-1",
        "uuid": UUID,
        "called": "lab-web",
        "layer": 1.0,
        "instance": "1",
        "wanted": copy.deepcopy(WANTED),
        "probe": {"kind": "none"},
        "reach": {},
        "key_folder": "",
        "target": {"kind": "local", "name": "here"},
        "deadline_s": 5.0,
        **more,
    }


def test_a_guest_that_runs_as_wanted_is_left_alone(vcenter: Vcenter) -> None:
    provider = VsphereGuestProvider()
    vcenter.machine()
    made = mended(provider, {}, guest())
    assert vcenter.done == []
    assert not provider.diff("", made, guest()).changes
    assert not provider.diff("", made, guest(deadline_s=9.0)).changes
    assert hardware.again(made["definition"]).uuid == UUID


@pytest.mark.parametrize(
    ("state", "said"), [("poweredOff", "is off"), ("suspended", "is suspended")]
)
def test_a_guest_that_does_not_run_is_told_and_started(
    state: str, said: str, vcenter: Vcenter, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = VsphereGuestProvider()
    machine = vcenter.machine()
    made = mended(provider, {}, guest())
    machine.state = state
    assert provider.diff("", made, guest()).changes
    assert f"web-gate: guest lab-web {said}; `pulumi up` mends it" in capsys.readouterr().err
    mended(provider, made, guest())
    assert vcenter.done == ["on"]


def test_a_guest_that_somebody_reconfigured_is_put_back(vcenter: Vcenter) -> None:
    provider = VsphereGuestProvider()
    machine = vcenter.machine()
    made = mended(provider, {}, guest())
    machine.config.hardware.memoryMB = 1024
    assert provider.diff("", made, guest()).changes
    mended(provider, made, guest())
    assert vcenter.done == ["off", "reconfigure", "on"]
    assert machine.config.hardware.memoryMB == 512
    assert not provider.diff("", made, guest()).changes


def test_a_disc_is_changed_while_a_guest_runs_and_a_suspended_one_is_restarted(
    vcenter: Vcenter,
) -> None:
    provider = VsphereGuestProvider()
    machine = vcenter.machine()
    made = mended(provider, {}, guest())
    other = guest(wanted=WANTED | {"cds": ["nestlab/b.iso"]})
    mended(provider, made, other)
    assert vcenter.done == ["reconfigure"]
    machine.state = "suspended"
    mended(provider, made, guest())
    assert vcenter.done == ["reconfigure", "off", "reconfigure", "on"]


def test_a_guest_that_was_removed_is_made_again_by_the_uuid_it_had(
    vcenter: Vcenter, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = VsphereGuestProvider()
    vcenter.machine()
    made = mended(provider, {}, guest())
    vcenter.machines.clear()
    assert provider.diff("", made, guest()).changes
    said = "web-gate: guest lab-web is not there any more, and what was on its disk is lost"
    assert said in capsys.readouterr().err
    again = mended(provider, made, guest())
    assert vcenter.done == ["create", "reconfigure", "on"]
    assert [one.config.uuid for one in vcenter.machines] == [UUID]
    assert "made again, with an empty disk" in capsys.readouterr().err
    assert not provider.diff("", again, guest()).changes


def test_a_guest_that_goes_while_it_is_made_is_no_other_ones_definition(vcenter: Vcenter) -> None:
    provider = VsphereGuestProvider()
    vcenter.machine()
    made = mended(provider, {}, guest())
    vcenter.machines.clear()
    for olds, news in (({}, guest()), (made, guest(uuid="another"))):
        with pytest.raises(VsphereError, match="lab-web was removed while it was being made"):
            mended(provider, olds, news)
    assert vcenter.done == []


def test_the_provider_finds_something_to_delete(vcenter: Vcenter) -> None:
    provider = VsphereGuestProvider()
    vcenter.machine()
    made = mended(provider, {}, guest())
    provider.delete("", made)
    assert vcenter.done == [], "it is there"
    vcenter.machines.clear()
    vcenter.machine(note="precious").config.uuid = "a strangers' of the same name"
    provider.delete("", made)
    assert vcenter.done == ["create"]
    assert {one.config.uuid for one in vcenter.machines} >= {UUID}


def test_a_wait_ends_in_words_that_say_where_to_look(
    vcenter: Vcenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = VsphereGuestProvider()
    machine = vcenter.machine()

    def power_on(*_: object) -> None:
        machine.state = "poweredOff"

    monkeypatch.setattr(vcenter, "power_on", power_on)
    machine.state = "poweredOff"
    with pytest.raises(NotReady) as late:
        provider.create(guest(deadline_s=0.01))
    first, second = str(late.value).splitlines()
    assert first.startswith("web-gate: not ready after")
    assert first.endswith("last seen: guest lab-web is off")
    look = "look at it (layer 1, guest lab-web): https://vc.test/ui, Launch Web Console"
    assert second.strip() == look
    assert vcenter.sessions == 0


def test_a_guest_on_a_host_that_is_away_is_told_as_that(
    vcenter: Vcenter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = VsphereGuestProvider()
    vcenter.machine()
    made = mended(provider, {}, guest())
    whole = vcenter.read

    def read(thing: Any, *paths: str) -> Props:
        return {key: it for key, it in whole(thing, *paths).items() if key != "config"}

    monkeypatch.setattr(vcenter, "read", read)
    assert provider.diff("", made, guest()).changes
    assert "lab-web is disconnected; `pulumi up` mends it" in capsys.readouterr().err


@pytest.mark.parametrize("harm", ["nothing", "off", "reconfigured", "removed"])
def test_whichever_call_fails_the_next_up_ends_well(harm: str, vcenter: Vcenter) -> None:
    provider = VsphereGuestProvider()
    machine = vcenter.machine()
    made = mended(provider, {}, guest())
    if harm == "off":
        machine.state = "poweredOff"
    elif harm == "reconfigured":
        machine.config.hardware.memoryMB = 1024
    elif harm == "removed":
        vcenter.machines.clear()

    for raised in every_call_failing(lambda: mended(provider, made, guest()), vcenter):
        assert isinstance(raised, VsphereError)
        assert "SystemError" in str(raised)
        vcenter.fails_at = -1
        mended(provider, made, guest())
        assert not provider.diff("", made, guest()).changes
        assert len(vcenter.machines) == 1


def test_a_failing_destroy_says_why_and_leaves_the_rest_to_the_provider(
    vcenter: Vcenter, capsys: pytest.CaptureFixture[str]
) -> None:
    vcenter.machine()
    guest_made = mended(VsphereGuestProvider(), {}, guest())
    network_made = mended(VsphereNetworkProvider(), {}, network())
    for provider, made in (
        (VsphereGuestProvider(), guest_made),
        (VsphereNetworkProvider(), network_made),
        (VsphereSlotProvider(), dict(SLOT)),
    ):
        vcenter.calls, vcenter.fails_at = 0, 0
        provider.delete("", made)
        assert f"{made['name']}: SystemError" in capsys.readouterr().err


# The client ---------------------------------------------------------------------------------------


class _Stub:
    """A connection on which everything fails, and what it was made with."""

    failure: Exception = OSError(111, "Connection refused")

    def __init__(self, **given: Any) -> None:
        self.given = given

    def InvokeMethod(self, *_: object, **__: object) -> None:  # noqa: N802
        raise self.failure

    def DropConnections(self) -> None:  # noqa: N802
        pass


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OSError(111, "Connection refused"), "vc.test:444: connection refused"),
        (TimeoutError("timed out"), "vc.test:444: timed out"),
        (vim.fault.InvalidLogin(msg="Cannot complete login"), "vc.test:444: Cannot complete login"),
    ],
    ids=["refused", "silent", "wrong password"],
)
def test_a_vcenter_that_can_not_be_entered_is_told_why(
    failure: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk(), "SoapStubAdapter", _Stub)
    monkeypatch.setattr(_Stub, "failure", failure)
    with pytest.raises(Unreachable) as away, Vsphere(Api(**API | {"server": "vc.test:444"})):
        pass
    assert str(away.value) == said


def test_a_certificate_is_asked_for_unless_the_stack_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[_Stub] = []

    def stub(**given: Any) -> _Stub:
        made.append(_Stub(**given))
        return made[-1]

    monkeypatch.setattr(sdk(), "SoapStubAdapter", stub)
    wrong = ssl.SSLCertVerificationError(1, "certificate verify failed")
    wrong.verify_message = "self-signed certificate"
    monkeypatch.setattr(_Stub, "failure", wrong)
    for insecure in (False, True):
        api = Api(server="vc.test", user="me", password="x", insecure=insecure)
        with pytest.raises(Unreachable, match=r"is not trusted .self-signed.*set insecure: true"):
            Vsphere(api).__enter__()
    strict, lax = (one.given["sslContext"] for one in made)
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert lax.verify_mode == ssl.CERT_NONE
    assert made[0].given["port"] == 443


def test_a_task_is_waited_for_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "POLL_S", 0.001)
    vcenter = Vsphere(Api(**API))

    class Task:
        def __init__(self, *states: str) -> None:
            self.states = list(states)

        @property
        def info(self) -> Any:
            error = vim.fault.DuplicateName(name="web")
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return SimpleNamespace(
                state=state, result="made", error=error, descriptionId="vm.clone"
            )

    assert vcenter.end(Task("running", "success")) == "made"
    with pytest.raises(VsphereError, match=r"DuplicateName \(web\)"):
        vcenter.end(Task("running", "error"))
    with pytest.raises(VsphereError, match="clone did not end within 0 s"):
        vcenter.end(Task("running"), 0.01)
