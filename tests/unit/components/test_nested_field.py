"""The field `nested`: whether a machine's CPU shows hardware virtualization, in the words of each host.

A failure here means that a lesson shows no difference, that the inner guests of a host without fail to start,
or that a lab whose stack never named the field is changed by an update.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pulumi
import pytest

from components import settings
from components.place.machine import machine_facts
from components.place.orders import guest as guest_order
from components.stackfile import SpecError, load, plan
from components.stackfile.machines import GuestSpec
from components.stackfile.registry import KINDS
from tests.unit.components import test_proxmox_place as proxmox
from tests.unit.components import test_vsphere_place as vsphere
from tests.unit.components.labs import ROOT, fresh, up
from tests.unit.components.test_lab_tree import ISO, NET, guest, kvm, sheet_of, template, with_guest

if TYPE_CHECKING:
    import xml.etree.ElementTree as ET
    from pathlib import Path

    from components.findings import Accelerator
    from components.stackfile import LabSpec
    from tests.support.engine import Recorder

MEDIA = {"media": {name: {"path": f"{name}.iso"} for name in ("ipxe", "setup")}}
INNER = {"networks": {"in": {"subnet": "10.78.0.0/24"}}}
SAID = "without hardware virtualization (nested: false)"


def host(kind: str, **more: Any) -> dict[str, Any]:
    """A hypervisor of a kind, with all that it has to be told."""
    needs = {"iso": "setup"} if "iso" in KINDS[kind].model.model_fields else {}
    needs |= {"image": "setup"} if "image" in KINDS[kind].model.model_fields else {}
    needs |= {"bundle": "setup"} if kind == "workstation" else {}
    return {"kind": kind, "network": "net", "address": "10.77.0.9", **needs, **more}


def loaded(**contents: Any) -> LabSpec:
    return load({"name": "lab", **NET, **MEDIA, **contents}, root=ROOT, exists=lambda _: True)


def refused(**contents: Any) -> str:
    with pytest.raises(SpecError) as why:
        loaded(**contents)
    [problem] = why.value.problems
    return str(problem)


def disabled(engine: Recorder, name: str) -> set[str]:
    """CPU features that a domain's stylesheet switches off."""
    found = template(sheet_of(engine, name), "/domain/cpu")
    features: list[ET.Element] = [] if found is None else list(found.iter("feature"))
    assert all(each.get("policy") == "disable" for each in features)
    return {str(each.get("name")) for each in features}


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_a_guest_on_libvirt_has_its_hosts_cpu_without_both_features(
    accelerator: Accelerator,
) -> None:
    mode = {"kvm": "host-passthrough", "tcg": "maximum"}[accelerator]
    for nested, off in ((None, set()), (True, set()), (False, {"svm", "vmx"})):
        said = {} if nested is None else {"nested": nested}
        engine = up(with_guest(**said), accelerator=accelerator)
        assert disabled(engine, "web") == off
        inputs = engine.named("web-domain").inputs
        assert inputs["cpu"]["mode"] == mode
        assert inputs.get("description") == (SAID if nested is False else None), (
            "a preview, which shows no stylesheet, has to say it"
        )


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
@pytest.mark.parametrize("nests", [True, False])
@pytest.mark.parametrize("nested", [None, True, False])
def test_what_is_in_a_kvm_host_without_is_emulated(
    accelerator: Accelerator, *, nests: bool, nested: bool | None
) -> None:
    said = {} if nested is None else {"nested": nested}
    inside = {"guests": {"web": guest(network="in")}} | INNER
    engine = fresh(
        {**NET, **ISO, "hypervisors": {"one": kvm(**inside, **said)}},
        accelerator=accelerator,
        nests=nests,
    )
    shown = nested is not False and (accelerator == "tcg" or nests)
    inner = engine.named("one-web-domain").inputs
    assert (inner["type"], inner["cpu"]["mode"]) == (
        ("kvm", "host-passthrough") if shown else ("qemu", "maximum")
    )
    assert disabled(engine, "one") == ({"svm", "vmx"} if nested is False else set())
    assert engine.named("one-domain").inputs["description"] == (
        f"nestlab:kind=kvm {SAID}" if nested is False else "nestlab:kind=kvm"
    )


def test_what_an_emulated_host_emulates_shows_virtualization_again() -> None:
    two = kvm(
        network="in", memory_mib=4096, disk_gib=20, networks={"deep": {"subnet": "10.79.0.0/24"}}
    )
    two["guests"] = {"web": guest(network="deep")}
    data = {
        **NET,
        **ISO,
        "hypervisors": {"one": kvm(**INNER, hypervisors={"two": two}, nested=False)},
    }
    engine = fresh(data)
    assert engine.named("one-two-domain").inputs["type"] == "qemu"
    assert disabled(engine, "one-two") == set()
    assert engine.named("one-two-web-domain").inputs["type"] == "kvm"


def test_xen_emulated_keeps_the_one_model_that_it_starts_with() -> None:
    engine = fresh({**NET, "hypervisors": {"one": host("xen", nested=False)}}, accelerator="tcg")
    cpu = template(sheet_of(engine, "one"), "/domain/cpu")
    assert cpu is not None
    assert [each.text for each in cpu.iter("model")] == ["Nehalem"]
    assert disabled(engine, "one") == {"svm", "vmx"}


def test_a_guest_on_proxmox_has_another_type_of_cpu() -> None:
    guests = {"live": {"iso": "live", "network": "out"}}
    for said, kind in (
        ({}, "host"),
        ({"nested": True}, "host"),
        ({"nested": False}, "x86-64-v2-AES"),
    ):
        engine = proxmox.outer(guests={"live": guests["live"] | said})
        assert engine.named("live-vm").inputs["cpu"]["type"] == kind


def test_a_guest_on_an_emulating_proxmox_shows_none_either() -> None:
    for said, kind in (({}, "qemu64"), ({"nested": False}, "kvm64")):
        inner = {"iso": "ipxe", "memory_mib": 256, **said}
        engine = up(
            {
                **NET,
                **MEDIA,
                "hypervisors": {"pve": host("proxmox", kvm=False, guests={"in": inner})},
            }
        )
        assert engine.named("pve-in-vm").inputs["cpu"]["type"] == kind


def test_a_machine_on_vsphere_is_told_so(tmp_path: Path) -> None:
    web = {"iso": "live", "network": "own"}
    one = {**vsphere.NESTED, "kvm": False}
    for number, (said, guest_has, host_has) in enumerate(
        (({}, False, True), ({"nested": True}, True, True), ({"nested": False}, False, False))
    ):
        root = tmp_path / str(number)
        root.mkdir()
        engine = vsphere.up(root, guests={"web": web | said}, hypervisors={"one": one | said})
        assert engine.named("web-vm").inputs["nestedHvEnabled"] is guest_has
        assert engine.named("one-vm").inputs["nestedHvEnabled"] is host_has


def test_a_driver_is_ordered_what_the_stack_says_and_by_default_none() -> None:
    inner = {"iso": "ipxe", "memory_mib": 256}
    for said, shows in ((None, False), (True, True), (False, False)):
        given = GuestSpec.model_validate(inner | ({} if said is None else {"nested": said}))
        spec = loaded(
            hypervisors={
                "vb": host("virtualbox", guests={"in": given.model_dump(exclude_unset=True)})
            }
        )
        made = guest_order(
            given,
            plan(spec).machine("in"),
            {},
            iso="",
            image="",
            password="",
            store="/store",
            owner="",
        )
        assert made.nested is shows


def test_a_lab_that_never_named_it_is_the_machine_that_it_was() -> None:
    contents = {"hypervisors": {"one": kvm()}, "guests": {"web": guest()}}
    plain = loaded(**contents)
    facts = {
        name: machine_facts(spec, plan(plain).machine(name)) for name, spec in _machines(plain)
    }
    assert all("nested" not in each["spec"] for each in facts.values())  # type: ignore[operator]
    for nested, other in ((True, {"web"}), (False, {"one", "web"})):
        given = loaded(
            hypervisors={"one": kvm(nested=nested)}, guests={"web": guest(nested=nested)}
        )
        now = {
            name: machine_facts(spec, plan(given).machine(name)) for name, spec in _machines(given)
        }
        assert {name for name in now if now[name] != facts[name]} == other


def _machines(spec: LabSpec) -> list[tuple[str, Any]]:
    return [*spec.hypervisors.items(), *spec.guests.items()]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_hypervisor_that_starts_no_guest_without_is_refused_without(kind: str) -> None:
    spares = KINDS[kind].spares
    if not spares:
        told = refused(hypervisors={"one": host(kind, nested=False)})
        assert told == (
            f"lab.hypervisors.one.nested: false given, but {KINDS[kind].title} starts no guest without "
            "hardware virtualization: remove it"
        )
        return
    more = {"kvm": False} if kind == "proxmox" else {}
    assert loaded(hypervisors={"one": host(kind, nested=False, **more)})
    assert not KINDS[kind].needs(loaded(hypervisors={"one": host(kind, **more)}).hypervisors["one"])


def test_proxmox_without_has_to_say_that_its_guests_are_emulated() -> None:
    for more in ({}, {"kvm": True}):
        told = refused(hypervisors={"one": host("proxmox", nested=False, **more)})
        assert told.startswith(
            "lab.hypervisors.one.kvm: true given, or left as it is, but with nested: false"
        )
        assert told.endswith(": add kvm: false, which emulates them, or remove nested:")


def test_a_product_in_a_host_that_emulates_is_refused_at_any_depth() -> None:
    esxi = host("esxi", network="in", address="10.78.0.9")
    size: dict[str, Any] = {"memory_mib": 32768, "disk_gib": 200, "cores": 8}
    told = refused(
        hypervisors={"one": kvm(**INNER, hypervisors={"esx": esxi}, nested=False) | size}
    )
    assert told == (
        "lab.hypervisors.one.hypervisors.esx.kind: 'esxi' given, but VMware ESXi starts no guest without "
        "hardware virtualization, and 'one' has nested: false, so what is in it is emulated: move it "
        "further out, or remove nested: of 'one'"
    )
    pve = host("proxmox", network="in", address="10.78.0.9")
    one = kvm(**INNER, hypervisors={"pve": pve}, nested=False) | size
    assert loaded(hypervisors={"one": one}), "emulated, Proxmox VE's guests have KVM"


def test_a_paravirtual_guest_is_refused_what_xen_can_not_show_it() -> None:
    for nested, found in ((True, True), (False, False)):
        one = host("xen", guests={"in": {"iso": "ipxe", "memory_mib": 256, "nested": nested}})
        if found:
            told = refused(hypervisors={"one": one})
            assert told.startswith(
                "lab.hypervisors.one.guests.in.nested: true given, but its guests"
            )
        else:
            assert loaded(hypervisors={"one": one})


ONE = "lab.hypervisors.one"
FLAT = "the outer host's KVM does not nest"
FOLLOWS = "so what is in it is emulated: db and web"


@pytest.mark.parametrize(
    ("kind", "nested", "facts", "told"),
    [
        ("kvm", None, {"accelerator": "tcg"}, []),
        ("kvm", True, {"accelerator": "tcg"}, []),
        ("kvm", True, {"accelerator": "kvm"}, []),
        ("kvm", False, {"accelerator": "tcg"}, [f"{ONE}: nested is false, {FOLLOWS}"]),
        ("kvm", False, {"accelerator": "kvm"}, [f"{ONE}: nested is false, {FOLLOWS}"]),
        ("kvm", None, {"accelerator": "kvm", "kvm_nested": False}, [f"{ONE}: {FLAT}, {FOLLOWS}"]),
        (
            "kvm",
            True,
            {"accelerator": "kvm", "kvm_nested": False},
            [f"{ONE}: {FLAT}, {FOLLOWS}", f"{ONE}: nested is true, and {FLAT}"],
        ),
        ("kvm", None, {"accelerator": "tcg", "kvm_nested": False}, []),
        ("xen", None, {"accelerator": "kvm", "kvm_nested": False}, []),
        (
            "xen",
            False,
            {"accelerator": "kvm"},
            [f"{ONE}: nested is false, so what is in it is paravirtual: db and web"],
        ),
        (
            "xen",
            True,
            {"accelerator": "tcg"},
            [f"{ONE}: nested is true, and emulated it starts on a Nehalem alone, which shows none"],
        ),
    ],
)
def test_what_is_not_shown_and_what_follows_is_told_in_each_preview(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    nested: bool | None,
    facts: dict[str, Any],
    told: list[str],
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", said.append)
    local = tmp_path / ".nestlab"
    local.mkdir()
    facts = {"version": 1, "cores": 2, "memory_mib": 4096} | facts
    (local / "host.json").write_text(json.dumps(facts))
    files = {"version": 1, "hash": "0", "pool": "p", "volume": "v", "files": {"disk": "/d"}}
    for name in ("golden.json", "golden-xen.json"):
        (local / name).write_text(json.dumps({**files, "root_gib": 2}))
    size = {"memory_mib": 8192, "disk_gib": 40} | ({} if nested is None else {"nested": nested})
    guests = {name: {"iso": "ipxe", "memory_mib": 256} for name in ("web", "db")}
    one = {"kind": kind, "network": "net", "guests": guests, **size}
    if kind == "kvm":
        one |= {"containers": {"box": {"template": "busybox"}}}
    data = {"name": "lab", **NET, **ISO, "hypervisors": {"one": one}}
    settings.load(data, tmp_path, "mine", preview=True)
    assert said == told
