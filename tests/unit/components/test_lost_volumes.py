"""Volumes that somebody deleted by hand: seen by the pool's gate, told in words, made anew by who makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from components.gates.marks import UNKNOWN
from components.gates.uuids import uuid_of
from components.kinds.libvirt import census, virsh
from components.kinds.libvirt.gates.pool import PoolGateProvider, Volume
from components.kinds.libvirt.virsh import Virsh, VirshError
from components.reach.shell import Unreachable
from tests.support.libvirtd import FakeLibvirt, LocalLibvirt
from tests.unit.components.labs import up

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import Recorder

POOL = "nestlab-ours"
UUID = uuid_of("0123456789abcdef", "pool", POOL)
NAMES = ["a.qcow2", "a-seed.img", "medium-os.img"]


class Nested(FakeLibvirt):
    """A nested host, which takes files."""

    @override
    def put(self, source: Path | bytes, to: str, *, mode: int = 0o644, timeout_s: float) -> None:
        assert mode == 0o600, "a disk is for nobody else"
        assert timeout_s
        folder, _, name = to.rpartition("/")
        assert folder == f"/pool/{POOL}"
        self.volumes[POOL].append(name)
        self.files[name] = str(source)


@pytest.fixture(params=[LocalLibvirt, Nested], ids=["here", "nested"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    """A libvirt with the lab's pool, which holds all that it should, and somebody's file."""
    made: FakeLibvirt = request.param()
    made.pools[POOL] = UUID
    made.volumes[POOL] = [*NAMES, "somebody's notes.txt"]
    monkeypatch.setattr(virsh, "shell_of", lambda _: made)
    monkeypatch.setattr(census, "FRESH_S", -1.0)
    return made


def props(*names: str, image: str = "", **more: Any) -> dict[str, Any]:
    kept: dict[str, Any] = {
        "a.qcow2": {"role": "disk", "machines": ["a"]},
        "a-seed.img": {"role": "copy", "machines": ["a", "b"]},
        "medium-os.img": {"role": "image", "machines": ["a"], "source": image},
    }
    wanted = list(names or NAMES)
    return {
        "name": "host-pool-gate",
        "target": {"kind": "local"},
        "uri": "qemu:///system",
        "pool": POOL,
        "uuid": UUID,
        "domains": {},
        "networks": {},
        "volumes": wanted,
        "kept": {name: kept[name] for name in wanted},
        "anew": {},
        **more,
    }


def checked(olds: dict[str, Any], news: dict[str, Any]) -> dict[str, Any]:
    result = PoolGateProvider().check(olds, news)
    assert result.failures == []
    return dict(result.inputs)


def stands(news: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what the state has of a lab that is up."""
    return dict(PoolGateProvider().create(checked({}, news or props())).outs or {})


def test_what_is_there_changes_nothing(place: FakeLibvirt) -> None:
    outs = stands()
    news = checked(outs, props())
    assert news["anew"] == {}
    assert PoolGateProvider().diff("", outs, news).changes is False
    assert "vol-delete" not in " ".join(place.commands())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "a.qcow2",
            "a.qcow2 of a is not in pool {}, and what was on it is lost: `pulumi up` makes",
        ),
        (
            "a-seed.img",
            "a-seed.img of a, b is not in pool {}: `pulumi up` makes it again, and a, b",
        ),
        (
            "medium-os.img",
            "medium-os.img of a is not in pool {}: `pulumi up` sends it again; disks",
        ),
    ],
)
def test_one_that_is_gone_is_told_and_counted_once(
    name: str, said: str, place: FakeLibvirt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "os.img"
    source.write_bytes(b"an image")
    outs, wanted = stands(), props(image=str(source))
    place.volumes[POOL].remove(name)
    news = checked(outs, wanted)
    assert news["anew"] == {name: 1}, "which says to the engine that it is to be made anew"
    assert PoolGateProvider().diff("", outs, news).changes is True
    assert said.format(f"{POOL} any more") in capsys.readouterr().err
    after = dict(PoolGateProvider().update("", outs, news).outs or {})
    if name not in place.volumes[POOL]:
        place.volumes[POOL].append(name)  # by its own provider, when the gate is open
    again = checked(after, wanted)
    assert again["anew"] == {name: 1}
    assert PoolGateProvider().diff("", after, again).changes is False
    place.volumes[POOL].remove(name)
    assert checked(after, wanted)["anew"] == {name: 2}


@pytest.mark.parametrize("why", ["stopped", "not defined", "off"])
def test_what_can_not_be_seen_is_not_lost(why: str, place: FakeLibvirt) -> None:
    outs = stands()
    place.volumes[POOL].clear()
    if why == "stopped":
        place.stopped.add(POOL)
    elif why == "off":
        place.down = True
    else:
        del place.pools[POOL]
    assert checked(outs, props())["anew"] == {}


def test_a_host_that_is_not_known_yet_is_not_asked(place: FakeLibvirt) -> None:
    outs = stands()
    place.before = lambda *_: pytest.fail("nobody knows where it is")
    news = checked(outs, props(target=UNKNOWN))
    assert news["anew"] == {}


def test_what_the_stack_has_from_now_on_or_no_more_is_not_missing(place: FakeLibvirt) -> None:
    outs = stands(props("a.qcow2", "a-seed.img"))
    place.volumes[POOL] = ["a.qcow2"]
    assert checked(outs, props("a.qcow2", "medium-os.img"))["anew"] == {}


def test_a_new_lab_asks_nobody(place: FakeLibvirt) -> None:
    place.before = lambda *_: pytest.fail("there is nothing to miss")
    assert checked({}, props())["anew"] == {}


def test_a_pool_that_is_started_first_is_looked_at_by_the_next_command(place: FakeLibvirt) -> None:
    """Nobody was asked whether its machines may be made anew."""
    outs = stands()
    place.stopped.add(POOL)
    place.volumes[POOL].clear()
    after = dict(PoolGateProvider().update("", outs, checked(outs, props())).outs or {})
    assert after["anew"] == {}
    assert checked(after, props("a.qcow2"))["anew"] == {"a.qcow2": 1}


def test_an_image_is_sent_again_as_it_was(place: FakeLibvirt, tmp_path: Path) -> None:
    source = tmp_path / "os.img"
    source.write_bytes(b"an image")
    outs, wanted = stands(), props(image=str(source))
    place.volumes[POOL].remove("medium-os.img")
    PoolGateProvider().update("", outs, checked(outs, wanted))
    assert place.volumes[POOL].count("medium-os.img") == 1
    assert place.files["medium-os.img"] == str(source)


def test_an_image_whose_file_is_gone_too_is_told(place: FakeLibvirt) -> None:
    outs, wanted = stands(), props(image="/nowhere/os.img")
    place.volumes[POOL].remove("medium-os.img")
    with pytest.raises(VirshError, match=r"sent again: /nowhere/os\.img is not there"):
        PoolGateProvider().update("", outs, checked(outs, wanted))


def test_half_of_an_image_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = LocalLibvirt()
    place.pools[POOL], place.volumes[POOL], place.failing = UUID, [*NAMES], {"upload"}
    monkeypatch.setattr(virsh, "shell_of", lambda _: place)
    source = tmp_path / "os.img"
    source.write_bytes(b"an image")
    outs, wanted = stands(), props(image=str(source))
    place.volumes[POOL].remove("medium-os.img")
    with pytest.raises(VirshError, match="No space left"):
        PoolGateProvider().update("", outs, checked(outs, wanted))
    assert "medium-os.img" not in place.volumes[POOL]


def test_a_state_of_an_older_nestlab_has_lost_nothing(place: FakeLibvirt) -> None:
    outs = stands()
    del outs["anew"], outs["kept"]
    news = checked(outs, props())
    assert PoolGateProvider().diff("", outs, news).changes is False
    place.volumes[POOL].remove("a.qcow2")
    assert checked(outs, props())["anew"] == {"a.qcow2": 1}


@given(st.sets(st.sampled_from(NAMES)))
def test_all_that_are_gone_are_counted_and_no_others(gone: set[str]) -> None:
    at = Nested()
    at.pools[POOL], at.volumes[POOL] = UUID, [name for name in NAMES if name not in gone]
    assert set(NAMES) - (census.volumes(Virsh(at, "qemu:///system"), POOL) or set()) == gone
    census._shared.clear()


@pytest.mark.parametrize("role", ["disk", "copy", "image"])
def test_what_is_said_names_the_machine_and_what_up_does(role: Any) -> None:
    said = Volume(role, ["web"]).lost("x.img", POOL)
    for word in ("x.img", "of web", POOL, "`pulumi up`"):
        assert word in said


def test_a_host_that_does_not_answer_can_not_be_asked() -> None:
    at = Nested()
    at.down = True
    with pytest.raises(Unreachable):
        census.volumes(Virsh(at, "qemu:///system"), POOL)


# What the engine is told ------------------------------------------------------------------------------

LAB = {
    "media": {"ipxe": {"path": "ipxe.iso"}, "base": {"path": "base.img"}},
    "networks": {"net": {"subnet": "10.77.0.0/24"}},
    "guests": {
        "web": {
            "image": "base",
            "disk_gib": 2,
            "discs": ["ipxe"],
            "disks": {"data": 1},
            "network": "net",
            "memory_mib": 64,
        },
        "db": {"iso": "ipxe", "disk_gib": 2, "network": "net", "memory_mib": 64},
    },
}


def lab() -> Recorder:
    return up(LAB)


def test_each_volume_is_made_anew_when_it_is_missing_but_an_image(place: FakeLibvirt) -> None:
    del place
    kept = lab().named("host-pool-gate").inputs["kept"]
    triggers = {each.inputs["name"]: each.replacement_trigger for each in lab().of_type(":Volume")}
    assert {name for name, each in kept.items() if each["role"] == "image"} == {
        name for name, trigger in triggers.items() if trigger is None
    }
    assert set(triggers) == set(kept)


def test_the_list_says_whose_each_volume_is() -> None:
    kept = lab().named("host-pool-gate").inputs["kept"]
    assert kept["lab-web.qcow2"] == {"role": "disk", "machines": ["web"]}
    assert kept["lab-web.data.qcow2"] == {"role": "disk", "machines": ["web"]}
    [disc] = [each for name, each in kept.items() if name.startswith("medium-ipxe")]
    assert (disc["role"], disc["machines"]) == ("copy", ["db", "web"])
    [image] = [each for each in kept.values() if each["role"] == "image"]
    assert image["machines"] == ["web"]
    assert image["source"].endswith("base.img")


def test_a_machine_is_made_anew_with_any_of_its_drives() -> None:
    """A QEMU that runs has the deleted file open, and writes into nothing."""
    for name in ("web-domain", "db-domain"):
        assert lab().named(name).replacement_trigger == "0"
