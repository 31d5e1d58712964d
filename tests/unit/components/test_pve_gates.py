"""Gates of Proxmox VE on an API in memory: what they see, mend and leave, and every call failing once.

A failure here means somebody else's guest or bridge is touched, a guest is made twice or half, or what
was wrong is told in words that help nobody.
"""

from __future__ import annotations

import copy
import hashlib
import ssl
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import proxmoxer
import pytest
import requests

from components.gates.marks import UNKNOWN
from components.kinds.proxmox import api as remote
from components.kinds.proxmox.api import Api, Pve, PveError
from components.kinds.proxmox.gates.disks import PveDisksProvider
from components.kinds.proxmox.gates.guest import PveGuestProvider
from components.kinds.proxmox.gates.network import PveNetworkProvider
from components.kinds.proxmox.gates.seed import PveSeedProvider
from components.kinds.proxmox.gates.slot import PveSlotProvider
from components.kinds.proxmox.gates.storage import PveStorageProvider
from components.kinds.proxmox.gates.template import PveTemplateProvider
from components.reach.interrupt import CANCELLED
from components.reach.shell import Unreachable
from components.reach.waiting import NotReady

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

API: dict[str, Any] = {
    "url": "https://pve.test:8006",
    "user": "root@pam",
    "password": "hunter2",
    "insecure": True,
}
OWNER = "11111111-2222-5333-8444-555555555555"
MARK = f"nestlab {OWNER}"
VMID = 4711
TEMPLATE = 4000
Props = dict[str, Any]

GATES = tuple(
    import_module(f"components.kinds.proxmox.gates.{name}")
    for name in ("base", "disks", "guest", "network", "seed", "slot", "storage", "template")
)


def everywhere(patch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    """Replace ``name`` in every gate that has it."""
    for module in GATES:
        patch.setattr(module, name, value, raising=False)


class Cluster:
    """The API of two nodes, as `components.kinds.proxmox.api.Pve` offers it; any call can be made to fail."""

    name = "pve.test:8006"

    def __init__(self) -> None:
        self.guests: dict[int, Props] = {}
        """By number: node, type, status, config."""
        self.held: Props = {}
        """What a guest that runs still has of what was taken out."""
        self.bridges: dict[str, Props] = {"vmbr0": {"active": 1}}
        self.contents = {"local": "iso,vztmpl,backup"}
        """What each storage takes."""
        self.folder = Path()
        """Where they lie; empty: nowhere."""
        self.files: dict[str, tuple[bytes, Props]] = {}
        """ISOs of `local` by their names: content, and what was said of it."""
        self.calls = 0
        self.fails_at = -1
        self.failure: Callable[[], Exception] = lambda: PveError("500 Internal Server Error")
        self.late = False
        """Whether the call that fails was carried out all the same."""

    def guest(
        self, vmid: int = VMID, *, node: str = "pve1", kind: str = "qemu", **config: Any
    ) -> None:
        config.setdefault("description", MARK)
        self.guests[vmid] = {"node": node, "type": kind, "status": "stopped", "config": config}

    def status(self, vmid: int = VMID) -> str:
        return str(self.guests[vmid]["status"])

    @contextmanager
    def _call(self) -> Iterator[None]:
        fails = self.calls == self.fails_at
        self.calls += 1
        if fails and not self.late:
            raise self.failure()
        yield
        if fails:
            raise self.failure()

    def find(self, path: str) -> Any:
        with self._call():
            return self._get(path)

    def get(self, path: str, **params: Any) -> Any:
        with self._call():
            if path == "cluster/resources":
                assert params == {"type": "vm"}
                return [
                    {"vmid": vmid, "name": it["config"].get("name", f"VM {vmid}"), **it}
                    for vmid, it in self.guests.items()
                ]
            if path.endswith("/network"):
                return [{"iface": name, **it} for name, it in self.bridges.items()]
            if path.endswith("/content"):
                assert params == {"content": "iso"}
                files = self.files.items()
                return [{"volid": f"local:iso/{n}", "size": len(of)} for n, (of, _) in files]
            if "/content/" in path:
                return {"path": str(self.folder / path.rpartition("/")[2])}
            if "/storage/" in path:
                return {"content": self.contents[path.split("/")[3]]}
            found = self._get(path)
        if found is None:
            raise PveError(f"{path} does not exist")
        return found | self.held if params == {"current": 1} else found

    def _at(self, path: str) -> tuple[str, str, int, str]:
        _, node, kind, *rest = path.split("/")
        return node, kind, int(rest[0]) if rest else 0, "/".join(rest[1:])

    def _get(self, path: str) -> Any:
        node, kind, *_ = path.split("/")[1:]
        if kind == "network":
            return copy.deepcopy(self.bridges.get(path.rpartition("/")[2]))
        node, kind, vmid, what = self._at(path)
        it = self.guests.get(vmid)
        if it is None or (it["node"], it["type"]) != (node, kind):
            return None
        return copy.deepcopy(it["config"]) if what == "config" else {"status": it["status"]}

    def post(self, path: str, **params: Any) -> Any:
        with self._call():
            if path.endswith("/network"):
                self.bridges[params.pop("iface")] = params
                return None
            node, kind, vmid, what = self._at(path)
            if what == "clone":
                new = int(params["newid"])
                self._free(new)
                source = self.guests[vmid]["config"]
                config = {key: it for key, it in source.items() if key != "template"}
                config["scsi0"] = config["scsi0"].replace(f"base-{vmid}", f"vm-{new}")
                config |= {key: params[key] for key in ("description", "name") if key in params}
                self.guest(new, node=node, **config)
            elif what == "config":
                self._set(vmid, params)
            elif what == "template":
                self.guests[vmid]["config"]["template"] = 1
            elif what.startswith("status/"):
                self.guests[vmid]["status"] = {"start": "running", "stop": "stopped"}[what[7:]]
                if self.status(vmid) == "stopped" and self.held:
                    volumes = (value.partition(",")[0] for value in self.held.values())
                    self.guests[vmid]["config"] |= {
                        f"unused{n}": it for n, it in enumerate(volumes)
                    }
                    self.held = {}
            else:
                new = int(params.pop("vmid"))
                self._free(new)
                params.pop("ostemplate", None)
                self.guest(new, node=node, kind=kind, **params)
            return "UPID:x"

    def upload(self, path: str, name: str, data: bytes, *, content: str, sha256: str) -> Any:
        with self._call():
            assert path == "nodes/pve1/storage/local/upload"
            self.files[name] = (data, {"content": content, "sha256": sha256})
            if self.folder != Path():
                (self.folder / name).write_bytes(data)
                (self.folder / name).chmod(0o644)
            return "UPID:x"

    def _free(self, vmid: int) -> None:
        if vmid in self.guests:
            raise PveError(f"unable to create VM {vmid} - already exists")

    def _set(self, vmid: int, params: Props) -> None:
        config = self.guests[vmid]["config"]
        for key in filter(None, params.pop("delete", "").split(",")):
            config.pop(key, None)
        config |= params

    def put(self, path: str, **params: Any) -> Any:
        with self._call():
            if path.endswith("/network"):
                for bridge in self.bridges.values():
                    bridge["active"] = 1
                return None
            if "/network/" in path:
                self.bridges[path.rpartition("/")[2]] |= params
                return None
            if path.startswith("storage/"):
                self.contents[path.partition("/")[2]] = params["content"]
                return None
            _, _, vmid, what = self._at(path)
            if what == "resize":
                config = self.guests[vmid]["config"]
                rest = [
                    part
                    for part in config[params["disk"]].split(",")
                    if not part.startswith("size=")
                ]
                config[params["disk"]] = ",".join([*rest, f"size={params['size']}"])
            else:
                self._set(vmid, params)
            return None

    def delete(self, path: str, **params: Any) -> Any:
        with self._call():
            if "/network/" in path:
                del self.bridges[path.rpartition("/")[2]]
                return None
            if "/content/" in path:
                del self.files[path.rpartition("/")[2]]
                return "UPID:x"
            assert params == {"purge": 1}
            vmid = self._at(path)[2]
            if self.guests[vmid]["status"] == "running":
                raise PveError(f"VM {vmid} is running - destroy failed")
            del self.guests[vmid]
            return "UPID:x"

    def wait(self, node: str, task: Any, deadline_s: float) -> None:
        del node, task
        assert deadline_s > 0
        with self._call():
            pass


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    everywhere(monkeypatch, "Pve", lambda _: made)
    return made


def of_network(**other: Any) -> Props:
    return {
        "name": "own-gate",
        "api": API,
        "node": "pve1",
        "bridge": "nl0123456789",
        "cidr": "10.77.0.1/24",
        "owner": OWNER,
    } | other


def of_slot(**other: Any) -> Props:
    return {
        "name": "web-slot",
        "api": API,
        "node": "pve1",
        "kind": "qemu",
        # As the engine hands numbers over.
        "vmid": float(VMID),
        "owner": OWNER,
    } | other


def of_guest(**other: Any) -> Props:
    return {
        "name": "web-gate",
        "api": API,
        "node": "pve1",
        "kind": "qemu",
        "vmid": float(VMID),
        "instance": "abc",
        "config": {},
        "probe": {"kind": "none"},
        "reach": {},
        "key_folder": "",
        "target": {"kind": "local", "name": "this machine"},
        "again": {},
        "deadline_s": 5.0,
    } | other


def of_template(**other: Any) -> Props:
    return {
        "name": "template-gate",
        "api": API,
        "node": "pve1",
        "kind": "qemu",
        "vmid": float(TEMPLATE),
        "again": {"image": "local:import/disk.qcow2"},
        "instance": "abc",
    } | other


def changes(provider: Any, olds: Props, news: Props | None = None) -> bool:
    return bool(provider.diff("", olds, news or olds).changes)


# Storages ---------------------------------------------------------------------------------------


def of_storage(**other: Any) -> Props:
    plain = {"name": "one-imports", "api": API, "node": "pve1", "storage": "local"}
    return plain | {"content": "import", "ours": True} | other


def test_a_nodes_storage_is_made_to_take_disk_images_beside_what_it_takes(cluster: Cluster) -> None:
    outs = PveStorageProvider().create(of_storage()).outs or {}
    assert outs["takes"] == "import"
    assert cluster.contents == {"local": "iso,vztmpl,backup,import"}
    assert not changes(PveStorageProvider(), outs)
    cluster.contents["local"] = "import,iso"
    assert not changes(PveStorageProvider(), outs)
    cluster.contents["local"] = "vztmpl"
    assert changes(PveStorageProvider(), outs)
    PveStorageProvider().update("", outs, outs)
    assert cluster.contents == {"local": "vztmpl,import"}
    PveStorageProvider().delete("", outs)
    assert cluster.contents == {"local": "vztmpl,import"}


def test_somebody_elses_storage_is_not_changed_and_what_to_do_is_said(cluster: Cluster) -> None:
    told = (
        r"does not take content import: `pvesm set local --content iso,vztmpl,backup,import` there"
    )
    with pytest.raises(PveError, match=told):
        PveStorageProvider().create(of_storage(ours=False))
    cluster.contents["local"] = "iso,import"
    assert (PveStorageProvider().create(of_storage(ours=False)).outs or {})["takes"] == "import"
    assert cluster.contents["local"] == "iso,import"


# Seeds ------------------------------------------------------------------------------------------


def of_seed(disc: Path, **other: Any) -> Props:
    plain = {"name": "web-seed", "api": API, "node": "pve1", "storage": "local", "closes": {}}
    told = disc.read_bytes()
    sha256 = hashlib.sha256(told).hexdigest()
    sent = {"called": "web-seed-1.iso", "path": str(disc), "size": len(told), "sha256": sha256}
    return plain | sent | other


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    made = tmp_path / "disc.iso"
    made.write_bytes(b"keys and a password")
    return made


def test_a_seed_is_sent_with_its_sum_looked_at_and_removed(cluster: Cluster, disc: Path) -> None:
    wanted = of_seed(disc)
    outs = PveSeedProvider().create(wanted).outs or {}
    assert outs["volume"] == "local:iso/web-seed-1.iso"
    content, said = cluster.files["web-seed-1.iso"]
    assert content == disc.read_bytes()
    assert said == {"content": "iso", "sha256": wanted["sha256"]}
    calls = cluster.calls
    assert not changes(PveSeedProvider(), outs)
    PveSeedProvider().update("", outs, outs)
    assert cluster.calls == calls + 2, "one that is there is not sent again"

    harms: list[dict[str, tuple[bytes, Props]]] = [{}, {"web-seed-1.iso": (b"half", {})}]
    for harm in harms:
        cluster.files = harm
        assert changes(PveSeedProvider(), outs)
        PveSeedProvider().update("", outs, outs)
        assert cluster.files["web-seed-1.iso"][0] == disc.read_bytes()

    disc.write_bytes(b"keys and 1 password")
    PveSeedProvider().update("", outs, of_seed(disc))
    assert cluster.files["web-seed-1.iso"][0] == disc.read_bytes(), "of the same size, and another"

    PveSeedProvider().delete("", outs)
    assert cluster.files == {}
    PveSeedProvider().delete("", outs)


def test_a_seed_is_closed_to_others_where_the_node_is_the_labs(
    cluster: Cluster, disc: Path, tmp_path: Path
) -> None:
    cluster.folder = tmp_path / "iso"
    cluster.folder.mkdir()
    here = {"kind": "local", "name": "this machine"}
    PveSeedProvider().create(of_seed(disc, closes=here))
    assert (cluster.folder / "web-seed-1.iso").stat().st_mode & 0o777 == 0o600
    cluster.folder = tmp_path / "elsewhere"
    cluster.folder.mkdir()
    outs = PveSeedProvider().create(of_seed(disc, called="other.iso")).outs or {}
    assert (cluster.folder / "other.iso").stat().st_mode & 0o777 == 0o644, "not for the lab to set"
    cluster.folder = tmp_path / "nowhere"
    with pytest.raises(PveError, match=r"other\.iso on this machine can't be closed to others: "):
        PveSeedProvider().update("", outs, outs | {"closes": here})


def test_a_drive_that_was_the_labs_is_taken_out_of_a_guest(cluster: Cluster) -> None:
    seeded = {"scsi1": "local:iso/web-seed-1.iso,media=cdrom"}
    cluster.guest(scsi0="local-lvm:vm-1-disk-0,size=4G", scsi2="local-lvm:theirs,size=1G")
    outs = PveGuestProvider().create(of_guest(config=seeded)).outs or {}
    assert cluster.guests[VMID]["config"]["scsi1"] == seeded["scsi1"]
    cluster.guests[VMID]["config"]["scsi1"] += ",size=372K"
    assert not changes(PveGuestProvider(), outs), "a node adds what it knows of a drive"
    PveGuestProvider().update("", outs, of_guest())
    config = cluster.guests[VMID]["config"]
    assert "scsi1" not in config
    assert config["scsi2"] == "local-lvm:theirs,size=1G", "what somebody plugged in stays"
    assert cluster.status() == "running"


# Further disks ----------------------------------------------------------------------------------


def of_disks(**other: Any) -> Props:
    return {
        "name": "web-disks",
        "api": API,
        "node": "pve1",
        "vmid": float(VMID),
        "owner": OWNER,
        "called": "web",
        "storage": "local-lvm",
        "disks": {"data": 2.0, "logs": 1.0},
        "places": {},
    } | other


def checked(olds: Props, news: Props) -> Props:
    found = PveDisksProvider().check(olds, news)
    assert not found.failures
    return dict(found.inputs)


def test_a_further_disk_keeps_its_place_and_none_gets_that_of_one_that_goes() -> None:
    first = checked({}, of_disks())
    assert first["places"] == {"data": "scsi2", "logs": "scsi3"}
    # What is not known yet stops it as little.
    second = checked(first, of_disks(api=UNKNOWN, disks={"a": 1.0, "b": 1.0, "logs": 1.0}))
    assert second["places"] == {"a": "scsi4", "b": "scsi5", "logs": "scsi3"}
    third = checked(second, of_disks(disks={"c": 1.0, "logs": 1.0}))
    assert third["places"] == {"c": "scsi2", "logs": "scsi3"}
    # As many as there may be, all of them others than before: the last place is scsi30.
    many = {f"old{n}": f"scsi{n}" for n in range(2, 10)}
    anew = checked(of_disks(places=many), of_disks(disks={f"new{n}": 1.0 for n in range(8)}))
    assert set(anew["places"].values()) == {f"scsi{n}" for n in range(10, 18)}


def test_a_further_disk_does_not_shrink() -> None:
    news = of_disks(disks={"data": 1.0, "logs": 1.0})
    [failure] = PveDisksProvider().check(checked({}, of_disks()), news).failures
    assert failure.property == "disks"
    assert "the disk data of guest web has 2 GiB and the stack says 1" in failure.reason


def test_a_disk_is_plugged_in_where_it_is_lacking_and_what_is_there_is_left(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    given = checked({}, of_disks())
    outs = PveDisksProvider().create(given).outs or {}
    assert outs["places"] == given["places"]
    assert cluster.guests == {}, "the provider makes the guest with its disks"
    has = "local-lvm:vm-4711-disk-3,serial=data,size=2G"
    cluster.guest(scsi2=has)
    assert changes(PveDisksProvider(), outs)
    said = "web-disks: guest 4711 has no disk logs any more, and what was on it is lost"
    assert said in capsys.readouterr().err
    PveDisksProvider().update("", outs, outs)
    config = cluster.guests[VMID]["config"]
    assert (config["scsi2"], config["scsi3"].split(",")[0]) == (has, "local-lvm:1")
    assert config["scsi3"].endswith(",serial=logs")
    assert not changes(PveDisksProvider(), outs)


@pytest.mark.parametrize(
    "config",
    [{"description": "somebody's"}, {"description": f"half-made: {MARK}"}],
    ids=["somebody's", "half-made"],
)
def test_no_disk_is_plugged_into_a_guest_that_is_not_the_labs_or_not_whole(
    config: Props, cluster: Cluster
) -> None:
    cluster.guest(**config)
    given = checked({}, of_disks())
    PveDisksProvider().create(given)
    assert not changes(PveDisksProvider(), given)
    assert cluster.guests[VMID]["config"] == config


def test_a_disk_that_somebody_plugged_in_at_the_place_is_left_and_told(cluster: Cluster) -> None:
    cluster.guest(scsi2="local-lvm:theirs,size=1G")
    with pytest.raises(PveError, match="guest 4711 has a disk at scsi2 that is not the lab's"):
        PveDisksProvider().create(checked({}, of_disks()))
    assert cluster.guests[VMID]["config"]["scsi2"] == "local-lvm:theirs,size=1G"


@pytest.mark.parametrize("plugs", [True, False], ids=["at once", "once it is off"])
def test_what_the_provider_unplugged_of_the_labs_is_removed_and_nothing_else(
    plugs: bool, cluster: Cluster
) -> None:
    disk = "local-lvm:vm-4711-disk-3,serial=data,size=2G"
    outs = whole(cluster, there={"scsi2": disk})
    config = cluster.guests[VMID]["config"]
    config |= {"unused7": "local-lvm:vm-4711-disk-9"}
    del config["scsi2"]
    if plugs:
        config |= {"unused0": "local-lvm:vm-4711-disk-3"}
    else:
        cluster.held = {"scsi2": disk}
    PveGuestProvider().update("", outs, of_guest(again=CLONE, instance="other"))
    config = cluster.guests[VMID]["config"]
    assert [key for key in config if key.startswith("unused")] == ["unused7"]
    assert cluster.status() == "running"


def test_another_volume_of_a_further_disk_is_taken_note_of(cluster: Cluster) -> None:
    outs = whole(cluster, there={"scsi2": "local-lvm:vm-4711-disk-3,serial=data,size=2G"})
    cluster.guests[VMID]["config"]["scsi2"] = "local-lvm:vm-4711-disk-5,serial=data,size=2G"
    assert changes(PveGuestProvider(), outs)
    outs = PveGuestProvider().update("", outs, of_guest(again=CLONE)).outs or {}
    assert not changes(PveGuestProvider(), outs)


# Bridges ----------------------------------------------------------------------------------------


def test_a_bridge_is_made_applied_and_marked(cluster: Cluster) -> None:
    outs = PveNetworkProvider().create(of_network()).outs
    assert outs
    assert outs["network"] == "nl0123456789"
    made = cluster.bridges["nl0123456789"]
    assert (made["cidr"], made["comments"], made["active"]) == ("10.77.0.1/24", MARK, 1)
    assert not changes(PveNetworkProvider(), outs)
    PveNetworkProvider().delete("", outs)
    assert set(cluster.bridges) == {"vmbr0"}


def test_a_bridge_of_somebody_else_is_left_alone(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = {"cidr": "192.0.2.1/24", "comments": "mine", "active": 1}
    cluster.bridges["nl0123456789"] = dict(theirs)
    with pytest.raises(PveError, match="has a bridge nl0123456789 that is not this lab's"):
        PveNetworkProvider().create(of_network())
    assert changes(PveNetworkProvider(), of_network())
    assert "bridge nl0123456789 is somebody else's; `pulumi up` mends it" in capsys.readouterr().err
    PveNetworkProvider().delete("", of_network())
    assert cluster.bridges["nl0123456789"] == theirs


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ({"cidr": "10.99.0.1/24"}, "has the address 10.99.0.1/24"),
        ({"active": 0}, "is down"),
        (None, "is not there any more"),
    ],
    ids=["another address", "down", "removed"],
)
def test_a_bridge_that_was_changed_by_hand_is_seen_and_mended(
    harm: Props | None, said: str, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = PveNetworkProvider().create(of_network()).outs or {}
    before = copy.deepcopy(cluster.bridges)
    if harm is None:
        del cluster.bridges["nl0123456789"]
    else:
        cluster.bridges["nl0123456789"] |= harm
    assert changes(PveNetworkProvider(), outs)
    assert f"own-gate: bridge nl0123456789 {said}" in capsys.readouterr().err
    PveNetworkProvider().update("", outs, outs)
    assert cluster.bridges == before


def test_a_bridge_of_the_node_itself_has_to_be_there_and_is_never_changed(cluster: Cluster) -> None:
    given = of_network(bridge="vmbr0", cidr="", owner="")
    before = copy.deepcopy(cluster.bridges)
    outs = PveNetworkProvider().create(given).outs or {}
    assert not changes(PveNetworkProvider(), outs)
    PveNetworkProvider().delete("", outs)
    assert cluster.bridges == before
    with pytest.raises(PveError, match="has no bridge vmbr9, which the stack names"):
        PveNetworkProvider().create(given | {"bridge": "vmbr9"})


# Moves, silence, refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "props"),
    [
        (PveNetworkProvider(), of_network()),
        (PveSlotProvider(), of_slot()),
        (PveGuestProvider(), of_guest()),
        (PveTemplateProvider(), of_template()),
    ],
    ids=["network", "slot", "guest", "template"],
)
def test_what_moves_to_another_node_is_made_there_before_it_goes_here(
    provider: Any, props: Props, cluster: Cluster
) -> None:
    found = provider.diff("", props, props | {"node": "pve2"})
    assert (found.changes, found.replaces, found.delete_before_replace) == (True, ["node"], False)
    unknown = provider.diff("", props, props | {"node": UNKNOWN})
    assert (unknown.changes, unknown.replaces) == (True, None), "nobody knows yet"
    assert cluster.calls == 0


def test_an_api_that_is_silent_is_told_in_preview_and_stops_no_destroy(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.guest()

    def silent(_: Any) -> Any:
        raise Unreachable("pve.test:8006: connection refused")

    with pytest.MonkeyPatch.context() as patch:
        everywhere(patch, "Pve", silent)
        for provider, props in ((PveGuestProvider(), of_guest()), (PveSlotProvider(), of_slot())):
            if not isinstance(provider, PveSlotProvider):
                assert changes(provider, props)
            provider.delete("", props)
    said = capsys.readouterr().err
    assert "web-gate: pve.test:8006: connection refused; `pulumi up` mends it" in said
    assert "web-slot: pve.test:8006: connection refused" in said


def test_a_refusal_while_looking_is_a_thing_seen(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.guest()
    cluster.fails_at = 0
    cluster.failure = lambda: PveError("403 Forbidden: Permission check failed")
    assert changes(PveGuestProvider(), of_guest())
    assert "web-gate: 403 Forbidden: Permission check failed" in capsys.readouterr().err


# Numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["qemu", "lxc"])
@pytest.mark.parametrize("node", ["pve1", "pve2"])
def test_a_number_that_somebody_else_has_anywhere_in_the_cluster_is_not_taken(
    node: str, kind: str, cluster: Cluster
) -> None:
    cluster.guest(node=node, kind=kind, description="precious", name="db")
    with pytest.raises(PveError, match=rf"{node} has a guest 4711 that is not this lab's \(db\)"):
        PveSlotProvider().create(of_slot())
    PveSlotProvider().delete("", of_slot())
    assert VMID in cluster.guests


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_what_a_killed_run_left_under_the_number_goes(status: str, cluster: Cluster) -> None:
    cluster.guest()
    cluster.guests[VMID]["status"] = status
    outs = PveSlotProvider().create(of_slot()).outs or {}
    assert not cluster.guests
    assert not changes(PveSlotProvider(), outs)
    left = outs | {"left": True}
    assert changes(PveSlotProvider(), left, outs)
    cluster.guest()
    assert (PveSlotProvider().update("", left, of_slot()).outs or {})["left"] is False
    assert not cluster.guests


def test_a_number_that_is_in_use_is_not_cleared_by_an_update(cluster: Cluster) -> None:
    outs = PveSlotProvider().create(of_slot()).outs or {}
    cluster.guest()
    PveSlotProvider().update("", outs, of_slot(api={**API, "password": "other"}))
    assert VMID in cluster.guests


def test_the_labs_own_guest_on_the_node_it_leaves_is_left_to_the_provider(cluster: Cluster) -> None:
    cluster.guest(node="pve2")
    PveSlotProvider().create(of_slot())
    assert VMID in cluster.guests


# Guests -----------------------------------------------------------------------------------------

CLONE = {"clone": float(TEMPLATE), "linked": True}


def whole(cluster: Cluster, *, there: Props | None = None, **more: Any) -> Props:
    """A guest that is up, a clone of a template, with what else is ``there``; return the outputs of its gate."""
    cluster.guest(
        TEMPLATE, template=1, scsi0=f"local-lvm:base-{TEMPLATE}-disk-0,size=1G", memory="64"
    )
    cluster.guest(
        name="web",
        memory="512",
        scsi0=f"local-lvm:vm-{VMID}-disk-0,ssd=1,size=4G",
        efidisk0="local-lvm:vm-4711-disk-1,efitype=4m,size=4M",
        ide2="local:iso/a.iso,media=cdrom",
        net0="virtio=52:54:00:00:00:01,bridge=vmbr0",
        digest="d",
        meta="m",
        **(there or {}),
    )
    outs = PveGuestProvider().create(of_guest(again=CLONE, **more)).outs
    assert outs
    return outs


def test_a_guest_is_started_and_one_that_was_switched_off_too(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = whole(cluster)
    assert cluster.status() == "running"
    assert not changes(PveGuestProvider(), outs)
    cluster.guests[VMID]["status"] = "stopped"
    assert changes(PveGuestProvider(), outs)
    assert "web-gate: guest 4711 is stopped; `pulumi up` mends it" in capsys.readouterr().err
    PveGuestProvider().update("", outs, outs)
    assert cluster.status() == "running"


def test_what_the_provider_cant_set_is_set_while_it_is_off(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = whole(cluster, config={"kvm": 0.0})
    assert cluster.guests[VMID]["config"]["kvm"] == 0
    assert not changes(PveGuestProvider(), outs)
    del cluster.guests[VMID]["config"]["kvm"]
    assert changes(PveGuestProvider(), outs)
    assert "guest 4711 does not have kvm=0" in capsys.readouterr().err
    PveGuestProvider().update("", outs, outs)
    assert (cluster.guests[VMID]["config"]["kvm"], cluster.status()) == (0, "running")


def test_what_a_node_adds_to_a_drive_is_no_change(cluster: Cluster) -> None:
    cd = "local:iso/answers.iso,media=cdrom"
    outs = whole(cluster, config={"ide0": cd})
    cluster.guests[VMID]["config"]["ide0"] = f"{cd},size=412K"
    assert not changes(PveGuestProvider(), outs)
    cluster.guests[VMID]["config"]["ide0"] = "local:iso/other.iso,media=cdrom,size=412K"
    assert changes(PveGuestProvider(), outs)


def test_a_guest_that_was_removed_is_cloned_again_as_it_was(cluster: Cluster) -> None:
    outs = whole(cluster)
    before = copy.deepcopy(cluster.guests[VMID]["config"])
    del cluster.guests[VMID]
    cluster.guests[TEMPLATE]["config"]["tablet"] = "0"
    PveGuestProvider().update("", outs, outs)
    after = cluster.guests[VMID]["config"]
    assert cluster.status() == "running"
    assert after["efidisk0"] == "local-lvm:1,efitype=4m", "made anew, the template has none"
    assert after["scsi0"] == "local-lvm:vm-4711-disk-0,size=4G", "the clone's own, grown"
    same = set(before) - {"scsi0", "efidisk0", "digest", "meta"}
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert "tablet" not in after, "what the template has and the guest had not is taken out"


def test_a_guest_without_an_image_gets_empty_disks_of_their_sizes(cluster: Cluster) -> None:
    outs = whole(cluster) | {"again": {}}
    del cluster.guests[VMID]
    PveGuestProvider().update("", outs, outs)
    after = cluster.guests[VMID]["config"]
    assert after["scsi0"] == "local-lvm:4,ssd=1"
    assert after["ide2"] == "local:iso/a.iso,media=cdrom"
    assert after["description"] == MARK


def test_a_container_is_made_again_from_its_template(cluster: Cluster) -> None:
    cluster.guest(kind="lxc", hostname="box", rootfs="local-lvm:vm-4711-disk-0,size=4G")
    given = of_guest(kind="lxc", again={"template": "local:vztmpl/box.tar.gz"})
    outs = PveGuestProvider().create(given).outs or {}
    del cluster.guests[VMID]
    PveGuestProvider().update("", outs, outs)
    assert cluster.guests[VMID]["config"]["rootfs"] == "local-lvm:4"
    assert (cluster.guests[VMID]["type"], cluster.status()) == ("lxc", "running")


def test_a_guest_that_somebody_migrated_is_not_made_twice(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = whole(cluster)
    cluster.guests[VMID]["node"] = "pve2"
    assert changes(PveGuestProvider(), outs)
    words = "guest 4711 is on node pve2 by now; `qm migrate 4711 pve1` on pve2 brings it back"
    assert words in capsys.readouterr().err
    with pytest.raises(PveError, match="brings it back"):
        PveGuestProvider().update("", outs, outs)
    assert cluster.guests[VMID]["node"] == "pve2"


def test_a_guest_removed_while_it_is_being_made_is_told(cluster: Cluster) -> None:
    with pytest.raises(PveError, match="guest 4711 was removed while it was being made"):
        PveGuestProvider().create(of_guest())
    del cluster


def test_a_guest_that_does_not_come_up_is_told_with_where_to_look(cluster: Cluster) -> None:
    cluster.guest()
    probe = {"kind": "tcp", "host": "127.0.0.1", "port": 1}
    with pytest.raises(NotReady) as late:
        PveGuestProvider().create(of_guest(probe=probe, deadline_s=0.05))
    assert "web-gate: not ready after" in str(late.value)
    assert "last seen: 127.0.0.1:1 takes no connection yet" in str(late.value)
    assert "look at it on pve.test:8006: node pve1, guest 4711, Console" in str(late.value)


def test_a_guest_that_is_gone_is_made_again_for_the_provider_to_delete(cluster: Cluster) -> None:
    outs = whole(cluster)
    del cluster.guests[VMID]
    PveGuestProvider().delete("", outs)
    assert VMID in cluster.guests


# Templates --------------------------------------------------------------------------------------


def template(cluster: Cluster) -> Props:
    disk = f"local-lvm:base-{TEMPLATE}-disk-0,size=1G"
    cluster.guest(TEMPLATE, template=1, scsi0=disk, memory="64")
    outs = PveTemplateProvider().create(of_template()).outs
    assert outs
    return outs


@pytest.mark.parametrize("harm", ["removed", "half-made"])
def test_a_template_that_is_not_whole_is_made_again(
    harm: str, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = template(cluster)
    assert not changes(PveTemplateProvider(), outs)
    if harm == "removed":
        del cluster.guests[TEMPLATE]
    else:
        del cluster.guests[TEMPLATE]["config"]["template"]
    assert changes(PveTemplateProvider(), outs)
    assert "template 4000 is " in capsys.readouterr().err
    PveTemplateProvider().update("", outs, outs)
    made = cluster.guests[TEMPLATE]["config"]
    assert made["template"] == 1
    assert made["scsi0"] == "local-lvm:0,import-from=local:import/disk.qcow2,size=1G"
    del cluster.guests[TEMPLATE]
    PveTemplateProvider().delete("", outs)
    assert TEMPLATE in cluster.guests


def test_a_template_removed_while_it_is_being_made_is_told(cluster: Cluster) -> None:
    with pytest.raises(PveError, match="template 4000 was removed while it was being made"):
        PveTemplateProvider().create(of_template())
    del cluster


# Every call fails once --------------------------------------------------------------------------

FAILURES: dict[str, tuple[Callable[[], Exception], bool]] = {
    "refused": (lambda: PveError("500 Internal Server Error"), False),
    "silent": (lambda: Unreachable("pve.test:8006: timed out"), False),
    "answer lost": (lambda: Unreachable("pve.test:8006: connection reset"), True),
}


def every_failure(
    make: Callable[[], tuple[Cluster, Callable[[], Any]]], failure: str
) -> Iterator[tuple[Cluster, int]]:
    """Yield a cluster for each call of an action, after it failed there and was repeated."""
    number = 0
    while True:
        cluster, act = make()
        cluster.fails_at = cluster.calls + number
        cluster.failure, cluster.late = FAILURES[failure]
        failed = False
        try:
            act()
        except (PveError, Unreachable, NotReady):
            failed = True
            act()
        if not failed and cluster.calls <= cluster.fails_at:
            return
        yield cluster, number
        number += 1


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[Cluster]:
    """The cluster that gates find last."""
    made: list[Cluster] = []
    everywhere(monkeypatch, "Pve", lambda _: made[-1])
    return made


@pytest.mark.parametrize("failure", FAILURES)
def test_a_clone_is_made_again_whole_whatever_call_fails(
    failure: str, current: list[Cluster]
) -> None:
    def make() -> tuple[Cluster, Callable[[], Any]]:
        current.append(Cluster())
        outs = whole(current[-1])
        del current[-1].guests[VMID]
        return current[-1], lambda: PveGuestProvider().update("", outs, outs)

    seen = 0
    for cluster, number in every_failure(make, failure):
        config = cluster.guests[VMID]["config"]
        assert config["description"] == MARK, number
        assert config["net0"] == "virtio=52:54:00:00:00:01,bridge=vmbr0", number
        assert config["scsi0"].endswith("size=4G"), number
        assert cluster.status() == "running", number
        seen += 1
    assert seen > 12


@pytest.mark.parametrize("failure", FAILURES)
def test_a_template_is_made_again_whole_whatever_call_fails(
    failure: str, current: list[Cluster]
) -> None:
    def make() -> tuple[Cluster, Callable[[], Any]]:
        current.append(Cluster())
        outs = template(current[-1])
        del current[-1].guests[TEMPLATE]
        return current[-1], lambda: PveTemplateProvider().update("", outs, outs)

    for cluster, number in every_failure(make, failure):
        config = cluster.guests[TEMPLATE]["config"]
        assert (config["template"], config["description"]) == (1, MARK), number


@pytest.mark.parametrize("failure", FAILURES)
def test_a_bridge_is_made_once_whatever_call_fails(failure: str, current: list[Cluster]) -> None:
    def make() -> tuple[Cluster, Callable[[], Any]]:
        current.append(Cluster())
        return current[-1], lambda: PveNetworkProvider().create(of_network())

    for cluster, number in every_failure(make, failure):
        assert set(cluster.bridges) == {"vmbr0", "nl0123456789"}, number
        assert cluster.bridges["nl0123456789"]["active"], number


@pytest.mark.parametrize("failure", FAILURES)
def test_a_seed_is_there_once_whatever_call_fails(
    failure: str, current: list[Cluster], disc: Path
) -> None:
    def make() -> tuple[Cluster, Callable[[], Any]]:
        current.append(Cluster())
        return current[-1], lambda: PveSeedProvider().create(of_seed(disc))

    for cluster, number in every_failure(make, failure):
        assert [of for of, _ in cluster.files.values()] == [disc.read_bytes()], number


@pytest.mark.parametrize("failure", FAILURES)
def test_a_slot_is_cleared_whatever_call_fails(failure: str, current: list[Cluster]) -> None:
    def make() -> tuple[Cluster, Callable[[], Any]]:
        current.append(Cluster())
        current[-1].guest()
        current[-1].guests[VMID]["status"] = "running"
        return current[-1], lambda: PveSlotProvider().create(of_slot())

    for cluster, number in every_failure(make, failure):
        assert not cluster.guests, number


@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_of_a_call_stops_a_destroy(failure: str, current: list[Cluster]) -> None:
    def make() -> tuple[Cluster, Callable[[], Any]]:
        current.append(Cluster())
        outs = whole(current[-1])
        del current[-1].guests[VMID]
        return current[-1], lambda: PveGuestProvider().delete("", outs)

    for _cluster, _number in every_failure(make, failure):
        pass  # the gate says what was in its way; the slot behind it sweeps


# The API itself ---------------------------------------------------------------------------------


class Client:
    """proxmoxer's client: what it was made with, and what it answers."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.made: dict[str, Any] = {}

    def __call__(self, *words: str, **given: Any) -> Any:
        if given:
            self.made = {"host": words[0], **given}
        else:
            self.asked.append(words[0])
        return self

    def get(self, **_: Any) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    post = put = delete = get


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client([])
    monkeypatch.setattr(proxmoxer, "ProxmoxAPI", made)
    monkeypatch.setattr(remote, "TASK_POLL_S", 0.001)
    return made


def test_a_user_logs_in_with_a_password(client: Client) -> None:
    assert Pve(Api(**API)).name == "pve.test:8006"
    assert (client.made["user"], client.made["password"]) == ("root@pam", "hunter2")
    assert client.made["verify_ssl"] is False
    assert "token_name" not in client.made


def test_a_token_logs_in_with_its_secret_and_certificates_are_checked(client: Client) -> None:
    Pve(Api(url="https://pve.test", user="lab@pve!nestlab", password="secret"))
    told = {key: client.made[key] for key in ("user", "token_name", "token_value", "port")}
    assert told == {
        "user": "lab@pve",
        "token_name": "nestlab",
        "token_value": "secret",
        "port": 8006,
    }
    assert client.made["verify_ssl"] is True
    assert "password" not in client.made


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (TimeoutError("timed out"), "timed out"),
        (requests.ConnectTimeout("no answer"), "no answer"),
        (ssl.SSLCertVerificationError("certificate verify failed"), "certificate verify failed"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_silence_is_told_by_its_cause(cause: Exception, words: str, client: Client) -> None:
    client.answers = [cause]
    with pytest.raises(Unreachable, match=f"pve.test:8006: .*{words}"):
        Pve(Api(**API)).get("version")


def test_a_wrong_password_is_told_without_it(client: Client) -> None:
    client.answers = [proxmoxer.AuthenticationError("Couldn't authenticate user: root@pam")]
    with pytest.raises(Unreachable) as refused:
        Pve(Api(**API)).get("version")
    assert "authenticate" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_refusal_is_told_in_the_apis_own_words(client: Client) -> None:
    refused = proxmoxer.ResourceException(
        400, "Parameter verification failed.", "", {"memory": "value must\n be 16 or more"}
    )
    client.answers = [refused]
    with pytest.raises(PveError) as told:
        Pve(Api(**API)).post("nodes/pve1/qemu", memory=1)
    assert str(told.value) == ("Parameter verification failed. (memory: value must be 16 or more)")


@pytest.mark.parametrize(
    ("words", "there"),
    [
        ("Configuration file 'nodes/pve1/qemu-server/1.conf' does not exist", True),
        ("no such node 'pve9'", True),
        ("Permission check failed", False),
    ],
)
def test_what_is_not_there_is_told_from_what_is_refused(
    words: str, there: bool, client: Client
) -> None:
    client.answers = [proxmoxer.ResourceException(500, words, "")]
    if there:
        assert Pve(Api(**API)).find("nodes/pve1/qemu/1/config") is None
    else:
        with pytest.raises(PveError, match=words):
            Pve(Api(**API)).find("nodes/pve1/qemu/1/config")


def ended(status: str) -> Props:
    return {"status": "stopped", "exitstatus": status, "type": "qmstart"}


def test_a_task_is_waited_for_and_its_failure_told(client: Client) -> None:
    going = {"status": "running", "type": "qmstart"}
    client.answers = [going, going, ended("OK")]
    Pve(Api(**API)).wait("pve1", "UPID:pve1:x", 5)
    assert client.asked == ["nodes/pve1/tasks/UPID:pve1:x/status"] * 3
    client.answers = [ended("WARNINGS: 1")]
    Pve(Api(**API)).wait("pve1", "UPID:pve1:x", 5)
    client.answers = [ended("start failed: QEMU exited with code 1")]
    with pytest.raises(PveError, match="qmstart: start failed: QEMU exited with code 1"):
        Pve(Api(**API)).wait("pve1", "UPID:pve1:x", 5)
    client.answers = [going] * 1000
    with pytest.raises(PveError, match="qmstart did not end within 0 s"):
        Pve(Api(**API)).wait("pve1", "UPID:pve1:x", 0.01)
    Pve(Api(**API)).wait("pve1", None, 5)


def test_a_wait_for_a_task_ends_when_the_engine_is_stopped(client: Client) -> None:
    client.answers = [{"status": "running", "type": "qmstart"}] * 3
    CANCELLED.set()
    with pytest.raises(PveError, match="stopped while waiting for qmstart"):
        Pve(Api(**API)).wait("pve1", "UPID:pve1:x", 5)
