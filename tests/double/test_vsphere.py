"""A lab whose outer host is vSphere, with the real engine and provider, on a simulated vCenter.

A failure here is a guest that is made twice or stays off, somebody else's machine that is taken for the
lab's, a `pulumi up` that changes something each time, or a password that somebody can read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from components.kinds.vsphere.api import Api, Vsphere, sdk
from tests.double.test_proxmox_outer import program
from tests.support.told import lives_with_a_seed, told
from toolchain.engine import changes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project
    from tests.support.vcsim import Vcsim

pytestmark = [pytest.mark.double, pytest.mark.spread]

SKIP = ("--yes", "--skip-preview")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project's folder with an ISO, as small as it can be."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "live.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(4096))
    return folder


def lab(vcsim: Vcsim, **more: Any) -> dict[str, Any]:
    host = {
        "kind": "vsphere",
        "server": vcsim.server,
        "user": vcsim.user,
        "insecure": True,
        "datacenter": vcsim.datacenter,
        "datastore": vcsim.datastore,
        "nodes": {vcsim.host: {"memory_mib": 16384, "disk_gib": 100, "cores": 8}},
    }
    return {
        "name": "lab",
        "host": host,
        "media": {"live": {"path": "live.iso"}},
        "networks": {
            "out": {"mode": "bridge"},
            "own": {"mode": "isolated", "subnet": "10.78.0.0/24"},
        },
        "guests": {
            "live": {"iso": "live", "memory_mib": 256, "network": "out"},
            "web": {"iso": "live", "disk_gib": 4, "memory_mib": 512, "network": "own"},
        },
        **more,
    }


def trusted(project: Project, vcsim: Vcsim) -> None:
    project.pulumi("config", "set", "--secret", "nestlab:hostPassword", vcsim.password)


def running(vcsim: Vcsim) -> set[str]:
    return {name for name, machine in vcsim.machines().items() if machine.running}


def by_hand(vcsim: Vcsim) -> Vsphere:
    """A session of somebody else."""
    return Vsphere(
        Api(server=vcsim.server, user=vcsim.user, password=vcsim.password, insecure=True)
    )


def strangers(vcsim: Vcsim, name: str) -> None:
    """Somebody else makes a machine."""
    with by_hand(vcsim) as vcenter:
        node = vcenter.node(vcsim.datacenter, vcsim.host, vcsim.datastore)
        files = sdk().vim.vm.FileInfo(vmPathName=f"[{vcsim.datastore}]")
        spec = sdk().vim.vm.ConfigSpec(name=name, files=files, annotation="precious")
        vcenter.create(vcsim.datacenter, spec, node.pool, node.host)


def without_group(vcsim: Vcsim, name: str) -> None:
    """Somebody removes a port group."""
    with by_hand(vcsim) as vcenter:
        node = vcenter.node(vcsim.datacenter, vcsim.host, vcsim.datastore)
        vcenter.networks(node.host).RemovePortGroup(name)


def test_a_lab_on_vsphere_lives_through_everything(
    project: Project, vcsim: Vcsim, root: Path
) -> None:
    data = lab(vcsim)
    project.write(program(data, root))
    said = project.pulumi("preview")
    assert "nestlab:hostPassword is not set" in said
    for name in ("out-gate", "host-medium-live", "live-vm", "web-vm", "web-gate"):
        assert name in said, "preview shows the whole tree, without the password too"
    assert not vcsim.machines()

    trusted(project, vcsim)
    project.pulumi("up", *SKIP)
    assert running(vcsim) == {"lab-live", "lab-web"}
    made = vcsim.machines()
    live, web = made["lab-live"], made["lab-web"]
    assert live.note.startswith("nestlab ")
    assert live.note.endswith(" nestlab:kind=guest")
    assert (web.memory_mib, web.cpus, web.nested) == (512, 1, False)
    assert web.adapters == ("VirtualVmxnet3",)
    assert len(web.disks) == 1
    [medium] = web.cdroms
    assert live.cdroms == (medium,), "it is uploaded once"
    file = medium.partition("] ")[2]
    assert file.startswith("nestlab/lab-medium-live-")
    assert vcsim.has_file(file)
    [own] = set(vcsim.switches()) - {"vSwitch0"}
    [group] = vcsim.switches()[own]
    assert group.startswith("lab-own-")
    assert [name for name in vcsim.switches()["vSwitch0"] if name.startswith("lab-out-")]
    assert f'"{vcsim.password}"' not in project.pulumi("stack", "export"), "the password in clear"
    project.pulumi("up", *SKIP, "--expect-no-changes")
    project.pulumi("refresh", *SKIP, "--expect-no-changes")

    # Switched off and reconfigured by hand.
    vcsim.stop("lab-live")
    vcsim.reconfigure("lab-web", "<memoryMB>1024</memoryMB>")
    said = project.pulumi("preview")
    assert "live-gate: guest lab-live is off; `pulumi up` mends it" in said
    assert "web-gate: guest lab-web has 1024 MiB of memory instead of 512" in said
    project.pulumi("up", *SKIP)
    assert running(vcsim) == {"lab-live", "lab-web"}
    assert vcsim.machines()["lab-web"].memory_mib == 512

    # Removed by hand: made again as it was, and preview says what is lost.
    vcsim.remove("lab-web")
    said = project.pulumi("preview")
    assert "web-gate: guest lab-web is not there any more, and what was on its disk is lost" in said
    project.pulumi("up", *SKIP)
    assert running(vcsim) == {"lab-live", "lab-web"}
    assert vcsim.machines()["lab-web"].macs == web.macs
    project.pulumi("up", *SKIP, "--expect-no-changes")
    project.pulumi("refresh", *SKIP, "--expect-no-changes")

    # The provider would fail on what is not there.
    vcsim.remove("lab-live")
    project.pulumi("destroy", *SKIP)
    assert vcsim.machines() == {}
    assert set(vcsim.switches()) == {"vSwitch0"}
    assert not vcsim.has_file(file)


def test_an_edit_changes_just_that_and_networks_come_back(
    project: Project, vcsim: Vcsim, root: Path
) -> None:
    data = lab(vcsim)
    trusted(project, vcsim)
    project.up(program(data, root))
    before = vcsim.machines()["lab-web"]
    [own] = set(vcsim.switches()) - {"vSwitch0"}
    [group] = vcsim.switches()[own]
    without_group(vcsim, group)
    said = project.pulumi("preview")
    assert f"own-gate: port group {group} is not there any more" in said
    # A file of the same name with another content is uploaded again.
    data["guests"]["web"]["memory_mib"] = 768
    (root / "live.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(8192))
    project.up(program(data, root))
    after = vcsim.machines()
    web = after["lab-web"]
    assert (web.memory_mib, web.disks, web.macs) == (768, before.disks, before.macs)
    assert web.cdroms == after["lab-live"].cdroms != before.cdroms
    assert not vcsim.has_file(before.cdroms[0].partition("] ")[2])
    assert running(vcsim) == {"lab-live", "lab-web"}
    assert vcsim.switches()[own] == {group}
    project.pulumi("up", *SKIP, "--expect-no-changes")

    without_group(vcsim, group)
    project.pulumi("destroy", *SKIP)
    assert vcsim.machines() == {}
    assert vcsim.switches() == {"vSwitch0": {"VM Network", "Management Network"}}


ONE = {"networks": {"out": {"mode": "bridge"}}}
LIVE = {"live": {"iso": "live", "memory_mib": 256, "network": "out"}}


def test_a_machine_of_somebody_else_under_the_same_name_is_left_alone(
    project: Project, vcsim: Vcsim, root: Path
) -> None:
    trusted(project, vcsim)
    strangers(vcsim, "lab-live")
    project.write(program(lab(vcsim, **ONE, guests=LIVE), root))
    said = project.pulumi("up", *SKIP, fails=True)
    assert "DC0 has a guest lab-live that is not this lab's: rename one" in said
    project.pulumi("destroy", *SKIP)
    assert vcsim.machines()["lab-live"].note == "precious"


def test_a_guest_has_its_discs_and_loses_what_the_stack_forgets(
    project: Project, vcsim: Vcsim, root: Path
) -> None:
    trusted(project, vcsim)
    (root / "drivers.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(8192))
    media = {"live": {"path": "live.iso"}, "drivers": {"path": "drivers.iso"}}

    def of(*discs: str) -> str:
        guests = {"live": LIVE["live"] | {"discs": list(discs)}}
        return program(lab(vcsim, **ONE, media=media, guests=guests), root)

    def held() -> list[str]:
        files = [each.partition("] ")[2] for each in vcsim.machines()["lab-live"].cdroms]
        return [file.split("-")[2] for file in files if file]

    project.up(of("drivers"))
    assert held() == ["live", "drivers"]
    project.pulumi("up", *SKIP, "--expect-no-changes")
    project.up(of())
    assert held() == ["live"]
    assert running(vcsim) == {"lab-live"}
    project.pulumi("up", *SKIP, "--expect-no-changes")
    project.pulumi("destroy", *SKIP)
    assert vcsim.machines() == {}


def test_a_guest_is_told_who_it_is_and_entered_straight_from_here(
    project: Project, vcsim: Vcsim, root: Path, tmp_path: Path
) -> None:
    trusted(project, vcsim)
    address = "10.99.0.21"
    sent = set[str]()

    def of(cloud_init: dict[str, Any]) -> str:
        guest = {"iso": "live", "disk_gib": 1, "memory_mib": 256, "cloud_init": cloud_init}
        network = [{"network": "out", "address": address}]
        return program(lab(vcsim, **ONE, guests={"told": guest | {"network": network}}), root)

    def drive() -> str:
        """The file in the last drive, where it is a seed."""
        machine = vcsim.machines().get("lab-told")
        file = machine.cdroms[-1].partition("] ")[2] if machine and machine.running else ""
        return file if "-seed-" in file else ""

    def seed() -> Path | None:
        if not (file := drive()):
            return None
        sent.add(file)
        copy = tmp_path / file.rpartition("/")[2]
        copy.write_bytes(vcsim.content(file))
        return copy

    def out() -> None:
        state = project.pulumi("stack", "export")
        assert "PRIVATE KEY" not in state, "what is on the disc stands in the state in clear"
        vcsim.take_out("lab-told", drive())

    with told(address, seed) as guest:
        lives_with_a_seed(
            project,
            of,
            guest,
            taken_out=out,
            kept=lambda: vcsim.machines()["lab-told"].disks,
        )
    assert vcsim.machines() == {}
    assert len(sent) == 2
    assert not any(map(vcsim.has_file, sent)), "no seed is left on the datastore"


def test_a_further_disk_stays_grows_and_goes_when_the_stack_forgets_it(
    project: Project, vcsim: Vcsim, root: Path
) -> None:
    trusted(project, vcsim)

    def of(memory_mib: int, **disks: int) -> str:
        guest = LIVE["live"] | {"memory_mib": memory_mib, "disks": disks}
        return program(lab(vcsim, **ONE, guests={"live": guest}), root)

    def held() -> tuple[str, ...]:
        return vcsim.machines()["lab-live"].disks

    project.up(of(256, data=1))
    first = held()
    assert len(first) == 2
    project.pulumi("up", *SKIP, "--expect-no-changes")
    project.up(of(512, data=2, logs=1))
    assert held()[:2] == first
    assert len(held()) == 3
    project.pulumi("up", *SKIP, "--expect-no-changes")
    project.write(of(512, logs=1))
    told = changes.read(project.pulumi("preview", "--json"))
    assert told.losses == ("live: its further disks are removed, with what is on them: data",)
    project.pulumi("up", *SKIP)
    assert len(held()) == 2
    project.pulumi("up", *SKIP, "--expect-no-changes")
    project.pulumi("destroy", *SKIP)
    assert vcsim.machines() == {}
