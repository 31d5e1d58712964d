"""A lab inside a Proxmox VE, with the real engine and the real provider, on a stand-in of its API.

A failure here is a guest that is made twice, one that stays off after somebody switched it off, or a
`pulumi up` that changes something each time.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

from components.kinds.proxmox.api import Api
from tests.support import images, inner
from tests.support.commands import Machine
from tests.support.pve import Pve
from tests.support.stubs.proxmox import Proxmox
from tests.support.told import lives_with_a_seed, told
from toolchain.engine import changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from components.reach.shell import Target
    from tests.double.conftest import Project, Serve

pytestmark = [pytest.mark.double, pytest.mark.spread]

PLACE = """
import pulumi_proxmoxve as px
from components.kinds.proxmox.place import ProxmoxPlace
del common["target"]
place = ProxmoxPlace(name="x", node="pve1", ours=True, kvm=spec.hypervisors["x"].kvm, api=target, target=LOCAL,
    provider=px.Provider("x-proxmox", endpoint=target.apply(lambda api: api.url + "/"),
        username="root@pam", password=target.apply(lambda api: api.password), insecure=True), **common)
"""


@pytest.fixture
def pve() -> Iterator[Pve]:
    """A node as the installer of 8.4 leaves it: its storage of files takes no disk images."""
    with Pve() as running:
        yield running


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder with an ISO, a disk image and a template, as small as they can be.

    They are called as others call theirs: Ubuntu's cloud image, for one, is a qcow2 that ends in .img.
    """
    (tmp_path / "live.ISO").write_bytes(bytes(0x8001) + b"CD001" + bytes(4096))
    (tmp_path / "disk-cloudimg.img").write_bytes(images.qcow2())
    with tarfile.open(tmp_path / "box.tgz", "w:gz"):
        pass
    return tmp_path


def lab(**inside: Any) -> dict[str, Any]:
    contents = {
        "memory_mib": 4096,
        "disk_gib": 40,
        "iso": "installer",
        "networks": {
            "out": {"mode": "bridge"},
            "own": {"mode": "isolated", "subnet": "10.78.0.0/24"},
        },
        "guests": {
            "live": {"iso": "live", "memory_mib": 256, "network": "out"},
            "web": {"image": "disk", "disk_gib": 4, "network": "own", "nic_model": "vmxnet3"},
        },
        "containers": {"box": {"template": "box", "network": "own", "memory_mib": 128}},
    }
    return inner.lab_of(
        "proxmox",
        contents | inside,
        media={
            "installer": {"path": "live.ISO"},
            "live": {"path": "live.ISO"},
            "disk": {"path": "disk-cloudimg.img"},
        },
        templates={"box": {"path": "box.tgz"}},
    )


def program(data: dict[str, Any], pve: Pve, root: Path, node: Target | None = None) -> str:
    """Return a program; ``node`` is its way in where it has one, else guests are asked from here."""
    api = Api(url=pve.url.rstrip("/"), user="root@pam", password="secret", insecure=True)
    place = PLACE
    if node:
        way_in = f"Target(**{asdict(node)!r})".replace("{", "{{").replace("}", "}}")
        place = PLACE.replace("target=LOCAL", f"target={way_in}")
    return inner.program("proxmox", data, api, root, place)


def numbers(pve: Pve) -> dict[str, int]:
    """The number of each guest and container, by its name."""
    found = {}
    for number in [*pve.vms(), *pve.containers()]:
        config = pve.config(number)
        found[str(config.get("name") or config.get("hostname"))] = number
    return found


def settings(pve: Pve, number: int) -> dict[str, list[str]]:
    """What a guest is set to, without what its node makes up."""
    config = pve.config(number).items()
    own = {"meta", "vmgenid", "digest"}
    return {key: sorted(str(value).strip().split(",")) for key, value in config if key not in own}


def contents(pve: Pve) -> set[str]:
    """What the node's storage of files takes."""
    return set(pve.within(lambda api: str(api.storages["local"]["content"])).split(","))


def endings(pve: Pve) -> list[str]:
    """What the names of the uploaded files end with."""
    return sorted(name.partition(".")[2] for name in pve.files())


def cloned(pve: Pve) -> list[tuple[int, str]]:
    """Which template was cloned, and whether fully, as often as it was."""
    found = []
    for request in pve.requests:
        if request.method == "POST" and request.path.endswith("/clone"):
            told = dict(parse_qsl(request.body))
            found.append((int(request.path.split("/")[-2]), told["full"]))
    return found


def running(pve: Pve) -> set[str]:
    states = pve.vms() | pve.containers()
    return {name for name, number in numbers(pve).items() if states[number] == "running"}


def test_a_lab_in_a_proxmox_lives_through_everything(
    project: Project, pve: Pve, media: Path
) -> None:
    pve.make_vm(777, "strangers")
    data = lab()
    project.up(program(data, pve, media))
    assert running(pve) == {"live", "web", "box"}
    own = next(name for name in pve.bridges() if name != "vmbr0")
    at = numbers(pve)
    live, web, box = (pve.config(at[name]) for name in ("live", "web", "box"))
    assert live["ide2"].startswith("local:iso/lab-medium-live-")
    assert (live["boot"], web["boot"]) == ("order=ide2", "order=scsi0")
    assert "bridge=vmbr0" in live["net0"]
    assert web["net0"].startswith("vmxnet3=52:54:00:")
    assert f"bridge={own}" in web["net0"]
    assert "size=4G" in web["scsi0"]
    template = at["lab-template-disk-scsi"]
    assert pve.vms()[template] == "template"
    assert cloned(pve) == [(template, "0")], "linked: it shares its image's disk"
    assert ("import" in contents(pve), endings(pve)) == (True, ["iso", "qcow2", "tar.gz"])
    assert ("ip=10.78.0." in box["net0"], box["unprivileged"]) == (True, 1)
    assert "28 unchanged" in project.pulumi("up", "--yes", "--skip-preview")
    assert "28 unchanged" in project.pulumi("refresh", "--yes", "--skip-preview")

    # Switched off by hand: preview says which, and what `up` does about it.
    pve.stop(at["live"])
    pve.stop(at["box"])
    said = project.pulumi("preview", "--diff")
    assert "x-live-gate: guest" in said
    assert "is stopped; `pulumi up` mends it" in said
    project.pulumi("up", "--yes", "--skip-preview")
    assert running(pve) == {"live", "web", "box"}

    # Removed by hand: made again as it was, and preview says what is lost.
    before = [settings(pve, at[name]) for name in ("web", "box", "lab-template-disk-scsi")]
    for number in (at["web"], at["box"], template):
        pve.remove(number)
    said = project.pulumi("preview")
    assert f"x-web-gate: guest {at['web']} is not there any more, and what was on its disk" in said
    project.pulumi("up", "--yes", "--skip-preview")
    assert (running(pve), numbers(pve)) == ({"live", "web", "box"}, at)
    assert cloned(pve) == [(template, "0")] * 2
    after = [settings(pve, at[name]) for name in ("web", "box", "lab-template-disk-scsi")]
    assert after == before
    assert "28 unchanged" in project.pulumi("up", "--yes", "--skip-preview")

    # An edit changes just that; the disk stays.
    disk = pve.config(at["web"])["scsi0"]
    data["hypervisors"]["x"]["guests"]["web"]["memory_mib"] = 1024
    said = project.up(program(data, pve, media))
    assert "x-live" not in said.partition("Resources:")[0].replace("x-live  ", "")
    assert pve.config(at["web"])["memory"] == "1024"
    assert pve.config(at["web"])["scsi0"] == disk
    assert running(pve) == {"live", "web", "box"}

    # Destroy ends well from there too.
    pve.remove(at["live"])
    pve.remove(at["box"])
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert (pve.vms(), pve.containers()) == ({777: "stopped"}, {})
    assert set(pve.bridges()) == {"vmbr0"}
    assert pve.files() == {}


def test_guests_of_a_proxmox_without_kvm_are_emulated(
    project: Project, pve: Pve, media: Path
) -> None:
    pve.within(lambda api: setattr(api, "kvm", False))
    data = lab(kvm=False, containers={}, guests={"live": {"iso": "live", "memory_mib": 256}})
    project.up(program(data, pve, media))
    assert running(pve) == {"live"}
    assert pve.config(numbers(pve)["live"])["kvm"] == 0
    assert "unchanged" in project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")


def test_a_guest_of_somebody_else_under_the_same_number_is_left_alone(
    project: Project, pve: Pve, media: Path
) -> None:
    data = lab(containers={}, guests={"live": {"iso": "live", "memory_mib": 256}})
    project.up(program(data, pve, media))
    number = numbers(pve)["live"]
    project.pulumi("destroy", "--yes", "--skip-preview")
    pve.make_vm(number, "precious")
    said = project.pulumi("up", "--yes", "--skip-preview", fails=True)
    assert f"has a guest {number} that is not this lab's (precious)" in said
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert numbers(pve) == {"precious": number}


def test_what_a_killed_run_left_of_a_guest_is_cleared_by_the_next(
    project: Project, pve: Pve, media: Path
) -> None:
    data = lab(containers={}, guests={"live": {"iso": "live", "memory_mib": 256}})
    project.up(program(data, pve, media))
    # As an engine leaves it that is killed while it makes the guest, once its state was put right.
    told = json.loads(project.pulumi("stack", "export"))
    lost = {"proxmoxve:index/vmLegacy:VmLegacy", "pulumi-python:dynamic/nestlab:PveGuestGate"}
    kept = [each for each in told["deployment"]["resources"] if each["type"] not in lost]
    for each in kept:
        if each["type"].endswith("PveSlot"):
            each["outputs"]["left"] = True
    told["deployment"]["resources"] = kept
    (project.folder / "state.json").write_text(json.dumps(told))
    project.pulumi("stack", "import", "--file", str(project.folder / "state.json"))
    assert running(pve) == {"live"}
    said = project.pulumi("up", "--yes", "--skip-preview")
    assert "removed what a run that did not end left of it" in said
    assert running(pve) == {"live"}
    assert "unchanged" in project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")


def test_a_guest_is_told_who_it_is_and_answers_as_that(
    project: Project, pve: Pve, media: Path, sshd: Serve, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "node", Proxmox)
    node = sshd(machine).target("x")
    folder = machine.path("/var/lib/vz/template/iso")
    folder.mkdir(parents=True)
    pve.within(lambda api: setattr(api, "folder", folder))
    address = "10.78.0.20"

    def of(cloud_init: dict[str, Any]) -> str:
        web = {"image": "disk", "network": [{"network": "own", "address": address}]}
        data = lab(containers={}, guests={"told": web | {"cloud_init": cloud_init}})
        return program(data, pve, media, node)

    def number() -> int:
        return numbers(pve)["told"]

    def seed() -> Path | None:
        if "told" not in running(pve):
            return None
        drive = str(pve.config(number()).get("scsi1", ""))
        if not drive:
            return None
        volume, *options = drive.split(",")
        assert "media=cdrom" in options, "it can't be written to"
        disc = folder / volume.rpartition("/")[2]
        assert disc.stat().st_mode & 0o077 == 0, "it holds a key and a password"
        return disc

    def disk() -> object:
        return pve.config(number())["scsi0"]

    with told(address, seed) as guest:
        lives_with_a_seed(
            project,
            of,
            guest,
            taken_out=lambda: pve.reconfigure(number(), scsi1=None),
            kept=disk,
        )
    assert (pve.vms(), pve.files()) == ({}, {})


def test_a_seed_that_is_gone_is_sent_again_and_a_guest_without_one_starts_without(
    project: Project, pve: Pve, media: Path
) -> None:
    def of(**web: Any) -> str:
        given = {"image": "disk", "network": "own", "ready": {"probe": "none"}} | web
        return program(lab(containers={}, guests={"web": given}), pve, media)

    data = of(cloud_init={}).replace("ours=True", "ours=False")
    pve.takes("import")
    project.up(data)
    [seed] = [name for name in pve.files() if "-seed-" in name]
    sent = pve.files()[seed]
    pve.remove_file(seed)
    assert "web-seed-" in (said := project.pulumi("preview"))
    assert "is not there any more; `pulumi up` mends it" in said
    project.pulumi("up", "--yes", "--skip-preview")
    assert pve.files()[seed] == sent

    project.up(of().replace("ours=True", "ours=False"))
    assert "scsi1" not in pve.config(numbers(pve)["web"])
    assert seed not in pve.files()
    pve.stop(numbers(pve)["web"])
    project.pulumi("up", "--yes", "--skip-preview")
    assert running(pve) == {"web"}
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert (pve.vms(), pve.files()) == ({}, {})


def test_a_guest_has_its_discs_and_loses_what_the_stack_forgets(
    project: Project, pve: Pve, media: Path
) -> None:
    def of(*discs: str) -> str:
        live = {"iso": "live", "discs": list(discs), "memory_mib": 256, "network": "out"}
        return program(lab(containers={}, guests={"live": live}), pve, media)

    def drives() -> dict[str, str]:
        config = pve.config(numbers(pve)["live"])
        return {key: str(it).split(",")[0] for key, it in config.items() if "cdrom" in str(it)}

    project.up(of("installer"))
    made = drives()
    assert sorted(made) == ["ide2", "sata2"]
    assert "medium-installer" in made["sata2"]
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    project.pulumi("refresh", "--yes", "--skip-preview")
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    assert drives() == made, "the provider takes none of them for its own CD"
    project.up(of())
    assert sorted(drives()) == ["ide2"]
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    project.pulumi("destroy", "--yes", "--skip-preview")


SAME = ("--yes", "--skip-preview", "--expect-no-changes")


def further(pve: Pve, guest: str = "web") -> dict[str, tuple[str, str]]:
    """Where each further disk of a guest is, by the name that it sees, and its volume."""
    found = {}
    for place, value in pve.config(numbers(pve)[guest]).items():
        volume, *options = str(value).split(",")
        for option in options:
            if option.startswith("serial="):
                found[option.removeprefix("serial=")] = (place, volume)
    return found


def size(pve: Pve, place: str, guest: str = "web") -> str:
    value = str(pve.config(numbers(pve)[guest])[place])
    return value.rpartition("size=")[2].partition(",")[0]


def web_with(pve: Pve, media: Path) -> Callable[..., str]:
    """Programs of a lab whose guest `web` has these further disks."""

    def of(**disks: int) -> str:
        web = {"image": "disk", "disk_gib": 4, "network": "own", "disks": disks}
        return program(lab(containers={}, guests={"web": web}), pve, media)

    return of


def test_a_further_disk_stays_and_grows(project: Project, pve: Pve, media: Path) -> None:
    of = web_with(pve, media)
    project.write(of(data=2, logs=1))
    steps = json.loads(project.pulumi("preview", "--json"))["steps"]
    [made] = [step["newState"]["inputs"] for step in steps if step["urn"].endswith("::x-web-vm")]
    sizes = [(disk["interface"], disk["size"]) for disk in made["disks"]]
    assert sizes == [("scsi0", 4), ("scsi2", 2), ("scsi3", 1)], "policies know them in a preview"
    project.pulumi("up", "--yes", "--skip-preview")
    first = further(pve)
    assert {name: at for name, (at, _) in first.items()} == {"data": "scsi2", "logs": "scsi3"}
    project.pulumi("up", *SAME)
    project.pulumi("refresh", "--yes", "--skip-preview")
    project.pulumi("up", *SAME)
    [row] = json.loads(project.pulumi("stack", "output", "sheet", "--json"))
    assert row["drives"] == ["data 2 GiB", "logs 1 GiB"]

    project.write(of(a=1, data=3, logs=1))
    assert changes.read(project.pulumi("preview", "--json")).losses == ()
    project.up(of(a=1, data=3, logs=1))
    assert further(pve) == first | {"a": further(pve)["a"]}, "they are where they were"
    assert further(pve)["a"][0] == "scsi4"
    assert (size(pve, "scsi2"), size(pve, "scsi3")) == ("3G", "1G")
    assert running(pve) == {"web"}
    project.pulumi("up", *SAME)

    project.write(of(a=1, data=2, logs=1))
    said = project.pulumi("up", "--yes", "--skip-preview", fails=True)
    assert "the disk data of guest x-web has 3 GiB and the stack says 2: disks don't shrink" in said
    assert size(pve, "scsi2") == "3G"
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert pve.disks() == set()


def test_a_further_disk_goes_when_the_stack_forgets_it_and_is_made_anew_when_it_is_gone(
    project: Project, pve: Pve, media: Path
) -> None:
    of = web_with(pve, media)
    project.up(of(a=1, data=3))
    first, before = further(pve), pve.disks()

    # One goes and another comes: neither takes what is the other's.
    project.write(of(b=2, data=3))
    told = changes.read(project.pulumi("preview", "--json"))
    assert told.losses == ("x-web: its further disks are removed, with what is on them: a",)
    project.pulumi("up", "--yes", "--skip-preview")
    assert further(pve) == {"data": first["data"], "b": further(pve)["b"]}
    assert (further(pve)["b"][0], size(pve, "scsi4")) == ("scsi4", "2G")
    assert len(pve.disks()) == len(before), "the volume of the one that went went too"
    assert "unused" not in str(pve.config(numbers(pve)["web"]))
    project.pulumi("up", *SAME)

    # Unplugged by hand: what was unplugged is its owner's, and an empty one is in its place.
    pve.unplug(numbers(pve)["web"], "scsi3")
    said = project.pulumi("preview")
    assert "has no disk data any more, and what was on it is lost; `pulumi up` mends it" in said
    project.pulumi("up", "--yes", "--skip-preview")
    assert (further(pve)["data"][0], size(pve, "scsi3")) == ("scsi3", "3G")
    assert pve.config(numbers(pve)["web"])["unused0"] == first["data"][1]
    project.pulumi("up", *SAME)

    project.write(of())
    told = changes.read(project.pulumi("preview", "--json"))
    assert told.losses == ("x-web: its further disks are removed, with what is on them: b, data",)
    project.pulumi("up", "--yes", "--skip-preview")
    assert further(pve) == {}
    kept = {pve.config(numbers(pve)["web"])[place].split(",")[0] for place in ("scsi0", "unused0")}
    mine = f"vm-{numbers(pve)['web']}-disk"
    assert {f"local-lvm:{name}" for name in pve.disks() if mine in name} == kept
    project.pulumi("up", *SAME)
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert pve.disks() == set()


def test_a_node_speaks_to_the_agent_of_a_guest_that_says_so(
    project: Project, pve: Pve, media: Path
) -> None:
    def of(**more: Any) -> str:
        live = {"iso": "live", "memory_mib": 256, "network": "out", **more}
        return program(lab(containers={}, guests={"live": live}), pve, media)

    def agent() -> str:
        return str(pve.config(numbers(pve)["live"]).get("agent", "")).split(",")[0]

    project.up(of())
    assert agent() in {"", "enabled=0", "0"}
    project.up(of(agent=True))
    assert agent() in {"enabled=1", "1"}
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    project.up(of())
    assert agent() in {"", "enabled=0", "0"}
    project.pulumi("destroy", "--yes", "--skip-preview")
