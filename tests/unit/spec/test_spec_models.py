"""Models by themselves, files, and the promise that a new kind of hypervisor is one file."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import ValidationError
from typing_extensions import override

from components.stackfile import (
    ConsoleSpec,
    GuestSpec,
    HypervisorSpec,
    LabSpec,
    NetworkSpec,
    Problem,
    SpecError,
    load,
    plan,
    registry,
)
from components.stackfile.places import Kind, Minimum, Offers
from tests.support import images

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]


def test_nothing_of_the_spec_imports_pulumi() -> None:
    program = (
        "import importlib, pkgutil, sys, components.stackfile as spec\n"
        "for module in pkgutil.walk_packages(spec.__path__, 'components.stackfile.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert len([m for m in sys.modules if m.startswith('components.stackfile')]) > 15\n"
        "print([m for m in sys.modules if m.partition('.')[0] in {'pulumi', 'pulumi_libvirt'}])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_a_model_is_frozen_and_closed() -> None:
    guest = GuestSpec(iso="ipxe")
    with pytest.raises(ValidationError, match="frozen"):
        guest.memory_mib = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        GuestSpec.model_validate({"iso": "ipxe", "ios": "ipxe"})


def test_a_refused_value_is_not_in_pydantics_own_text() -> None:
    with pytest.raises(ValidationError) as refused:
        ConsoleSpec.model_validate({"password": "hunter2"})
    assert "hunter2" not in str(refused.value)


def test_a_rule_holds_for_who_builds_a_model_in_python() -> None:
    with pytest.raises(ValidationError, match="needs the subnet its machines live in: add one"):
        NetworkSpec(mode="nat")


@pytest.mark.parametrize(
    ("fields", "order"),
    [
        ({"iso": "a"}, ("cdrom",)),
        ({"iso": "a", "disk_gib": 8}, ("cdrom", "hd")),
        ({"image": "a"}, ("hd",)),
        ({"image": "a", "iso": "b"}, ("hd", "cdrom")),
        ({"iso": "a", "network": "n", "boot": ["network", "cdrom"]}, ("network", "cdrom")),
    ],
    ids=str,
)
def test_a_guest_boots_from_what_it_has(fields: dict[str, Any], order: tuple[str, ...]) -> None:
    assert GuestSpec.model_validate(fields).boot_order == order


def test_a_network_on_a_bridge_serves_no_dhcp() -> None:
    assert not NetworkSpec.model_validate({"mode": "bridge", "bridge": "br0"}).serves_dhcp
    assert NetworkSpec.model_validate({"subnet": "10.77.0.0/24"}).serves_dhcp


def test_problems_are_told_once_and_sorted_by_path() -> None:
    first, second = Problem("a", "x", "y", "z"), Problem("b", "x", "y", "z")
    error = SpecError([second, first, second])
    assert str(error) == "a: x, but y: z\nb: x, but y: z"
    assert pickle.loads(pickle.dumps(error)).problems == (first, second)  # noqa: S301 - our own


def test_files_are_found_from_the_projects_folder_and_from_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    media = {"a": {"path": "x/../a.iso"}, "b": {"path": "~/b.iso"}, "c": {"path": "/srv/c.iso"}}
    asked: list[str] = []

    def exists(path: str) -> bool:
        asked.append(path)
        return True

    lab = load({"name": "lab", "media": media}, root=tmp_path, exists=exists)
    found = [lab.media[name].path for name in "abc"]
    assert found == [f"{tmp_path}/a.iso", "/home/somebody/b.iso", "/srv/c.iso"]
    assert asked == found


def test_an_iso_is_taken_as_iso_and_refused_as_image(tmp_path: Path) -> None:
    (tmp_path / "a.iso").write_bytes(images.iso())
    (tmp_path / "raw.img").write_bytes(images.raw())
    media = {"a": {"path": "a.iso"}, "raw": {"path": "raw.img"}}
    right = {"x": {"iso": "a"}, "y": {"image": "raw"}}
    load({"name": "lab", "media": media, "guests": right}, root=tmp_path)
    with pytest.raises(SpecError) as refused:
        load({"name": "lab", "media": media, "guests": {"x": {"image": "a"}}}, root=tmp_path)
    assert "and is an ISO: use it as iso:" in str(refused.value)


def test_without_a_given_answer_files_are_looked_for_on_this_machine(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        load({"name": "lab", "media": {"a": {"path": "a.iso"}}}, root=tmp_path)


class ToySpec(HypervisorSpec):
    """A third kind, with a medium of its own and nothing libvirt would offer."""

    kind: Literal["toy"]
    memory_mib: int = 1024
    disk_gib: int = 4
    nic_model: Literal["e1000"] = "e1000"
    installer: str

    @override
    def media(self) -> dict[str, str]:
        return {"installer": self.installer}


TOY = Kind(
    name="toy",
    title="a toy",
    model=ToySpec,
    memory_mib=Minimum(512, "the box says so"),
    cores=Minimum(1, "the box says so"),
    disk_gib=Minimum(1, "the box says so"),
    reserve_mib=64,
    reserve_gib=1,
    needs_dhcp=False,
    offers=Offers(
        nic_models=("e1000",),
        disk_buses=("scsi",),
        modes=("isolated",),
        containers=False,
        nests=True,
        golden=True,
        sticks=True,
    ),
)


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one folder and one line would do."""
    monkeypatch.setattr(registry.KINDS, "_names", (*registry.KINDS, "toy"))
    monkeypatch.setitem(registry.KINDS._found, "toy", TOY)  # type: ignore[attr-defined]
    LabSpec.model_rebuild(force=True)
    yield
    monkeypatch.undo()
    LabSpec.model_rebuild(force=True)


def toy_lab(**inside: Any) -> dict[str, Any]:
    return {
        "name": "lab",
        "media": {"box": {"path": "box.iso"}},
        "networks": {"net": {"subnet": "10.77.0.0/24", "dhcp": False}},
        "hypervisors": {
            "t": {"kind": "toy", "network": "net", "cores": 1, "installer": "box", **inside},
        },
    }


@pytest.mark.usefixtures("_toy")
def test_a_new_kind_is_one_file_and_one_line() -> None:
    inside = {
        "networks": {"i": {"mode": "isolated", "subnet": "10.78.0.0/24"}},
        "guests": {"g": {"iso": "box", "network": "i"}},
        "hypervisors": {"k": {"kind": "kvm", "network": "i"}},
        "memory_mib": 8192,
        "disk_gib": 40,
        "cores": 2,
    }
    lab = load(toy_lab(**inside), root=ROOT, exists=lambda _: True)
    made = plan(lab)
    assert isinstance(lab.hypervisors["t"], ToySpec)
    assert made.place("t").kind == "toy"
    assert made.machine("g").nics[0].model == "e1000", "the default is what the place offers"
    assert made.machine("g").disk_bus == "scsi"


@pytest.mark.usefixtures("_toy")
def test_a_kind_answers_for_its_own_limits() -> None:
    inside = {
        "installer": "bix",
        "memory_mib": 256,
        "nic_model": "virtio",
        "networks": {"i": {"subnet": "10.78.0.0/24"}},
        "containers": {"c": {"template": "busybox"}},
        "guests": {
            "g": {"iso": "box", "disk_bus": "ide", "nic_model": "virtio"},
            "h": {"iso": "box", "network": [{"network": "i", "model": "vmxnet3"}]},
        },
    }
    with pytest.raises(SpecError) as refused:
        load(toy_lab(**inside), root=ROOT, exists=lambda _: True)
    assert [str(problem) for problem in refused.value.problems] == [
        "lab.hypervisors.t.installer: 'bix' given, but the lab's media are box: did you mean 'box'?",
        "lab.hypervisors.t.nic_model: 'virtio' given, but allowed are e1000: choose one of these",
    ]
    del inside["nic_model"]
    with pytest.raises(SpecError) as refused:
        load(toy_lab(**inside), root=ROOT, exists=lambda _: True)
    paths = [problem.path.removeprefix("lab.hypervisors.t.") for problem in refused.value.problems]
    assert paths == [
        "containers",
        "guests.g.disk_bus",
        "guests.g.memory_mib",
        "guests.g.nic_model",
        "guests.h.memory_mib",
        "guests.h.network.0.model",
        "installer",
        "memory_mib",
        "networks.i.mode",
    ]
    assert "a toy needs at least 512 MiB (the box says so)" in str(refused.value)


@pytest.mark.usefixtures("_toy")
def test_an_unknown_kind_is_answered_with_all_that_are_known() -> None:
    with pytest.raises(SpecError, match=r"known kinds of hypervisor are .* and toy"):
        load(toy_lab(kind="beos"), root=ROOT, exists=lambda _: True)
