"""Whole labs on the recording engine: which resources there are, and how they hang together.

A failure here means that a machine is replaced that need not be, that `pulumi destroy` asks a host
that is switched off, that ten guests boot at once, or that a secret stands in clear in the state.
"""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.gates.uuids import uuid_of
from components.kinds.kvm.install import KEYS
from components.kinds.libvirt import domain_xml
from components.kinds.libvirt.domain import as_url
from components.kinds.libvirt.host import LIBVIRT
from components.place.contract import BootQueue
from components.stackfile import NetworkSpec, load, plan
from components.stackfile.networks import OUTER, Mode
from tests.support import images
from tests.support.engine import STACK, UNKNOWN, deploy
from tests.unit.components.labs import (
    GOLDEN,
    IDENTITY,
    PRIVATE,
    Machine,
    answers,
    fresh,
    private,
    up,
)
from toolchain.bootstrap import paths
from toolchain.engine.environment import ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.findings import Accelerator
    from tests.support.engine import Recorder, Registered

CASES = Path(__file__).parents[2] / "cases"
ROOT = CASES.parents[1]
XSL = "{http://www.w3.org/1999/XSL/Transform}"

NET: dict[str, Any] = {"networks": {"net": {"subnet": "10.77.0.0/24"}}}
ISO = {"media": {"ipxe": {"path": "ipxe.iso"}}}


def guest(**more: Any) -> dict[str, Any]:
    return {"iso": "ipxe", "network": "net"} | more


def with_guest(**more: Any) -> dict[str, Any]:
    return {**NET, **ISO, "guests": {"web": guest(**more)}}


def kvm(**inside: Any) -> dict[str, Any]:
    return {"kind": "kvm", "network": "net", "memory_mib": 8192, "disk_gib": 40, **inside}


def nested(**inside: Any) -> dict[str, Any]:
    inner = {"networks": {"in": {"subnet": "10.78.0.0/24"}}}
    return {**NET, **ISO, "hypervisors": {"one": kvm(**inner, **inside)}}


def inner_guest(**more: Any) -> dict[str, Any]:
    return nested(guests={"web": guest(network="in", **more)})


THREE = {
    **NET,
    **ISO,
    "host": {"accelerator": "tcg"},
    "hypervisors": {
        "one": kvm(
            networks={"net": {"subnet": "10.78.0.0/24"}},
            hypervisors={
                "two": kvm(
                    memory_mib=4096,
                    disk_gib=20,
                    networks={"net": {"subnet": "10.79.0.0/24"}},
                    guests={"deep": guest()},
                    containers={"box": {"template": "busybox", "network": "net"}},
                )
            },
            guests={"mid": guest()},
        ),
        "twin": kvm(
            networks={"net": {"subnet": "10.78.0.0/24"}},
            containers={"tin": {"template": "busybox", "network": "net"}},
        ),
    },
    "guests": {"top": guest()},
}


def sheet_of(engine: Recorder, name: str) -> ET.Element:
    """The stylesheet of the domain called ``name``."""
    xslt = engine.named(f"{name}-domain").inputs["xml"]["xslt"]
    return ET.fromstring(xslt)  # noqa: S314 - our own


def template(sheet: ET.Element, match: str) -> ET.Element | None:
    found = [each for each in sheet.findall(f"{XSL}template") if each.get("match") == match]
    assert len(found) <= 1, f"two templates for {match}"
    return found[0] if found else None


def text_for(sheet: ET.Element, match: str) -> str:
    found = template(sheet, match)
    return "".join(found.itertext()).strip() if found is not None else ""


# The tree -------------------------------------------------------------------------------------


def test_the_embedded_lab_has_the_urns_that_running_labs_have(
    golden: Callable[[Path, str], None],
) -> None:
    stack = yaml.safe_load((ROOT / "stacks" / "Pulumi.local.yaml").read_text())
    engine = up(stack["config"]["nestlab:lab"], accelerator="tcg")
    # A changed line here is a machine that is made anew in every running lab.
    golden(CASES / "urns" / "local.txt", "".join(f"{urn}\n" for urn in sorted(engine.resources)))


@pytest.mark.parametrize("preview", [False, True])
def test_three_layers_and_twins_never_take_each_others_names(preview: bool) -> None:
    engine = up(THREE, preview=preview)  # the engine refuses two resources of one URN
    names = [(one.type, one.name) for one in engine.resources.values()]
    assert len(set(names)) == len(names)
    assert {one.name for one in engine.of_type("GuestFromIso")} == {
        "top",
        "one-mid",
        "one-two-deep",
    }
    assert {one.name for one in engine.of_type("ContainerFromTemplate")} == {
        "one-two-box",
        "twin-tin",
    }


def test_two_labs_on_one_host_take_nothing_of_each_other() -> None:
    def on_the_host(name: str) -> set[tuple[str, str]]:
        engine = up({**with_guest(), "name": name})
        outer = engine.named("host-libvirt").urn
        mine = [one for one in engine.resources.values() if one.provider == outer]
        found = {(one.type, one.inputs["name"]) for one in mine if one.inputs.get("pool") is None}
        found |= {("bridge", one.inputs["bridge"]) for one in engine.of_type(":Network")}
        found |= {("path", one.inputs["target"]["path"]) for one in engine.of_type(":Pool")}
        found |= {("log", one.inputs["console_log"]) for one in engine.of_type("MachineGate")}
        found |= {
            ("mac", nic["mac"])
            for d in engine.of_type(":Domain")
            for nic in d.inputs["networkInterfaces"]
        }
        return found

    one, other = on_the_host("alpha"), on_the_host("beta")
    assert len(one) >= 6
    assert not one & other


def test_everything_of_a_lab_hangs_below_its_outer_host() -> None:
    engine = up(THREE)
    loose = [one.urn for one in engine.resources.values() if not one.parent and one.name != "host"]
    assert not loose, "what has no parent is not destroyed with the lab's component"
    providers = [one for one in engine.resources.values() if one.type.startswith("libvirt:")]
    assert all(one.provider for one in providers), "the default provider would be this machine's"


def test_every_component_publishes_what_it_annotates() -> None:
    engine = up(THREE)
    expected = {
        "OuterHost": set(),
        "BridgedNetwork": {"network", "subnet"},
        "NestedHypervisorLab": {"address", "console"},
        "GuestFromIso": {"address", "console"},
        "ContainerFromTemplate": {"address", "console"},
    }
    components = [one for one in engine.resources.values() if one.type.startswith("nestlab:")]
    assert {one.type.rpartition(":")[2] for one in components} == set(expected)
    for one in components:
        assert set(engine.published[one.urn]) == expected[one.type.rpartition(":")[2]], one.urn
    guest_outputs = engine.published[engine.named("one-two-deep", "GuestFromIso").urn]
    assert guest_outputs["console"] == "vnc://127.0.0.1:0"
    assert guest_outputs["address"].startswith("10.79.0.")


# Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accelerator", "kind", "cpu"), [("tcg", "qemu", "maximum"), ("kvm", "kvm", "host-passthrough")]
)
def test_the_first_layer_runs_on_what_the_host_has_and_deeper_ones_always_on_kvm(
    accelerator: Any, kind: str, cpu: str
) -> None:
    engine = up(THREE, accelerator=accelerator)
    for domain in engine.of_type(":Domain"):
        outer = domain.provider == engine.named("host-libvirt").urn
        found = (domain.inputs["type"], domain.inputs["cpu"]["mode"])
        assert found == ((kind, cpu) if outer else ("kvm", "host-passthrough")), domain.name


def inside(engine: Recorder, name: str) -> list[Registered]:
    """All that stands in the nested host ``name``, at any depth: by its provider or its gate."""
    provider = engine.named(f"{name}-libvirt").urn
    reach = engine.named(f"{name}-gate").outputs["reach"]
    return [
        one
        for one in engine.resources.values()
        if one.provider == provider or one.inputs.get("target") == reach
    ]


@pytest.mark.parametrize(
    ("name", "least"), [("one", 13), ("one-two", 7), ("twin", 4)], ids=["one", "two", "twin"]
)
def test_what_is_in_a_nested_host_goes_with_its_domain_and_is_lost_with_its_disk(
    name: str, least: int
) -> None:
    engine = up(THREE)
    found = inside(engine, name)
    assert len(found) >= least
    for one in found:
        assert one.deleted_with == engine.named(f"{name}-domain").urn, one.urn
        assert one.replace_with == (engine.named(f"{name}-disk").urn,), one.urn


def test_what_is_on_the_outer_host_goes_by_itself() -> None:
    engine = up(THREE)
    outer = engine.named("host-libvirt").urn
    for one in engine.resources.values():
        if one.provider == outer or one.inputs.get("target") == {
            "kind": "local",
            "name": "this machine",
        }:
            assert (one.deleted_with, one.replace_with) == ("", ()), one.urn


def test_the_endpoint_of_a_nested_host_is_unknown_until_it_has_answered() -> None:
    data = inner_guest()
    before = up(data, preview=True).named("one-libvirt")
    assert before.inputs["uri"] == UNKNOWN, "a provider with a known address connects in preview"
    engine = up(data)
    after = engine.named("one-libvirt")
    assert engine.named("one-gate").urn in after.depends_on
    address = plan(load({"name": "lab", **data}, root=ROOT, exists=lambda _: True)).machine("one")
    assert after.inputs["uri"] == (
        f"qemu+ssh://root@{address.address}:22/system?sshauth=privkey"
        f"&keyfile=${KEYS}/local/one/id_ed25519&knownhosts=${KEYS}/local/one/known_hosts"
    )
    keys = Path(ours(built_here=False)[KEYS])
    assert keys.is_relative_to(paths.LOCAL)
    assert keys.parts[-2:] == PRIVATE.parts[-3:-1], "where the gate writes them"
    assert after.env_var_mappings == {KEYS: "HOME"}, "nobody's ~/.ssh/config is in there"
    assert not engine.named("host-libvirt").env_var_mappings, "the user's own way to their own host"


def test_a_nested_host_is_reached_with_the_labs_key_and_known_by_its_own() -> None:
    engine = up(inner_guest())
    gate = engine.named("one-gate")
    assert gate.inputs["reach"] | {"host": ""} == {
        "kind": "ssh",
        "name": "one",
        "host": "",
        "port": 22,
        "user": "root",
        "private_key": private(engine.named("key")),
        "host_key": engine.named("one-hostkey").outputs["public"],
    }
    assert gate.inputs["probe"] == {"kind": "libvirt"}
    assert gate.inputs["key_folder"] == f"{PRIVATE}/one"
    seed = engine.named("one-seed-disc").inputs["files"]["/user-data"]
    assert engine.named("key").outputs["public"] in seed
    assert private(engine.named("one-hostkey")) in seed
    assert private(engine.named("key")) not in seed, "the key that opens all hosts is on each"


def test_a_host_behind_a_nested_host_is_entered_through_a_port_of_that_one() -> None:
    engine = up(THREE)
    gate = engine.named("one-two-gate")
    lab = plan(load({"name": "lab", **THREE}, root=ROOT, exists=lambda _: True))
    own, around = lab.machine("two").address, lab.machine("one").address
    assert own
    port = 2200 + int(own.rpartition(".")[2])
    assert (gate.inputs["reach"]["host"], gate.inputs["reach"]["port"]) == (around, port)
    assert gate.inputs["probe"]["forward"] == [{"port": port, "host": own, "to": 22}]
    assert gate.inputs["target"] == engine.named("one-gate").outputs["reach"]
    assert f"@{around}:{port}/" in engine.named("one-two-libvirt").inputs["uri"]


# The golden image ------------------------------------------------------------------------------


def test_on_this_machine_a_nested_host_is_a_clone_of_the_image_that_is_already_there() -> None:
    engine = up(nested())
    disk, domain = engine.named("one-disk"), engine.named("one-domain")
    assert disk.inputs["baseVolumeName"] == GOLDEN.volume
    assert disk.inputs["baseVolumePool"] == GOLDEN.pool
    assert disk.inputs["size"] == 40 << 30
    assert (domain.inputs["kernel"], domain.inputs["initrd"]) == (GOLDEN.kernel, GOLDEN.initrd)
    assert not [one for one in engine.names() if "-golden-" in one], "630 MB copied for nothing"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (
            {
                **nested(),
                "networks": {"net": {"subnet": "10.77.0.0/24", "mode": "route"}},
                "host": {"uri": "qemu+ssh://lab@server/system"},
            },
            "one",
        ),
        (THREE, "one-two"),
    ],
    ids=["remote outer host", "nested in nested"],
)
def test_elsewhere_the_golden_image_is_carried_there(data: dict[str, Any], name: str) -> None:
    engine = up(data)
    domain, disk = engine.named(f"{name}-domain"), engine.named(f"{name}-disk")
    copies = {part: engine.named(f"{name}-golden-{part}") for part in ("disk", "kernel", "initrd")}
    assert {part: one.inputs["source"] for part, one in copies.items()} == {
        "disk": GOLDEN.files.disk,
        "kernel": GOLDEN.files.kernel,
        "initrd": GOLDEN.files.initrd,
    }
    assert disk.inputs["baseVolumeId"] == copies["disk"].outputs["id"]
    assert domain.inputs["kernel"] == copies["kernel"].outputs["id"]
    assert domain.inputs["initrd"] == copies["initrd"].outputs["id"]
    assert {one.provider for one in copies.values()} == {domain.provider}


@pytest.mark.parametrize(
    ("accelerator", "nests", "inside"),
    [("kvm", True, "kvm"), ("kvm", False, "qemu"), ("tcg", True, "kvm"), ("tcg", False, "kvm")],
)
def test_where_kvm_does_not_nest_what_is_inside_is_emulated(
    accelerator: Accelerator, nests: bool, inside: str
) -> None:
    engine = fresh(THREE, accelerator=accelerator, nests=nests)
    assert engine.named("one-domain").inputs["type"] == ("kvm" if accelerator == "kvm" else "qemu")
    assert engine.named("one-two-domain").inputs["type"] == inside
    assert engine.named("one-two-deep-domain").inputs["type"] == "kvm", (
        "what emulates shows hardware virtualization again"
    )


def test_kernel_arguments_are_written_as_the_provider_reads_them_back() -> None:
    inputs = up(nested()).named("one-domain").inputs
    assert inputs["cmdlines"] == [{"console": "ttyS0", "root": "LABEL=root"}, {"_": "quiet"}]


# Guests ---------------------------------------------------------------------------------------


def disks(engine: Recorder, name: str) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in disk.items() if value is not None}
        for disk in engine.named(f"{name}-domain").inputs["disks"]
    ]


def test_a_guest_from_an_iso_boots_its_cd_and_has_no_disk() -> None:
    engine = up(with_guest())
    assert disks(engine, "web") == [{"file": "/pool/medium-ipxe-00000000.iso"}]
    assert engine.named("web-domain").inputs["bootDevices"] == [{"devs": ["cdrom"]}]
    medium = engine.named("host-medium-ipxe")
    assert medium.inputs["format"] == "iso", "another format comes back as a change"
    assert medium.inputs["source"] == "/project/ipxe.iso"
    assert "web-disk" not in engine.names()


def test_a_guest_to_install_has_an_empty_disk_behind_its_cd() -> None:
    engine = up(with_guest(disk_gib=10))
    assert disks(engine, "web") == [
        {"volumeId": "/pool/lab-web.qcow2"},
        {"file": "/pool/medium-ipxe-00000000.iso"},
    ]
    disk = engine.named("web-disk")
    assert disk.inputs["size"] == 10 << 30
    assert "baseVolumeId" not in disk.inputs
    assert engine.named("web-domain").inputs["bootDevices"] == [{"devs": ["cdrom", "hd"]}]


@pytest.mark.parametrize(
    ("image", "form"), [(images.qcow2(), "qcow2"), (images.raw(), "raw")], ids=["qcow2", "raw"]
)
@pytest.mark.parametrize("disk_gib", [0, 10])
def test_a_guest_from_an_image_has_a_linked_clone_of_it(
    image: bytes, form: str, disk_gib: int, tmp_path: Path
) -> None:
    (tmp_path / "debian.img").write_bytes(image)
    data = {
        **NET,
        "media": {"debian": {"path": "debian.img"}},
        "guests": {
            name: {"image": "debian", "network": "net", "disk_gib": disk_gib} for name in ("a", "b")
        },
    }
    engine = up(data, root=tmp_path)
    medium = engine.named("host-medium-debian")
    assert medium.inputs["format"] == form, "the provider writes qcow2 and reads back what it finds"
    assert medium.inputs["source"] == str(tmp_path / "debian.img")
    for name in ("a", "b"):
        disk = engine.named(f"{name}-disk")
        assert disk.inputs["baseVolumeId"] == medium.outputs["id"]
        assert disk.inputs.get("size") == (disk_gib << 30 or None), "0: as large as its image"
        assert engine.named(f"{name}-domain").inputs["bootDevices"] == [{"devs": ["hd"]}]


def test_a_medium_is_carried_to_a_place_once_however_many_guests_use_it() -> None:
    engine = up({**NET, **ISO, "guests": {name: guest() for name in ("a", "b", "c")}})
    assert [one.name for one in engine.of_type(":Volume")] == ["host-medium-ipxe"]


@pytest.mark.parametrize("model", LIBVIRT.nic_models)
def test_every_nic_model_reaches_the_domain(model: str) -> None:
    sheet = sheet_of(up(with_guest(nic_model=model)), "web")
    found = text_for(sheet, "/domain/devices/interface[1]/model/@type")
    assert found == ("" if model == "virtio" else model), "virtio is what the provider writes"


def test_nics_keep_their_order_model_mac_and_network() -> None:
    nets = {"net": {"subnet": "10.77.0.0/24"}, "other": {"subnet": "10.78.0.0/24"}}
    nics = [
        {"network": "other", "model": "e1000", "mac": "52:54:00:aa:bb:cc"},
        {"network": "net", "model": "vmxnet3"},
    ]
    engine = up({**ISO, "networks": nets, "guests": {"web": {"iso": "ipxe", "network": nics}}})
    found = engine.named("web-domain").inputs["networkInterfaces"]
    assert [each["networkName"] for each in found] == ["lab-other", "lab-net"]
    assert found[0]["mac"] == "52:54:00:AA:BB:CC", "the provider reads them back in upper case"
    sheet = sheet_of(engine, "web")
    for number, model in ((1, "e1000"), (2, "vmxnet3")):
        assert text_for(sheet, f"/domain/devices/interface[{number}]/model/@type") == model


@pytest.mark.parametrize(
    ("machine", "bus"),
    # The spec refuses IDE on q35, which has none.
    [
        each
        for each in itertools.product(("pc", "q35"), LIBVIRT.disk_buses)
        if each != ("q35", "ide")
    ],
)
def test_every_disk_bus_reaches_the_domain_and_its_cd_is_on_one_that_its_chipset_has(
    bus: str, machine: str
) -> None:
    engine = up(with_guest(disk_gib=10, disk_bus=bus, machine=machine))
    assert engine.named("web-domain").inputs["machine"] == machine
    sheet = sheet_of(engine, "web")
    buses = []
    for number in (1, 2):
        rewritten = template(sheet, f"/domain/devices/disk[{number}]/target")
        assert rewritten is not None
        buses.append(rewritten[0].attrib["bus"])
    assert buses == [bus, "ide" if machine == "pc" else "sata"]
    first = disks(engine, "web")[0]
    assert first.get("scsi", False) is (bus == "scsi"), "or there is no controller for it"
    assert text_for(sheet, "/domain/devices/disk[2]/@device") == "cdrom"


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_firmware_is_what_the_stack_says(firmware: str) -> None:
    inputs = up(with_guest(firmware=firmware)).named("web-domain").inputs
    if firmware == "bios":
        assert "firmware" not in inputs
        assert "nvram" not in inputs
    else:
        assert "OVMF_CODE" in inputs["firmware"]
        assert inputs["nvram"]["file"].endswith("/lab-web_VARS.fd"), "two guests share variables"


@pytest.mark.parametrize("video", ["virtio", "vga", "qxl", "cirrus", "none"])
def test_the_graphics_adapter_is_what_the_stack_says(video: str) -> None:
    engine = up(with_guest(video=video))
    blind = text_for(sheet_of(engine, "web"), "/domain/devices/video/model/@type")
    if video == "none":
        assert blind == "none"
    else:
        assert engine.named("web-domain").inputs["video"] == {"type": video}
        assert not blind


def test_a_screen_is_what_the_stack_says() -> None:
    console = {"type": "vnc", "listen": "192.0.2.1", "port": 5910, "websocket": -1}
    engine = up(with_guest(console=console))
    assert engine.named("web-domain").inputs["graphics"] == {
        "type": "vnc",
        "autoport": False,
        "listenType": "address",
        "listenAddress": "192.0.2.1",
        "websocket": -1,
    }
    said = text_for(sheet_of(engine, "web"), "/domain/devices/graphics")
    assert said == "5910no" + private(engine.named("web-console"))


def test_a_screen_without_a_password_has_none_made() -> None:
    engine = up(with_guest(console={"type": "spice", "password": False}))
    assert "web-console" not in engine.names()
    assert template(sheet_of(engine, "web"), "/domain/devices/graphics") is None
    graphics = engine.named("web-domain").inputs["graphics"]
    assert (graphics["type"], graphics["autoport"]) == ("spice", True)
    assert engine.stack_outputs["passwords"] == {}


@pytest.mark.parametrize("field", [{"console": {"type": "none"}}, {"video": "none"}])
def test_no_screen_means_no_server_and_no_password(field: dict[str, Any]) -> None:
    engine = up(with_guest(**field))
    removed = template(sheet_of(engine, "web"), "/domain/devices/graphics")
    assert removed is not None
    assert not len(removed)
    assert "web-console" not in engine.names(), "a password for a screen that is not there"


@pytest.mark.parametrize("autostart", [True, False])
def test_autostart_is_what_the_stack_says_at_every_depth(autostart: bool) -> None:
    data = nested(guests={"web": guest(network="in", autostart=autostart)}, autostart=autostart)
    engine = up(data)
    for name in ("one-domain", "one-web-domain"):
        assert engine.named(name).inputs["autostart"] is autostart
    assert all(one.inputs["autostart"] for one in engine.of_type(":Network"))


def test_sizes_are_the_planned_ones() -> None:
    inputs = up(with_guest(memory_mib=768, cores=3)).named("web-domain").inputs
    assert (inputs["memory"], inputs["vcpu"]) == (768, 3)


INSTALLED = {
    "kind": "esxi",
    "iso": "ipxe",
    "network": "net",
    "memory_mib": 8192,
    "disk_gib": 64,
    "machine": "pc",
}


@pytest.mark.parametrize(
    ("data", "made"),
    [
        (with_guest(disk_gib=1), {"host-pool", "host-medium-ipxe", "web-disk"}),
        (inner_guest(), {"one-pool", "one-medium-ipxe", "one-disk", "one-seed"}),
        (THREE, {"one-two-golden-disk", "one-two-golden-kernel", "one-two-golden-initrd"}),
        (
            {**NET, **ISO, "hypervisors": {"one": INSTALLED}},
            {"host-disc-installer-ipxe", "host-disc-one-answers", "one-disk"},
        ),
    ],
    ids=["guest", "nested", "golden image elsewhere", "installed"],
)
def test_what_was_half_made_and_knows_no_update_is_made_anew(
    data: dict[str, Any], made: set[str]
) -> None:
    """Else the next `up` ends with "doesn't support update", and so does every one after it.

    Its name is free before: a volume that is made while one of its name is there is that one, and goes
    with it.
    """
    found = {
        one.name: one
        for one in up(data).resources.values()
        if one.type.rpartition(":")[2] in {"Pool", "Volume", "CloudInitDisk"}
    }
    assert made <= found.keys()
    for name, one in found.items():
        assert one.replace_on_changes == ("*",), name
        assert one.delete_before_replace, name


def test_what_the_provider_would_silently_forget_replaces_the_domain() -> None:
    domain = up(with_guest()).named("web-domain")
    forgotten = {"machine", "video", "bootDevices", "kernel", "disks"}
    forgotten |= {"networkInterfaces[*].networkName"}
    assert forgotten <= set(domain.replace_on_changes)
    assert domain.delete_before_replace, "two domains of one name can't be"


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        ({}, {"kind": "libvirt.lease", "network": "lab-net"}),
        ({"probe": "none"}, {"kind": "none"}),
        ({"probe": "tcp", "port": 22}, {"kind": "tcp", "port": 22}),
    ],
)
def test_a_guest_is_waited_for_as_the_stack_says(
    ready: dict[str, Any], expected: dict[str, Any]
) -> None:
    engine = up(with_guest(ready={**ready, "deadline_s": 77}))
    gate = engine.named("web-gate")
    assert expected.items() <= gate.inputs["probe"].items()
    assert gate.inputs["deadline_s"] == 77
    nic = engine.named("web-domain").inputs["networkInterfaces"][0]
    if gate.inputs["probe"]["kind"] == "libvirt.lease":
        assert gate.inputs["probe"]["mac"] == nic["mac"].lower()
        planned = engine.named("net-gate").inputs["reservations"]
        reserved = {each["mac"]: each["address"] for each in planned}
        assert gate.inputs["probe"]["address"] == reserved[gate.inputs["probe"]["mac"]]
    assert engine.named("web-domain").urn in gate.depends_on


# Objects and their UUIDs -----------------------------------------------------------------------


def test_objects_have_uuids_of_their_lab_by_name_outside_and_by_logical_name_inside() -> None:
    engine = up(inner_guest())
    expected = {
        "one-domain": ("domain", "lab-one"),
        "net-network": ("network", "lab-net"),
        "host-pool": ("pool", "nestlab-lab"),
        "one-web-domain": ("domain", "one-web-domain"),
        "one-in-network": ("network", "one-in-network"),
        "one-pool": ("pool", "one-pool"),
    }
    for name, (kind, key) in expected.items():
        xslt = engine.named(name).inputs["xml"]["xslt"]
        assert f"<uuid>{uuid_of(IDENTITY, kind, key)}</uuid>" in xslt, name


def test_a_lab_keeps_the_golden_image_that_it_was_made_with() -> None:
    """Or a `git pull` would throw away what is on the disks cloned from it (R15 of the faults on b9180d5)."""
    assert up(inner_guest()).named("golden-kvm").ignore_changes == ("value",)


def test_files_of_a_lab_are_closed_to_other_accounts_at_every_depth() -> None:
    remote = {
        **inner_guest(),
        "networks": {"net": {"subnet": "10.77.0.0/24", "mode": "route"}},
        "host": {"uri": "qemu+ssh://lab@server/system"},
    }
    installed = {**NET, **ISO, "hypervisors": {"one": INSTALLED}}
    for engine in (up(inner_guest()), up(remote), up(THREE), up(installed)):
        volumes = [*engine.of_type("volume:Volume"), *engine.of_type(":CloudInitDisk")]
        assert volumes
        for one in volumes:
            sheet = one.inputs.get("xml", {}).get("xslt")
            assert sheet == domain_xml.PRIVATE_VOLUME, f"{one.name}: as its maker likes it"
            assert "xml" in one.ignore_changes, "a volume that is there is not made again for it"
        for pool in engine.of_type("pool:Pool"):
            assert "xml" in pool.ignore_changes, "nor is a pool, with all that is in it"
            assert (
                "<mode>0710</mode><owner>0</owner><group>64055</group>"
                in (pool.inputs["xml"]["xslt"])
            )


@pytest.mark.parametrize(
    "path",
    ["/a/b c+d&e.iso", "/a/win#10.iso", "/a/100%41.iso", "/a/what?.iso", "//srv/é'.iso", "/a:b"],
)
def test_the_provider_reads_a_files_path_and_no_url(path: str) -> None:
    """As Go's url.Parse does: what comes after ``#`` and ``?`` is no path, ``%41`` is an A."""
    link = urlsplit(as_url(path))
    assert (link.scheme, link.netloc, unquote(link.path)) == ("", "", path.replace("//", "/"))
    assert as_url("/usr/lib/ipxe/it's [a] b+c&d.iso") == "/usr/lib/ipxe/it's [a] b+c&d.iso"


def test_media_of_any_name_are_what_the_provider_uploads() -> None:
    engine = up({**with_guest(), "media": {"ipxe": {"path": "/media/win#10 %41?.iso"}}})
    source = engine.named("host-medium-ipxe").inputs["source"]
    assert unquote(urlsplit(source).path) == "/media/win#10 %41?.iso"


# Networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("nat", "nat"), ("isolated", "none"), ("route", "route"), ("open", "open")],
)
def test_modes_are_said_in_the_providers_words(mode: Mode, expected: str) -> None:
    network = {"mode": mode, "subnet": "10.77.0.0/24", "domain": "lab.test"}
    inputs = up({"networks": {"net": network}}).named("net-network").inputs
    assert inputs["mode"] == expected
    assert inputs["addresses"] == ["10.77.0.0/24"]
    assert inputs["domain"] == "lab.test"
    assert inputs["dhcp"] == {"enabled": True}
    assert re.fullmatch(r"nl[0-9a-f]{10}", inputs["bridge"]), "the kernel takes 15 characters"
    assert set(get_args(Mode)) == {"nat", "isolated", "route", "open", *OUTER}


def test_a_network_on_a_bridge_of_the_host_makes_nothing_of_its_own() -> None:
    data = {
        **ISO,
        "networks": {"street": {"mode": "bridge", "bridge": "br0"}},
        "guests": {
            "web": {"iso": "ipxe", "network": [{"network": "street", "address": "192.168.1.5"}]}
        },
    }
    engine = up(data)
    inputs = engine.named("street-network").inputs
    assert (inputs["mode"], inputs["bridge"]) == ("bridge", "br0")
    assert not {"addresses", "dhcp", "domain"} & set(inputs)
    assert engine.named("street-gate").inputs["reservations"] == []
    assert engine.named("street-gate").inputs["bridge"] == "br0", "it has to be there"
    assert engine.named("web-gate").inputs["probe"] == {"kind": "none"}, "no lease is ours to see"
    # As the provider reads it back of a domain that runs.
    [nic] = engine.named("web-domain").inputs["networkInterfaces"]
    assert nic["bridge"] == "br0"
    assert "networkName" not in nic


def uplinked(mode: str, nic: str, **more: object) -> Recorder:
    uplink = {"nic": nic} | {key: more.pop(key) for key in ("vlan", "proxy_arp") if key in more}
    network = {"mode": mode, "uplink": uplink, **more}
    return up({**ISO, "networks": {"net": network}, "guests": {"web": guest()}})


@pytest.mark.parametrize("vlan", [0, 20])
def test_a_bridge_is_made_on_a_nic_before_the_network_that_joins_it(vlan: int) -> None:
    engine = uplinked("bridge", "enp3s0", **({"vlan": vlan} if vlan else {}))
    gate, network = engine.named("net-uplink"), engine.named("net-network")
    assert gate.inputs["bridge"] == network.inputs["bridge"]
    assert re.fullmatch(r"nlb[0-9a-f]{10}", gate.inputs["bridge"])
    assert (gate.inputs["nic"], gate.inputs["vlan"], gate.inputs["mode"]) == (
        "enp3s0",
        vlan,
        "bridge",
    )
    assert not engine.named("net-gate").inputs["bridge"], "its uplink makes it"
    assert gate.urn in network.depends_on, "libvirt refuses a bridge that is not there"
    assert gate.inputs["user"].endswith(".net")
    again = uplinked("bridge", "enp3s0", vlan=vlan + 1)
    assert again.named("net-uplink").inputs["bridge"] != gate.inputs["bridge"]


def test_a_machine_by_macvtap_is_on_the_nic_itself() -> None:
    engine = uplinked("macvtap", "enp3s0")
    assert not [each for each in engine.resources.values() if each.name == "net-network"]
    nic = engine.named("web-domain").inputs["networkInterfaces"][0]
    assert nic["macvtap"] == "enp3s0"
    assert "networkName" not in nic
    assert engine.named("net-uplink").urn in engine.named("web-domain").depends_on


def test_arp_is_answered_for_what_is_planned_once_the_network_is_up() -> None:
    engine = uplinked("route", "wlan0", proxy_arp=True, subnet="192.168.1.192/28")
    gate = engine.named("net-uplink")
    planned = engine.named("net-gate").inputs["reservations"]
    assert gate.inputs["addresses"] == [each["address"] for each in planned] != []
    assert (gate.inputs["mode"], gate.inputs["subnet"]) == ("proxy_arp", "192.168.1.192/28")
    assert engine.named("net-gate").urn in gate.depends_on
    assert gate.urn in engine.named("web-domain").depends_on
    assert engine.named("net-network").inputs["mode"] == "route"


def test_a_network_is_closed_before_anything_is_on_it() -> None:
    network = {"mode": "nat", "subnet": "10.77.0.0/24"}
    open_ = up({**ISO, "networks": {"net": network}, "guests": {"web": guest()}})
    assert not [each for each in open_.resources.values() if each.name == "net-closed"]
    engine = up(
        {**ISO, "networks": {"net": {**network, "closed": True}}, "guests": {"web": guest()}}
    )
    gate = engine.named("net-closed")
    assert gate.inputs["bridge"] == engine.named("net-network").inputs["bridge"]
    assert gate.inputs["gateway"] == "10.77.0.1"
    assert engine.named("net-gate").urn in gate.depends_on
    assert gate.urn in engine.named("web-domain").depends_on


def test_a_network_without_dhcp_reserves_nothing() -> None:
    engine = up(
        {
            **ISO,
            "networks": {"net": {"subnet": "10.77.0.0/24", "dhcp": False}},
            "guests": {"web": guest()},
        }
    )
    assert engine.named("net-gate").inputs["reservations"] == []
    assert engine.named("net-network").inputs["dhcp"] == {"enabled": False}


def test_every_planned_address_is_reserved_under_the_machines_name() -> None:
    engine = up(THREE)
    lab = plan(load({"name": "lab", **THREE}, root=ROOT, exists=lambda _: True))
    for gate, names in (("net-gate", ["one", "twin", "top"]), ("one-net-gate", ["two", "mid"])):
        found = engine.named(gate).inputs["reservations"]
        expected = [lab.machine(name).nics[0] for name in names]
        assert [(each["name"], each["mac"], each["address"]) for each in found] == [
            (name, nic.mac, nic.address) for name, nic in zip(names, expected, strict=True)
        ]


def test_two_nics_of_a_machine_on_one_network_have_names_of_their_own() -> None:
    nets = {"net": {"subnet": "10.77.0.0/24"}, "other": {"subnet": "10.78.0.0/24"}}
    nics = [{"network": "net"}, {"network": "other"}, {"network": "net"}]
    engine = up({**ISO, "networks": nets, "guests": {"web": {"iso": "ipxe", "network": nics}}})
    names = [each["name"] for each in engine.named("net-gate").inputs["reservations"]]
    assert names == ["web", "web-1"], "libvirt refuses a second reservation of one name"
    assert [each["name"] for each in engine.named("other-gate").inputs["reservations"]] == ["web"]


def test_a_machine_is_made_once_its_networks_are_up() -> None:
    engine = up(THREE)
    for machine, gate in (("top-domain", "net-gate"), ("one-two-deep-domain", "one-two-net-gate")):
        assert engine.named(gate).urn in engine.named(machine).depends_on
    container = engine.named("one-two-box-container")
    assert engine.named("one-two-net-gate").urn in container.depends_on


# Containers -----------------------------------------------------------------------------------


def test_a_container_is_told_all_that_the_plan_knows() -> None:
    box = {"template": "busybox", "network": "in", "memory_mib": 96, "cores": 2, "autostart": False}
    data = nested(containers={"box": {**box, "command": ["/bin/sh", "-c", "sleep 1"]}})
    engine = up(data)
    made = engine.named("one-box-container")
    planned = plan(load({"name": "lab", **data}, root=ROOT, exists=lambda _: True)).machine("box")
    network = engine.named("one-in-network").inputs
    assert made.inputs["wanted"] == {
        "name": "box",
        "template": "busybox",
        "archive": "",
        "sha256": "",
        "memory_mib": 96,
        "cores": 2,
        "command": ["/bin/sh", "-c", "sleep 1"],
        "autostart": False,
        "bridge": network["bridge"],
        "mac": planned.nics[0].mac,
        "address": f"{planned.address}/24",
        "gateway": "10.78.0.1",
    }
    assert made.inputs["driver"] == "kvm.container"
    assert made.inputs["target"] == engine.named("one-gate").outputs["reach"]


def test_a_container_from_the_users_own_tarball_names_the_file_and_its_checksum() -> None:
    data = nested(containers={"box": {"template": "mine"}})
    data["templates"] = {"mine": {"path": "root.tar.xz", "sha256": "ab" * 32}}
    wanted = up(data).named("one-box-container").inputs["wanted"]
    assert (wanted["archive"], wanted["sha256"]) == ("/project/root.tar.xz", "ab" * 32)
    assert (wanted["template"], wanted["bridge"], wanted["address"]) == ("", "", "")


# Booting --------------------------------------------------------------------------------------


def boots(engine: Recorder, names: list[str]) -> dict[str, set[str]]:
    """Which machines have to be up before each may boot."""
    ready = {}
    for name in names:
        kind = "container" if f"{name}-container" in engine.names() else "gate"
        ready[engine.named(f"{name}-{kind}").urn] = name
    found = {}
    for name in names:
        kind = "container" if f"{name}-container" in engine.names() else "domain"
        found[name] = {
            ready[urn] for urn in engine.named(f"{name}-{kind}").depends_on if urn in ready
        }
    return found


def at_once(before: dict[str, set[str]]) -> int:
    """The most machines that can boot at the same time, whatever order they come up in."""

    def ancestors(name: str) -> set[str]:
        return before[name].union(*(ancestors(each) for each in before[name]))

    def independent(group: tuple[str, ...]) -> bool:
        return not any(a in ancestors(b) for a in group for b in group)

    return max(
        size
        for size in range(1, len(before) + 1)
        if any(independent(group) for group in itertools.combinations(before, size))
    )


@pytest.mark.parametrize(
    ("by", "width"), [("stack", 1), ("stack", 2), ("stack", 3), ("stack", 9), ("cores", 2)]
)
def test_at_most_so_many_of_five_machines_boot_at_the_same_time(by: str, width: int) -> None:
    names = ["a", "b", "c", "d", "e"]
    data: dict[str, Any] = {**NET, **ISO, "guests": {name: guest() for name in names}}
    if by == "stack":
        data["boot"] = {"concurrency": width}
    engine = up(data, cores=width if by == "cores" else 7)
    before = boots(engine, names)
    assert at_once(before) == min(width, 5)
    assert before == {
        name: {names[number - width]} if number >= width else set()
        for number, name in enumerate(names)
    }, "machines boot in the order of the file"


def test_hosts_guests_and_containers_of_a_place_stand_in_one_queue() -> None:
    box = {"template": "busybox", "network": "in"}
    data = nested(guests={"a": guest(network="in")}, containers={"b": box, "c": box})
    data["boot"] = {"concurrency": 1}
    before = boots(up(data), ["one-a", "one-b", "one-c"])
    assert before == {"one-a": set(), "one-b": {"one-a"}, "one-c": {"one-b"}}


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 6), machines=st.integers(0, 12))
def test_a_queue_lets_no_more_boot_than_it_is_wide_and_makes_nobody_wait_longer_than_needed(
    width: int, machines: int
) -> None:
    queue = BootQueue(width)
    names = [str(number) for number in range(machines)]

    def program() -> None:
        for name in names:
            queue.turn()  # asking is not boarding
            queue.joined(Machine(name, queue.turn()))

    engine = deploy(program)
    waits = {
        name: {urn.rpartition(":")[2] for urn in engine.named(name).depends_on} for name in names
    }
    if machines:
        assert at_once(waits) == min(width, machines)
    assert all(len(each) <= 1 for each in waits.values())


# Secrets --------------------------------------------------------------------------------------


def secrets_in(value: Any) -> set[str]:
    return set(re.findall(r"SECRET-of-[\w-]+", json.dumps(value)))


def test_no_secret_stands_in_clear_in_the_state() -> None:
    engine = up(THREE)
    seen = set()
    for one in engine.resources.values():
        for values, hidden in (
            (one.inputs, one.secret_inputs),
            (one.outputs, one.secret_outputs),
            (engine.published.get(one.urn, {}), engine.secret_published.get(one.urn, frozenset())),
        ):
            for key, value in values.items():
                found = secrets_in(value)
                seen |= found
                assert not found or key in hidden, f"{one.urn} shows {found} in {key}"
    made = [*engine.of_type("SshKey"), *engine.of_type("Password")]
    assert len(made) == 4 + 6
    assert {private(one) for one in made} <= seen, "the test looks at nothing"


def test_outputs_that_hold_secrets_are_secret_and_the_sheet_holds_none() -> None:
    engine = up(THREE)
    outputs = engine.stack_outputs
    assert set(outputs) == {"sheet", "passwords", "logins", "key"}
    assert engine.secret_published[engine.stack_urn] == {"passwords", "logins", "key"}
    assert not secrets_in(outputs["sheet"])
    assert outputs["key"] == private(engine.named("key"))
    assert outputs["passwords"] == {
        name: private(engine.named(f"{path}-console"))
        for name, path in {
            "one": "one",
            "two": "one-two",
            "twin": "twin",
            "deep": "one-two-deep",
            "mid": "one-mid",
            "top": "top",
        }.items()
    }
    assert STACK in engine.stack_urn


def test_the_sheet_says_of_every_machine_where_it_is_and_how_to_get_in() -> None:
    sheet = up(THREE).stack_outputs["sheet"]
    assert [row["layer"] for row in sheet] == sorted(row["layer"] for row in sheet)
    rows = {row["name"]: row for row in sheet}
    assert set(rows) == {"one", "two", "twin", "deep", "mid", "top", "box", "tin"}
    where = {name: (row["kind"], row["layer"], row["inside"]) for name, row in rows.items()}
    assert where["one"] == ("kvm", 1, [])
    assert where["two"] == ("kvm", 2, ["one"])
    assert where["deep"] == ("guest", 3, ["one", "two"])
    assert where["box"] == ("container", 3, ["one", "two"])
    assert rows["top"]["domain"] == "lab-top"
    assert rows["deep"]["domain"] == "deep"
    assert rows["box"]["console"] == "lxc-attach -n box"
    assert rows["deep"]["console"] == "vnc://127.0.0.1:0"
    assert (rows["one"]["user"], rows["deep"]["user"]) == ("root", "")
    assert all(row["address"].startswith("10.7") for row in sheet)


# What makes a gate wait again --------------------------------------------------------------------


def instance(data: dict[str, Any], name: str) -> str:
    return str(up(data).named(name).inputs["instance"])


@pytest.mark.parametrize(
    "change",
    [
        {"memory_mib": 6144},
        {"cores": 3},
        {"nic_model": "e1000"},
        {"disk_gib": 30},
        {"video": "qxl"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_machine_under_the_same_name_is_waited_for_again(change: dict[str, Any]) -> None:
    before, after = nested(), nested()
    after["hypervisors"]["one"] |= change
    assert instance(before, "one-gate") != instance(after, "one-gate")


def test_what_stands_in_a_host_does_not_make_it_another_host() -> None:
    before = nested()
    after = nested(guests={"web": guest(network="in")})
    after["hypervisors"]["one"]["networks"]["more"] = {"subnet": "10.90.0.0/24"}
    assert instance(before, "one-gate") == instance(after, "one-gate"), (
        "one guest more in a nested host, and preview knows nothing of what is in it"
    )


def test_how_long_a_machine_is_waited_for_does_not_make_it_another_one() -> None:
    patient = with_guest(ready={"deadline_s": 999})
    assert instance(with_guest(), "web-gate") == instance(patient, "web-gate")
    assert instance({**nested(), "boot": {"ready_s": 999}}, "one-gate") == instance(
        nested(), "one-gate"
    )


def test_another_subnet_is_another_network() -> None:
    other = {"networks": {"net": {"subnet": "10.99.0.0/24"}}}
    assert instance(NET, "net-gate") != instance(other, "net-gate")
    assert NetworkSpec.model_validate(NET["networks"]["net"]).mode == "nat"


def test_a_lab_is_the_same_whenever_it_is_deployed() -> None:
    one, other = fresh(THREE), fresh(THREE)
    assert one.resources == other.resources


def test_an_empty_lab_is_one_too() -> None:
    engine = up({})
    assert engine.stack_outputs == {
        "sheet": [],
        "passwords": {},
        "logins": {},
        "key": private(engine.named("key")),
    }


def test_a_program_that_fails_fails_the_test() -> None:
    def program() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        deploy(program, outputs=answers)
