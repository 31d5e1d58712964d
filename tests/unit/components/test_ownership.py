"""Whose an object is: decided by its UUID alone, at both ends of a lab's life.

A failure here means that `pulumi destroy` leaves something behind, or takes what is somebody else's.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.gates.identity import IdentityProvider
from components.gates.uuids import uuid_of
from components.kinds.libvirt import census, ownership, virsh
from components.kinds.libvirt.ownership import left_behind, remove
from components.kinds.libvirt.virsh import Virsh, VirshError
from components.reach.shell import Unreachable
from tests.support.libvirtd import FakeLibvirt, LocalLibvirt

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

URI = "qemu:///system"
OURS = "0123456789abcdef"
THEIRS = "fedcba9876543210"
IDENTITY = st.text("0123456789abcdef", min_size=16, max_size=16)


@pytest.fixture
def place() -> FakeLibvirt:
    """A host with an object of each kind of ours, of another lab, and of a stranger."""
    made = FakeLibvirt()
    for lab, owner in (("ours", OURS), ("theirs", THEIRS)):
        made.domain(f"{lab}-web", uuid=uuid_of(owner, "domain", f"{lab}-web"))
        made.domain(f"{lab}-off", "shut off", uuid=uuid_of(owner, "domain", f"{lab}-off"))
        made.network(f"{lab}-net", uuid=uuid_of(owner, "network", f"{lab}-net"))
        made.network(f"{lab}-down", "inactive", uuid=uuid_of(owner, "network", f"{lab}-down"))
        made.pools[f"nestlab-{lab}"] = uuid_of(owner, "pool", f"nestlab-{lab}")
        made.volumes[f"nestlab-{lab}"] = [f"{lab}-web.qcow2", "medium-ipxe.iso"]
    made.domain("ours-by-name", uuid=str(uuid.uuid4()))
    made.network("default")
    made.pools["default"] = str(uuid.uuid4())
    made.volumes["default"] = ["precious.qcow2"]
    return made


def test_what_is_ours_is_found_by_its_uuid_in_an_order_in_which_it_can_go(
    place: FakeLibvirt,
) -> None:
    assert list(left_behind(Virsh(place, URI), OURS)) == [
        (kind, uuid_of(OURS, kind, name), name)
        for kind, name in (
            ("domain", "ours-web"),
            ("domain", "ours-off"),
            ("network", "ours-net"),
            ("network", "ours-down"),
            ("pool", "nestlab-ours"),
        )
    ]


def identity(private: str = "") -> dict[str, Any]:
    """As the state of a lab has it that was made before it said its host's kind."""
    target = {"kind": "local"}
    names = {"name": "identity", "lab": "ours", "private": private}
    return {**names, "target": target, "uri": URI, "value": OURS}


def test_a_destroy_removes_the_lab_s_keys_and_logs_by_name_and_nothing_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = LocalLibvirt()
    here.domain("ours-kvm1", uuid=uuid_of(OURS, "domain", "ours-kvm1"))
    here.domain("ours-too-web")
    monkeypatch.setattr(virsh, "shell_of", lambda _: here)
    monkeypatch.setattr(ownership, "CONSOLE_LOG", f"{tmp_path}/{{domain}}-console.log")
    for name in ("ours-kvm1", "ours-mine", "ours-too-web", "theirs-kvm1"):
        (tmp_path / f"{name}-console.log").touch()
    keys, mine = tmp_path / "keys" / "local", tmp_path / "ssh"
    (keys / "kvm1").mkdir(parents=True)
    (keys / "link").symlink_to(mine)
    mine.mkdir()
    for folder in (keys / "kvm1", mine):
        for name in ("id_ed25519", "known_hosts", "answers-0123456789ab.iso", "notes.txt"):
            (folder / name).touch()
    IdentityProvider().delete("", identity(str(keys)))
    logs = {path.name for path in tmp_path.glob("*.log")}
    assert logs == {
        "ours-mine-console.log",
        "ours-too-web-console.log",
        "theirs-kvm1-console.log",
    }
    assert [path.name for path in (keys / "kvm1").iterdir()] == ["notes.txt"]
    assert len(list(mine.iterdir())) == 4, "a link leads to what is the user's"


def test_a_lab_without_libvirt_below_it_takes_its_keys_away_and_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(virsh, "shell_of")
    keys = tmp_path / "keys" / "local"
    (keys / "kvm1").mkdir(parents=True)
    (keys / "kvm1" / "id_ed25519").touch()
    IdentityProvider().delete("", {**identity(str(keys)), "uri": ""})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stack", ["..", ".", "../..", "local", "link"])
def test_only_files_of_hosts_go_with_a_labs_keys(
    stack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(virsh, "shell_of")
    local = tmp_path / ".nestlab"
    others = (
        "thesis.txt",
        "kvm1/thesis.txt",
        "kvm1/answers.iso",
        "kvm1/my-id_ed25519",
        "a/b/id_ed25519",
    )
    mine = ("kvm1/id_ed25519", "kvm1/known_hosts", "kvm1/.known_hosts.12", "kvm1/answers-0123456789ab.iso",
            "kvm1/answers-0123456789ab.img", "kvm1/.answers-0123456789ab.img.abc_1234/x",
            "kvm1/.answers-0123456789ab.iso.abc_1234/tree/answer.toml")  # fmt: skip
    kept = [local / "passphrase", local / "state/x/.pulumi", local / "keys/class/kvm1/id_ed25519"]
    kept += [local / "keys/local" / name for name in others]
    gone = [local / "keys/local" / name for name in mine]
    for file in (*kept, *gone):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (local / "keys" / "link").symlink_to(local / "keys" / "class")
    IdentityProvider().delete("", {**identity(f"{local}/keys/{stack}"), "uri": ""})
    left = {file for file in (*kept, *gone) if file.exists()}
    assert left == ({*kept} if stack == "local" else {*kept, *gone})


def test_a_destroyed_lab_leaves_nothing_of_its_own_and_touches_nothing_else(
    place: FakeLibvirt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(virsh, "shell_of", lambda _: place)
    props = identity()
    IdentityProvider().delete("", props)
    assert set(place.domains) == {"theirs-web", "theirs-off", "ours-by-name"}
    assert set(place.networks) == {"theirs-net", "theirs-down", "default"}
    assert set(place.pools) == {"nestlab-theirs", "default"}
    assert place.volumes == {
        # Its UUID is the lab's, but not what somebody put there: its folder stays with all in it.
        "nestlab-ours": ["ours-web.qcow2", "medium-ipxe.iso"],
        "nestlab-theirs": ["theirs-web.qcow2", "medium-ipxe.iso"],
        "default": ["precious.qcow2"],
    }
    said = capsys.readouterr().err.splitlines()
    assert "removed pool nestlab-ours, left behind by a step that did not end" in said
    assert any("/pool/nestlab-ours at this machine stays" in line for line in said)
    assert len(said) == 6


def test_a_host_that_does_not_answer_does_not_stop_a_destroy(
    place: FakeLibvirt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(virsh, "shell_of", lambda _: place)
    place.down = True
    props = identity()
    IdentityProvider().delete("", props)
    assert "could not look for left-overs: libvirt at this machine" in capsys.readouterr().err


def test_a_lab_keeps_its_identity_and_no_two_have_the_same() -> None:
    provider = IdentityProvider()
    made: list[dict[str, Any]] = [
        provider.create(
            identity() | {"kind": "libvirt", "uri": "", "folders": "/srv/labs/ours"}
        ).outs
        or {}
        for _ in range(50)
    ]
    assert {each["folder"] for each in made} == {f"/srv/labs/ours-{each['value']}" for each in made}
    assert len({each["value"] for each in made}) == 50
    assert all(uuid.UUID(uuid_of(each["value"], "domain", "web")) for each in made)
    assert provider.diff("", made[0], identity() | {"uri": "other"}).changes is False


@pytest.mark.parametrize(
    ("label", "group"), [("+64055:+64055", "64055"), ("+107:+36", "36"), ("+0:+0", "0"), ("", "")]
)
def test_a_lab_knows_the_group_that_qemu_runs_in(
    label: str, group: str, place: FakeLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.label = label
    monkeypatch.setattr(virsh, "shell_of", lambda _: place)
    given = identity() | {"kind": "libvirt"}
    made = IdentityProvider().create(given)
    assert made.outs
    assert made.outs["group"] == group


@given(IDENTITY, st.sampled_from(["domain", "network", "pool"]), st.text(max_size=20))
def test_a_uuid_is_the_same_each_time_and_one_for_each_lab_kind_and_name(
    identity: str, kind: str, name: str
) -> None:
    made = uuid_of(identity, kind, name)
    assert made == str(uuid.UUID(made)) == uuid_of(identity, kind, name)
    other = "0" if identity[0] != "0" else "1"
    assert made != uuid_of(other + identity[1:], kind, name)
    assert made != uuid_of(identity, f"{kind}s", name)
    assert made != uuid_of(identity, kind, f"{name}x")


def test_uuids_stay_what_they_are_in_running_labs() -> None:
    assert uuid_of(OURS, "domain", "lab-web") == "1fd33421-36b7-513e-9229-c17472a49d07"


def test_what_can_not_be_removed_is_told(place: FakeLibvirt) -> None:
    with pytest.raises(VirshError, match=r"virsh undefine at this machine: .*'nobody'"):
        remove(Virsh(place, URI), "domain", "nobody")
    place.down = True
    with pytest.raises(Unreachable):
        remove(Virsh(place, URI), "domain", "ours-web")


def test_of_a_pool_only_what_the_lab_made_goes_by_its_name(place: FakeLibvirt) -> None:
    mine = [
        "thesis.txt",
        "my-vm.qcow2",
        "win 10.img",
        "ours",
        "ours-web.qcow2.bak",
        "-x",
        "a\u2028b",
    ]
    place.volumes["nestlab-ours"] += mine
    made = ["ours-web.qcow2", "medium-ipxe.iso", "ours-db.qcow2"]
    remove(Virsh(place, URI), "pool", "nestlab-ours", made)
    assert place.volumes["nestlab-ours"] == mine
    assert "nestlab-ours" not in place.pools


def test_a_pool_with_nothing_of_anybody_s_goes_with_its_folder(place: FakeLibvirt) -> None:
    remove(Virsh(place, URI), "pool", "nestlab-ours", ["ours-web.qcow2", "medium-ipxe.iso"])
    assert "nestlab-ours" not in {*place.pools, *place.volumes}


@pytest.mark.parametrize("state", ["stopped", "without its folder", "gone"])
def test_a_pool_goes_whatever_became_of_it(state: str, place: FakeLibvirt) -> None:
    place.stopped.add("nestlab-ours")
    if state == "without its folder":
        del place.volumes["nestlab-ours"]
    if state == "gone":
        del place.pools["nestlab-ours"]
    remove(Virsh(place, URI), "pool", "nestlab-ours", ["ours-web.qcow2", "medium-ipxe.iso"])
    assert "nestlab-ours" not in place.pools
    assert bool(place.volumes.get("nestlab-ours")) is (state == "gone")


ODD = [
    *(
        "ours-web copy",
        "my web",
        "-x",
        "--all",
        "a'b",
        'q"q',
        "  ours-web",
        "ours-web  ",
        "a\u2028b",
    ),
    *(
        "\u0085",
        "semi; undefine ours-web",
        "back\\slash",
        "tab\tname",
        "running",
        "ours-web   running",
    ),
]
"""Names that libvirt 9 lets anybody give (tried on its test driver)."""


@pytest.mark.parametrize("way", ["by virsh", "by a script"])
@pytest.mark.parametrize("name", ODD)
def test_strangers_with_odd_names_are_neither_taken_nor_in_the_way(
    name: str, way: str, place: FakeLibvirt
) -> None:
    if way == "by virsh":
        place = LocalLibvirt(**vars(place))
    place.domain(name, "shut off")
    place.network(name, "inactive")
    place.pools[name] = str(uuid.uuid4())
    place.volumes[name] = ["precious.qcow2"]
    at = Virsh(place, URI)
    seen = census.take(at)
    assert seen.domains["ours-web"] == "running"
    assert seen.domains[name] == "shut off"
    assert (seen.networks["ours-net"], seen.networks[name]) == (True, False)
    assert {"nestlab-ours", name.rstrip(" ")} <= {each.rstrip(" ") for each in seen.pools}
    assert len(list(left_behind(at, OURS))) == 5
    for kind, found, _ in left_behind(at, OURS):
        remove(at, kind, found)
    assert name in place.domains
    assert name in place.networks
    assert name in place.pools
    assert place.volumes[name] == ["precious.qcow2"]
