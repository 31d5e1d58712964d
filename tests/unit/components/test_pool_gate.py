"""The gate of a pool: brought back, names that others have refused, left-overs gone by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from components.gates.uuids import uuid_of
from components.kinds.libvirt import census, ownership, virsh
from components.kinds.libvirt.gates import pool
from components.kinds.libvirt.gates.pool import PoolGateProvider
from components.kinds.libvirt.virsh import VirshError
from components.reach.shell import Result
from tests.support.libvirtd import FakeLibvirt, LocalLibvirt
from tests.unit.components.labs import up

if TYPE_CHECKING:
    from pathlib import Path

OURS = "0123456789abcdef"
POOL = "nestlab-ours"
UUID = uuid_of(OURS, "pool", POOL)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    made = LocalLibvirt()
    made.pools[POOL] = UUID
    made.volumes[POOL] = []
    monkeypatch.setattr(virsh, "shell_of", lambda _: made)
    monkeypatch.setattr(census, "FRESH_S", -1.0)
    return made


def props(*machines: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "host-pool-gate",
        "target": {"kind": "local"},
        "uri": "qemu:///system",
        "pool": POOL,
        "uuid": UUID,
        "domains": {name: uuid_of(OURS, "domain", name) for name in machines},
        "networks": {"ours-net": uuid_of(OURS, "network", "ours-net")},
        "volumes": [f"{name}.qcow2" for name in machines],
        **more,
    }


def made(news: dict[str, Any]) -> dict[str, Any]:
    outs = PoolGateProvider().create(news).outs
    assert outs
    return dict(outs)


def test_a_pool_that_is_up_is_no_change_and_nothing_is_done_to_it(place: FakeLibvirt) -> None:
    outs = made(props("ours-web"))
    assert PoolGateProvider().diff("", outs, props("ours-web")).changes is False
    assert place.commands() == []


@pytest.mark.parametrize("state", ["stopped", "not defined any more"])
@pytest.mark.parametrize("folder", ["there", "gone"])
def test_a_pool_is_brought_back_with_the_files_it_had(
    state: str, folder: str, place: FakeLibvirt, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = made(props("ours-web"))
    place.volumes[POOL] = ["ours-web.qcow2", "thesis.txt"]
    place.stopped.add(POOL)
    if state != "stopped":
        del place.pools[POOL]
    if folder == "gone":
        del place.volumes[POOL]
    assert PoolGateProvider().diff("", outs, props("ours-web")).changes is True
    assert f"pool {POOL} is {state}; `pulumi up` mends it" in capsys.readouterr().err
    PoolGateProvider().update("", outs, props("ours-web"))
    assert place.pools[POOL] == UUID
    assert POOL not in place.stopped
    assert place.volumes[POOL] == (["ours-web.qcow2", "thesis.txt"] if folder == "there" else [])
    built = "pool-build" in " ".join(place.commands())
    assert built is (folder == "gone"), "building sets mode and owner of a folder that is there"


ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
tun0\t0000080A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t004D0A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
nl1234\t004E0A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
"""Of /proc/net/route (proc_net(5)): a default route, 10.8.0.0/16 and 10.10.77.0/24 of a VPN, one of the lab's own."""


@pytest.mark.parametrize(
    ("subnet", "bridge", "refused"),
    [
        ("10.10.77.0/24", "nl1234", "tun0"),
        ("10.10.78.0/24", "nl1234", ""),  # its own, as after it was made
        ("10.10.78.0/24", "nl9999", "nl1234"),
        ("10.8.5.0/24", "nl1234", ""),  # a part, which libvirt takes
        ("10.10.79.0/24", "nl1234", ""),
    ],
)
def test_a_range_that_the_host_has_already_is_told_before_anything_is_made(
    subnet: str,
    bridge: str,
    refused: str,
    place: FakeLibvirt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Host:
        name = "this machine"

        def run(self, argv: list[str]) -> Result:
            assert argv == ["cat", "/proc/net/route"]
            return Result(0, ROUTES, "")

    monkeypatch.setattr(pool, "host_shell", lambda _: Host())
    news = props("ours-web", ranges=[{"network": "ours-net", "bridge": bridge, "subnet": subnet}])
    failures = PoolGateProvider().check({}, news).failures
    said = [failure.reason for failure in failures]
    if refused:
        [why] = said
        assert why.startswith(f"this machine has {subnet} already, on {refused} ")
    else:
        assert said == []
    assert place.commands() == []
    # A network that the lab has made is libvirt's, and its host may be on a VPN by now.
    outs = made(news)
    assert PoolGateProvider().check(outs, news).failures == []
    assert PoolGateProvider().diff("", outs, news).changes is False


@pytest.mark.parametrize("kind", ["domain", "network", "pool"])
def test_a_name_that_somebody_else_has_is_refused_before_anything_is_made(
    kind: str, place: FakeLibvirt
) -> None:
    if kind == "domain":
        place.domain("ours-web")
    elif kind == "network":
        place.network("ours-net")
    else:
        place.pools[POOL] = uuid_of("f" * 16, "pool", POOL)
    with pytest.raises(
        VirshError, match=r"which is not this lab's.*another checkout or of another"
    ) as no:
        PoolGateProvider().create(props("ours-web"))
    assert f"this machine has a {kind} " in str(no.value)
    assert "lab.name in its stack file" in str(no.value)
    assert place.commands() == []


def test_what_is_the_lab_s_already_is_no_stranger(place: FakeLibvirt) -> None:
    place.domain("ours-web", uuid=uuid_of(OURS, "domain", "ours-web"))
    place.domain("ours-web copy")
    outs = made(props("ours-web"))
    assert PoolGateProvider().update("", outs, props("ours-web", "ours-db")).outs


def test_what_was_once_made_is_not_forgotten_when_it_leaves_the_stack(place: FakeLibvirt) -> None:
    assert place.pools == {POOL: UUID}
    outs = made(props("ours-web"))
    later = PoolGateProvider().update("", outs, props("ours-db")).outs
    assert later
    assert later["made"]["volumes"] == ["ours-db.qcow2", "ours-web.qcow2"]
    assert set(later["made"]["domains"]) == {"ours-web", "ours-db"}


def test_when_the_lab_goes_its_left_overs_go_by_name_and_nothing_else(
    place: FakeLibvirt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ownership, "CONSOLE_LOG", f"{tmp_path}/{{domain}}-console.log")
    for name in ("ours-web", "ours-webby", "ours-db"):
        (tmp_path / f"{name}-console.log").touch()
    outs = made(props("ours-web", "ours-db"))
    place.domain("ours-web", uuid=uuid_of(OURS, "domain", "ours-web"))
    place.domain("ours-db")
    place.network("ours-net")
    place.volumes[POOL] = ["ours-web.qcow2", "my vm.qcow2", "ours-web.qcow2~"]
    PoolGateProvider().delete("", outs)
    assert set(place.domains) == {"ours-db"}, "somebody else's of the same name"
    assert set(place.networks) == {"ours-net"}
    assert {path.name for path in tmp_path.iterdir()} == {
        "ours-webby-console.log",
        "ours-db-console.log",
    }
    assert POOL not in place.pools
    assert place.volumes[POOL] == ["my vm.qcow2", "ours-web.qcow2~"]
    assert f"/pool/{POOL} at this machine stays" in capsys.readouterr().err


def test_a_pool_of_somebody_else_s_is_left_alone_when_the_lab_goes(place: FakeLibvirt) -> None:
    outs = made(props("ours-web"))
    place.pools[POOL] = uuid_of("f" * 16, "pool", POOL)
    place.volumes[POOL] = ["ours-web.qcow2"]
    PoolGateProvider().delete("", outs)
    assert place.volumes[POOL] == ["ours-web.qcow2"]
    assert POOL in place.pools


def test_the_list_has_every_volume_that_the_lab_makes_in_the_pool() -> None:
    made = up(
        {
            "media": {"ipxe": {"path": "ipxe.iso"}, "base": {"path": "base.img"}},
            "networks": {"net": {"subnet": "10.77.0.0/24"}},
            "hypervisors": {
                "kvm1": {
                    "kind": "kvm",
                    "network": "net",
                    "memory_mib": 4096,
                    "disk_gib": 20,
                    "networks": {"in": {"subnet": "10.78.0.0/24"}},
                    "guests": {"deep": {"iso": "ipxe", "network": "in", "memory_mib": 64}},
                }
            },
            "guests": {"web": {"image": "base", "disk_gib": 2, "network": "net", "memory_mib": 64}},
        }
    )
    for gate in ("host-pool-gate", "kvm1-pool-gate"):
        [inputs] = [each.inputs for each in made.resources.values() if each.name == gate]
        volumes = [
            each.inputs["name"]
            for each in made.resources.values()
            if each.type.endswith((":Volume", ":CloudInitDisk"))
            and each.inputs["pool"] == inputs["pool"]
        ]
        assert volumes
        assert inputs["volumes"] == sorted(volumes)
