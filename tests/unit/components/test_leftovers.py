"""What a killed run left is out of the way of what is made next, and nothing else is."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from components.gates.uuids import uuid_of
from components.kinds.libvirt.leftovers import KIND_OF, VOLUME, Place, StoodBefore
from components.kinds.libvirt.virsh import STOOD, Virsh
from components.reach.shell import Unreachable
from tests.support.libvirtd import FakeLibvirt

URI = "qemu:///system"
OURS = "0123456789abcdef"
TYPES = {kind: name for name, kind in KIND_OF.items()}
POOL = uuid_of(OURS, "pool", "nestlab-lab")


def place(libvirt: FakeLibvirt, *, nested: bool = False) -> Place:
    return Place(Virsh(libvirt, URI), OURS, POOL, nested)


def made(kind: str, name: str, number: str) -> FakeLibvirt:
    libvirt = FakeLibvirt()
    if kind == "pool":
        libvirt.pools[name] = number
    else:
        getattr(libvirt, kind)(name, uuid=number)
    return libvirt


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("nested", [False, True])
def test_of_the_lab_it_goes_and_of_a_stranger_it_stays(kind: str, nested: bool) -> None:
    called = {"name": "lab-web"}
    own = uuid_of(OURS, kind, "lab-host-web" if nested else "lab-web")
    libvirt = made(kind, "lab-web", own)
    place(libvirt, nested=nested).clear(TYPES[kind], "lab-host-web", called)
    assert libvirt.domains | libvirt.networks | libvirt.pools == {}

    libvirt = made(kind, "lab-web", str(uuid.uuid4()))
    place(libvirt, nested=nested).clear(TYPES[kind], "lab-host-web", called)
    assert libvirt.domains or libvirt.networks or libvirt.pools
    assert libvirt.commands() == []


def test_where_nothing_was_left_one_question_is_asked() -> None:
    libvirt = FakeLibvirt()
    for kind in TYPES.values():
        place(libvirt).clear(kind, "lab-web", {"name": "lab-web"})
    assert len(libvirt.said) == len(TYPES)
    assert libvirt.commands() == []


def test_a_domain_that_was_up_once_is_told_and_stays() -> None:
    libvirt = made("domain", "lab-web", uuid_of(OURS, "domain", "lab-web"))
    mark = f"<metadata><n:stood xmlns:n='{STOOD}'/></metadata></domain>"
    one = libvirt.domains["lab-web"]
    one.xml = one.xml.replace("</domain>", mark)
    with pytest.raises(StoodBefore, match=r"lab-web .* was up once.*pulumi stack import.*undefine"):
        place(libvirt).clear(TYPES["domain"], "x", {"name": "lab-web"})
    assert libvirt.domains


@pytest.mark.parametrize(
    ("inputs", "left"),
    [
        ({"name": "medium-a.iso", "source": "/a.iso"}, ["lab-web.qcow2"]),
        ({"name": "lab-web.qcow2"}, ["lab-web.qcow2", "medium-a.iso"]),
        ({"name": "other.iso", "source": "/o.iso"}, ["lab-web.qcow2", "medium-a.iso"]),
    ],
    ids=["a copy", "a disk", "nothing"],
)
def test_of_volumes_only_copies_go_which_may_be_cut_short(
    inputs: dict[str, Any], left: list[str]
) -> None:
    libvirt = made("pool", "nestlab-lab", POOL)
    libvirt.volumes["nestlab-lab"] = ["lab-web.qcow2", "medium-a.iso"]
    place(libvirt).clear(VOLUME, "x", inputs)
    assert sorted(libvirt.volumes["nestlab-lab"]) == left


def test_of_another_labs_pool_no_volume_goes() -> None:
    libvirt = made("pool", "nestlab-lab", str(uuid.uuid4()))
    libvirt.volumes["nestlab-lab"] = ["medium-a.iso"]
    place(libvirt).clear(VOLUME, "x", {"name": "medium-a.iso", "source": "/a.iso"})
    assert libvirt.volumes["nestlab-lab"] == ["medium-a.iso"]


def test_nobody_to_ask_is_told_to_who_makes_it() -> None:
    libvirt = FakeLibvirt(down=True)
    with pytest.raises(Unreachable):
        place(libvirt).clear(TYPES["domain"], "x", {"name": "lab-web"})
