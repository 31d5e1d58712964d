"""Every student's stack is what the template would be by hand, and stays what it was when others come and go."""

from __future__ import annotations

import contextlib
import math
import subprocess
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from classroom import bill, planning, register, roster
from classroom.subnets import Full, Pool
from classroom.template import Template
from components.stackfile import SpecError, Totals
from components.stackfile.allow import Allowed
from tests.unit.classroom.conftest import TEMPLATE
from toolchain import stack_check
from toolchain.bootstrap import ui

if TYPE_CHECKING:
    from classroom.planning import Planned


def planned(
    checkout: Path, text: str, standing: set[str] | None = None, name: str = "net1.csv", **more: Any
) -> Planned:
    file = checkout / name
    file.write_text(text)
    return planning.planned(
        roster.read(file), "course", file=str(file), standing=standing or set(), **more
    )


def lab(checkout: Path, stack: str) -> dict[str, Any]:
    told = yaml.safe_load((checkout / "stacks" / f"Pulumi.{stack}.yaml").read_text())
    found: dict[str, Any] = told["config"]["nestlab:lab"]
    return found


def test_a_student_has_the_template_with_a_name_and_a_subnet(checkout: Path) -> None:
    planned(checkout, "id,hypervisors.kvm1.memory_mib\nana,6144\nbob,\n").keep()
    wanted = yaml.safe_load(TEMPLATE)["config"]["nestlab:lab"]
    wanted["name"] = "net1-ana"
    wanted["networks"]["lab"] |= {"subnet": "10.112.0.0/24", "closed": True}
    # What is pinned keeps its place in the subnet.
    wanted["hypervisors"]["kvm1"] |= {"memory_mib": 6144, "address": "10.112.0.9"}
    assert lab(checkout, "net1.ana") == wanted
    assert lab(checkout, "net1.bob")["networks"]["lab"]["subnet"] == "10.112.1.0/24"
    assert (checkout / "stacks" / "Pulumi.net1.ana.yaml").stat().st_mode & 0o777 == 0o600


def test_git_leaves_students_stacks_out() -> None:
    """A class in a checkout changes nothing that git would commit."""
    done = subprocess.run(
        ["git", "check-ignore", "stacks/Pulumi.net1.ana.yaml", "stacks/Pulumi.local.yaml"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["stacks/Pulumi.net1.ana.yaml"]


def test_a_student_s_stack_is_one_that_every_command_takes(checkout: Path) -> None:
    planned(checkout, "id\nana\n").keep()
    assert stack_check.checked("net1.ana") == ["kvm"]


def test_who_comes_and_goes_moves_nobody(checkout: Path) -> None:
    planned(checkout, "id\nana\nbob\neva\n").keep()
    stand = {"net1.ana", "net1.bob", "net1.eva"}
    made = planned(checkout, "id\nzoe\neva\nana\n", stand)
    made.keep()
    has = {id_: given.subnets["lab"] for id_, given in made.register.students.items()}
    assert has == {
        "ana": "10.112.0.0/24",
        "bob": "10.112.1.0/24",
        "eva": "10.112.2.0/24",
        "zoe": "10.112.3.0/24",
    }
    assert made.left == ("bob",)
    assert (checkout / "stacks" / "Pulumi.net1.bob.yaml").exists()
    # Only when the lab is gone is what it had free again.
    made = planned(checkout, "id\nana\neva\nzoe\nkai\n", stand - {"net1.bob"})
    made.keep()
    assert made.freed == ("bob",)
    assert made.register.students["kai"].subnets["lab"] == "10.112.1.0/24"
    assert not (checkout / "stacks" / "Pulumi.net1.bob.yaml").exists()


def test_what_others_have_is_passed_over(checkout: Path) -> None:
    others = [IPv4Network("10.112.0.128/25"), IPv4Network("10.112.1.0/24")]
    made = planned(checkout, "id\nana\n", others=others)
    assert made.register.students["ana"].subnets["lab"] == "10.112.2.0/24"


def test_a_pool_that_is_too_small_says_for_how_many_it_does(checkout: Path) -> None:
    text = "subnets: 10.77.0.0/22\nstudents: [ana, bob, eva, zoe]\n"
    # The template's own subnet, and that of its inside, are in there and not given away.
    with pytest.raises(SpecError, match="3 labs would fit: name a larger pool"):
        planned(checkout, text, name="net1.yaml")


def test_too_much_for_the_host_says_how_many_would_fit(checkout: Path) -> None:
    text = "id\n" + "".join(f"s{number}\n" for number in range(13))
    with pytest.raises(SpecError) as told:
        planned(checkout, text)
    memory, disk = sorted(told.value.problems, key=lambda each: each.path, reverse=True)
    assert "13 labs of 53248 MiB" in memory.found
    assert memory.remedy.startswith("10 labs would fit")
    assert "13 labs of 104 GiB" in disk.found
    assert disk.remedy.startswith("12 labs would fit")
    assert len(planned(checkout, text, anyway=True).labs) == 13
    # Disks of labs that stand are on the disk that is asked for room already.
    stand = {"net1.s0", "net1.s1"}
    with pytest.raises(SpecError) as told:
        planned(checkout, text, stand)
    assert [each.path for each in told.value.problems] == ["memory"]


def test_a_class_that_stands_is_refused_nothing(checkout: Path) -> None:
    """It came up, with --anyway maybe: looking after it takes no more."""
    ids = [f"s{number}" for number in range(13)]
    text = "\n".join(["id", *ids, ""])
    assert len(planned(checkout, text, {f"net1.{id_}" for id_ in ids}).labs) == 13
    with pytest.raises(SpecError, match="13 labs of 53248 MiB"):
        planned(checkout, text, {f"net1.{id_}" for id_ in ids[1:]})


def test_a_lab_that_left_still_counts(checkout: Path) -> None:
    text = "id\n" + "".join(f"s{number}\n" for number in range(10))
    planned(checkout, text).keep()
    with pytest.raises(SpecError, match="11 labs of 45056 MiB"):
        planned(checkout, text.replace("s0\n", "new\n"), {"net1.s0"})


def test_virtual_cores_that_crowd_the_real_ones_are_told(checkout: Path) -> None:
    text = "id\n" + "".join(f"s{number}\n" for number in range(9))
    assert planned(checkout, text).bill.warnings() == [
        "18 virtual cores on 4 real ones: guests wait for one another"
    ]


WRONG = {
    "a field nobody knows": ("hypervisors.kvm1.memroy_mib", "1", "memory_mib"),
    "a machine nobody knows": ("hypervisors.kvm2.memory_mib", "1", "did you mean 'kvm1'?"),
    "a group nobody knows": ("hypervisor.kvm1.memory_mib", "1", "did you mean 'hypervisors'?"),
    "inside a value": ("hypervisors.kvm1.cores.x", "1", "holds one value"),
    "the name": ("name.x", "1", "holds one value"),
    "a value of another kind": ("hypervisors.kvm1.cores", "many", "net1.csv:2:lab.hypervisors"),
    "too small": ("hypervisors.kvm1.memory_mib", "16", "net1.csv:2:lab.hypervisors.kvm1.memory"),
    "the network's kind": ("networks.lab.mode", "open", "the same for the whole class"),
    "the host's NIC": ("networks.lab.uplink.nic", "eth0", "the same for the whole class"),
    "a subnet that is none": ("networks.lab.subnet", "10.1.2.3/24", "net1.csv:2:lab.networks.lab"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_override_that_is_none_is_told_with_its_line(name: str, checkout: Path) -> None:
    path, value, words = WRONG[name]
    with pytest.raises(SpecError) as told:
        planned(checkout, f"id,{path}\nana,{value}\n")
    assert "net1.csv:2:" in str(told.value)
    assert words in str(told.value)
    assert not (checkout / ".nestlab" / "classes").exists()


def test_a_student_s_networks_are_closed_unless_the_template_says_otherwise(checkout: Path) -> None:
    file = checkout / "stacks" / "Pulumi.course.yaml"
    more = (
        "subnet: 10.77.0.0/24}\n"
        "      own: {mode: open, subnet: 10.79.0.0/24}\n"
        "      web: {subnet: 10.80.0.0/24, closed: false}"
    )
    file.write_text(file.read_text().replace("subnet: 10.77.0.0/24}", more))
    planned(checkout, "id\nana\n").keep()
    told = lab(checkout, "net1.ana")["networks"]
    assert {name: each.get("closed") for name, each in told.items()} == {
        "lab": True,
        "own": None,
        "web": False,
    }
    inner = lab(checkout, "net1.ana")["hypervisors"]["kvm1"]["networks"]["inner"]
    assert "closed" not in inner


def test_a_subnet_of_a_student_s_own(checkout: Path) -> None:
    text = "id,networks.lab.subnet\nana,10.90.0.0/24\nbob,\n"
    made = planned(checkout, text)
    assert made.register.students["ana"].subnets["lab"] == "10.90.0.0/24"
    with pytest.raises(SpecError, match=r"net1.csv:3: the subnet 10.90.0.0/24 given, but ana has"):
        planned(checkout, text.replace("bob,", "bob,10.90.0.0/24"))


def template(checkout: Path, change: dict[str, Any]) -> None:
    file = checkout / "stacks" / "Pulumi.course.yaml"
    told = yaml.safe_load(file.read_text())
    told["config"]["nestlab:lab"]["hypervisors"]["kvm1"] |= change
    file.write_text(yaml.safe_dump(told))


def test_what_only_one_lab_can_have_is_told(checkout: Path) -> None:
    template(checkout, {"console": {"port": 5950}})
    with pytest.raises(SpecError, match=r"net1.csv:3: the port 5950 given, but ana has it too"):
        planned(checkout, "id\nana\nbob\n")
    own = "id,hypervisors.kvm1.console.port\nana,5950\nbob,5951\n"
    assert len(planned(checkout, own).labs) == 2


def test_ids_that_make_one_name_are_told(checkout: Path) -> None:
    with pytest.raises(SpecError, match="give the student another id"):
        planned(checkout, _same_names(checkout))


def _same_names(checkout: Path) -> str:
    """Student ``a`` with a machine ``b-kvm1`` has a domain as student ``a-b`` with ``kvm1``."""
    file = checkout / "stacks" / "Pulumi.course.yaml"
    told = yaml.safe_load(file.read_text())
    places = told["config"]["nestlab:lab"]["hypervisors"]
    places["b-kvm1"] = {"kind": "kvm", "memory_mib": 2048, "network": "lab"}
    file.write_text(yaml.safe_dump(told))
    return "id\na\na-b\n"


def test_somebody_s_own_stack_file_stays(checkout: Path) -> None:
    own = checkout / "stacks" / "Pulumi.net1.ana.yaml"
    own.write_text("mine")
    with pytest.raises(ui.Problem, match="did not make it"):
        planned(checkout, "id\nana\n").keep()
    assert own.read_text() == "mine"


def test_another_roster_of_the_same_name_is_told(checkout: Path) -> None:
    planned(checkout, "id\nana\n").keep()
    (checkout / "other").mkdir()
    with pytest.raises(ui.Problem, match="--name"):
        planned(checkout, "id\nana\n", {"net1.ana"}, name="other/net1.csv")
    assert planned(checkout, "id\nana\n", name="other/net1.csv").labs


def test_a_register_that_can_t_be_read_is_never_taken_for_empty(checkout: Path) -> None:
    planned(checkout, "id\nana\n").keep()
    file = checkout / ".nestlab" / "classes" / "net1" / "class.json"
    assert file.stat().st_mode & 0o777 == 0o600
    for text in ("", "{}", '{"version": 2, "name": "net1", "students": {}}', "[1]"):
        file.write_text(text)
        with pytest.raises(ui.Problem, match="can't be read"):
            register.read("net1")


def test_words_stay_words_for_the_engine(checkout: Path) -> None:
    """What the engine's reader takes for a number is quoted, as what PyYAML does is."""
    file = checkout / "stacks" / "Pulumi.course.yaml"
    mac = "network: [{network: lab, mac: '52:54:00:12:34:56'}]"
    pinned = "network: lab\n        address: 10.77.0.9"
    file.write_text(file.read_text().replace(pinned, mac))
    planned(checkout, "id\nana\n").keep()
    text = planned(checkout, "id,name\nana,0o17\n").labs[0].text
    assert "'52:54:00:12:34:56'" in text
    told = (checkout / "stacks" / "Pulumi.net1.ana.yaml").read_bytes()
    config = stack_check.read(told, "x")[stack_check.LAB]
    assert config["hypervisors"]["kvm1"]["network"][0]["mac"] == "52:54:00:12:34:56"


def test_secrets_go_to_each_as_they_are_and_none_is_in_the_lab(checkout: Path) -> None:
    file = checkout / "stacks" / "Pulumi.course.yaml"
    file.write_text(
        "encryptionsalt: v1:abc\n" + TEMPLATE + "  nestlab:hostPassword: {secure: v1:x}\n"
    )
    planned(checkout, "id\nana\n").keep()
    told = yaml.safe_load((checkout / "stacks" / "Pulumi.net1.ana.yaml").read_text())
    assert told["encryptionsalt"] == "v1:abc"
    assert told["config"]["nestlab:hostPassword"] == {"secure": "v1:x"}
    file.write_text(TEMPLATE.replace("memory_mib: 4096", "memory_mib: {secure: v1:x}"))
    with pytest.raises(ui.Problem, match="holds secrets"):
        planned(checkout, "id\nana\n")


def test_no_template_of_that_name(checkout: Path) -> None:
    (checkout / "net1.csv").write_text("id\nana\n")
    read = roster.read(checkout / "net1.csv")
    with pytest.raises(ui.Problem, match="did you mean 'course'"):
        planning.planned(read, "cuorse", file="x", standing=set())


CLUSTER = """\
config:
  nestlab:lab:
    name: course
    host:
      kind: proxmox
      endpoint: https://pve.example.test:8006
      nodes:
        big: {memory_mib: 20000, disk_gib: 500, cores: 8}
        small: {memory_mib: 10000, disk_gib: 500, cores: 8}
    media: {ipxe: {path: ipxe.iso}}
    networks: {own: {mode: isolated, subnet: 10.83.0.0/24}}
    guests: {one: {iso: ipxe, memory_mib: 4096, network: own}}
"""


@pytest.fixture
def cluster(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (checkout / "stacks" / "Pulumi.course.yaml").write_text(CLUSTER)
    allow = checkout / "allow.yaml"
    allow.write_text("hosts: [pve.example.test]\nfiles: [/usr]\n")
    allow.chmod(0o600)
    monkeypatch.setenv("NESTLAB_ALLOW", str(allow))
    (checkout / "ipxe.iso").symlink_to("/usr/lib/ipxe/ipxe.iso")
    return checkout


def test_labs_are_spread_over_a_cluster_and_stay(cluster: Path) -> None:
    made = planned(cluster, "id\na1\na2\na3\na4\n")
    made.keep()
    assert sorted(made.bill.placed.values()) == ["big", "big", "big", "small"]
    assert lab(cluster, "net1.a1")["host"]["node"] == made.bill.placed["a1"]
    again = planned(cluster, "id\na4\na3\nnew\na1\n", {f"net1.a{n}" for n in range(1, 5)})
    for id_ in ("a1", "a3", "a4"):
        assert again.bill.placed[id_] == made.bill.placed[id_]


def test_a_full_cluster_says_how_many_would_fit(cluster: Path) -> None:
    text = "id\n" + "".join(f"s{number}\n" for number in range(7))
    with pytest.raises(SpecError, match="6 would fit"):
        planned(cluster, text)


def test_a_lab_with_too_many_cores_has_no_node() -> None:
    nodes = {"one": Totals(10000, 100, 4)}
    assert bill.spread([("a", Totals(10, 1, 5)), ("b", Totals(10, 1, 4))], nodes, {}) == {
        "b": "one"
    }


def test_pools_give_each_subnet_once() -> None:
    pool = Pool(
        IPv4Network("10.0.0.0/22"), [IPv4Network("10.0.1.0/25"), IPv4Network("10.0.1.64/26")]
    )
    assert [str(pool.give(24)) for _ in range(3)] == ["10.0.0.0/24", "10.0.2.0/24", "10.0.3.0/24"]
    assert str(pool.give(25)) == "10.0.1.128/25"
    for prefix in (24, 25, 16):
        with pytest.raises(Full):
            pool.give(prefix)


def test_plans_of_many_take_time_by_their_number(checkout: Path) -> None:
    def took(number: int) -> float:
        text = "id\n" + "".join(f"s{each}\n" for each in range(number))
        began = time.process_time()
        planned(checkout, text, anyway=True)
        return time.process_time() - began

    took(1)
    few, many = (min(took(number) for _ in range(2)) for number in (50, 200))
    assert many < 6 * few, "four times as many"


ODD: list[Any] = [None, 5, "x", [1], {}, {"a": None}, [], True, math.inf]
PATHS = [
    "networks", "networks.lab", "networks.lab.subnet", "networks.new", "hypervisors", "hypervisors.kvm1",
    "hypervisors.kvm1.network", "hypervisors.kvm1.networks.inner.subnet", "hypervisors.kvm1.containers", "guests",
    "guests.g", "host", "host.kind", "media", "boot",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_an_override_that_makes_a_lab_wrong_is_told_whatever_it_is(
    path: str, checkout: Path
) -> None:
    made = Template.read("course")
    may = Allowed.read(checkout, {})
    for value in ODD:
        student = roster.Student("ana", "Ana", "net1.csv:2", {path: value})
        # Refused in words, or read to its end: what it is not is an error of ours.
        with contextlib.suppress(SpecError):
            data = made.for_student(student, "net1-ana", {"lab": "10.112.0.0/24"}, "")
            planning._examined(data, may)
            made.text(data)
