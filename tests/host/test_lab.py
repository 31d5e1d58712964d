"""The embedded lab on this machine's own libvirt, from nothing to nothing.

A failure here means that a student's first `make up` fails, or that a second command after it lies.
The tests of this module share one lab and run in the order of the file.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from components.reach.picture import PNG
from tests.support import account
from tests.support.checkout import virsh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.checkout import Checkout

pytestmark = pytest.mark.host


def changes(said: str) -> dict[str, int]:
    """Return pulumi's own count of steps: {"unchanged": 28, "updated": 1, ...}."""
    words = r"created|updated|replaced|deleted|unchanged|to create|to update|to replace|to delete"
    return {word: int(number) for number, word in re.findall(rf"(\d+) ({words})", said)}


STRANGERS = {
    "": "<domain type='qemu'><name>{}</name><memory>1024</memory><os><type>hvm</type></os></domain>",
    "net-": "<network><name>{}</name></network>",
    "pool-": "<pool type='dir'><name>{}</name><target><path>{}</path></target></pool>",
}
"""Somebody else's domain, network and pool, by what virsh's commands for each begin with."""


@pytest.fixture(scope="module", autouse=True)
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Somebody else's things on this machine, to compare with afterwards: those of other tests come and go."""
    folder = tmp_path_factory.mktemp("strangers")
    name = f"own-{uuid.uuid4().hex[:8]}"
    for kind, xml in STRANGERS.items():
        (folder / "xml").write_text(xml.format(name, folder))
        virsh(f"{kind}define", str(folder / "xml"))
    made = {kind: virsh(f"{kind}dumpxml", name) for kind in STRANGERS}
    assert all(made.values()), made
    try:
        yield made
    finally:
        for kind in STRANGERS:
            virsh(f"{kind}undefine", name)


def nothing_to_do(checkout: Checkout) -> None:
    """An up after an up changes nothing."""
    said = checkout.up()
    assert set(changes(said)) == {"unchanged"}, said


def packet(checkout: Checkout) -> str:
    """Send a packet from the container through the inner network; return what ping said of it."""
    gateway = checkout.sheet()["box"]["address"].rpartition(".")[0] + ".1"
    ping = ("ping", "-c1", "-W5", gateway)
    return checkout.run("./nestlab", "enter", "box", "--", *ping).said


def test_preview_before_anything_exists_shows_both_layers(checkout: Checkout) -> None:
    done = checkout.make_target("toolchain")
    assert done.code == 0, done.said
    for step in ("host", "image", "doctor"):
        done = checkout.make_target(step)
        assert done.code == 0, done.said
    assert checkout.pulumi("stack", "init", "local").code == 0
    said = checkout.preview()
    for name in ("kvm1-domain", "kvm1-inner-network", "kvm1-ipxe-domain", "kvm1-box-container"):
        assert re.search(rf"\+ .* {name} ", said), said
    assert set(changes(said)) == {"to create"}, said


def test_make_up_brings_a_guest_and_a_container_up_inside_a_nested_host(checkout: Checkout) -> None:
    done = checkout.make_target("up")
    assert done.code == 0, done.said
    assert "make enter NAME=kvm1" in done.said, "people are told how to get in"
    guests = checkout.inside("virsh", "-q", "list", "--name").said.split()
    assert guests == ["ipxe"]
    xml = checkout.inside("virsh", "dumpxml", "ipxe").said
    assert "<domain type='kvm'" in xml, "the inner guest runs with KVM, not emulated twice"
    assert "host-passthrough" in xml
    address = checkout.sheet()["ipxe"]["address"]
    leases = checkout.inside("virsh", "-q", "net-dhcp-leases", "inner").said
    assert address in leases, "the planned address was really leased"
    answer = checkout.run("./nestlab", "enter", "box", "--", "cat", "/proc/1/comm")
    assert answer.said.strip() == "init", "the container answers a command"
    assert "1 packets received" in packet(checkout), "the container has its network"
    for name in ("kvm1", "ipxe"):
        shown = checkout.run("./nestlab", "screen", name, "--to", f"{name}.png")
        assert shown.code == 0, shown.said
        assert (checkout.root / f"{name}.png").read_bytes().startswith(PNG), "at both layers"
    refused = checkout.run("./nestlab", "screen", "box")
    assert refused.code == 1
    assert "no picture of box" in refused.said


def test_an_emulated_host_does_without_nested_paging(checkout: Checkout) -> None:
    """With it, a guest that polls its network card hangs within minutes and then takes the host along."""
    facts = json.loads((checkout.root / ".nestlab" / "host.json").read_text())
    told = checkout.inside("cat", "/sys/module/kvm_amd/parameters/npt")
    if facts["accelerator"] == "tcg":
        assert told.said.strip() == "N", told.said
    else:
        assert told.said.strip() != "N", "real nested paging is sound, and far faster"


def test_a_nested_host_that_is_stuck_starts_again(checkout: Checkout) -> None:
    watched = ("kernel.softlockup_panic", "kernel.watchdog_thresh", "kernel.panic")
    assert checkout.inside("sysctl", "-n", *watched).said.split() == ["1", "30", "5"]


REWRITTEN = r"""
set -e
[ -e /sys/kernel/tracing/trace ] || mount -t tracefs tracefs /sys/kernel/tracing
cd /sys/kernel/tracing
# Noting names of processes would switch tracepoints of the scheduler.
echo 0 >options/record-cmd
echo 'p:flip __jump_label_update key=%di:x64' >kprobe_events
echo 1 >events/kprobes/flip/enable
{ lxc-stop -n box -t 1; lxc-start -n box; virsh -q destroy ipxe; virsh -q start ipxe; } >&2
sleep 1
echo 0 >events/kprobes/flip/enable
sed -n 's/.*key=0x//p' trace | sort -u | while read -r key; do grep -i "^$key " /proc/kallsyms || echo "$key ? ?"; done
echo >kprobe_events
echo watched
"""
"""What of its code the kernel rewrites, by name, while the guest and the container go and come back."""


def test_guests_that_come_and_go_rewrite_no_code_of_an_emulated_host(checkout: Checkout) -> None:
    """QEMU before 8.1 may go on emulating the old code, and the whole host hangs."""
    facts = json.loads((checkout.root / ".nestlab" / "host.json").read_text())
    told = checkout.inside("sh", "-c", REWRITTEN).said.split("\n")
    assert "watched" in told, told
    if facts["accelerator"] == "tcg":
        # What is done once in a lifetime (`DO_ONCE`) runs nowhere else.
        assert not [line for line in told if " " in line and "___once_key" not in line], told
        assert checkout.inside("cat", "/sys/fs/cgroup/nestlab/held/cpu.max").code == 0


def test_the_sheet_says_where_everything_is_and_no_secret(checkout: Checkout) -> None:
    shown = checkout.make_target("show").said
    for name in ("kvm1", "ipxe", "box"):
        assert f"NAME={name}" in shown
    open_ = checkout.make_target("show", "SECRETS=1").said
    row = next(line for line in open_.splitlines() if " ipxe " in f" {line} ")
    password = row.split()[-1]
    assert len(password) == 8
    assert password not in shown, "passwords are shown when asked for"
    mark = b"b3BlbnNzaC1rZXktdjEA"  # how a private key begins in OpenSSH's format
    files = [path for path in (checkout.root / ".nestlab").rglob("*") if path.is_file()]
    secret = [path for path in files if mark in path.read_bytes()]
    keys = checkout.root / ".nestlab" / "keys"
    assert secret, "the lab's key is where libvirt's clients look for it"
    assert all(keys in path.parents for path in secret), "and nowhere else, the state included"
    assert all(path.stat().st_mode & 0o077 == 0 for path in secret)


def test_another_account_gets_into_nothing_of_the_lab(checkout: Checkout) -> None:
    """Seeds hold keys, discs passwords, disks everything: each door that root finds is tried."""
    doors = account.of_lab(checkout)
    assert {path.rpartition(".")[2] for path in doors.files} >= {"iso", "qcow2", "log"}, doors
    assert len(doors.files) > 50, doors
    disks = list(Path("/var/lib/libvirt/nestlab").glob(f"{checkout.lab}-*/*"))
    assert {f"{checkout.lab}-kvm1-seed.img", f"{checkout.lab}-kvm1.qcow2"} <= {
        disk.name for disk in disks
    }
    assert [disk for disk in disks if disk.stat().st_mode & 0o077] == []
    assert {port for _, port in doors.ports} & set(range(5900, 6000)), (
        "there is a screen to look at"
    )
    inside = checkout.inside("ss", "-Hltn").said.splitlines()
    open_inside = {line.split()[3] for line in inside if not line.split()[3].startswith("127.")}
    assert {each.rpartition(":")[2] for each in open_inside} <= {"22", "53"}, open_inside
    nested = checkout.sheet()["kvm1"]["address"]
    doors.ports |= {(nested, port) for port in (22, 53, 5900, 16509, 16514)}
    with account.another() as name:
        got = account.opened(name, doors)
        known = account.Doors(doors.namespace, files={"/etc/passwd"})
        assert account.opened(name, known, meant=()), "it can open what it may"
    assert not got, "\n".join(got)


def test_a_second_up_and_a_refresh_change_nothing(checkout: Checkout) -> None:
    nothing_to_do(checkout)
    said = checkout.pulumi("refresh", "--yes", "--skip-preview", "--suppress-progress")
    assert said.code == 0, said.said
    assert set(changes(said.said)) == {"unchanged"}, said.said
    assert set(changes(checkout.up())) == {"unchanged"}, "and nothing after a refresh either"


def test_the_policy_pack_passes_and_stops_a_cpu_that_cannot_nest(checkout: Checkout) -> None:
    done = checkout.pulumi("preview", "--policy-pack", "policies")
    assert done.code == 0, done.said


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (("destroy", "{lab}-kvm1"), "shut off"),
        (("reset", "{lab}-kvm1"), ""),
        (("undefine-running", "{lab}-kvm1"), "not defined any more"),
        (("net-destroy", "{lab}-lab"), "is down"),
        (("net-undefine", "{lab}-lab"), "not defined any more"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_harm_to_the_outer_layer_is_seen_in_preview_and_mended_by_up(
    checkout: Checkout, harm: tuple[str, str], said: str
) -> None:
    command, name = harm[0], harm[1].format(lab=checkout.lab)
    if command == "undefine-running":
        virsh("destroy", name)
        virsh("undefine", name)
    elif command == "net-undefine":
        virsh("net-destroy", name)
        virsh("net-undefine", name)
    else:
        virsh(command, name)
    seen = checkout.preview()
    assert said in seen, seen
    if said:
        assert "to update" in seen, seen
    checkout.up()
    assert checkout.inside("virsh", "-q", "list", "--name").said.split() == ["ipxe"]
    assert checkout.inside("lxc-info", "-n", "box", "-sH").said.strip() == "RUNNING"
    assert "1 packets received" in packet(checkout), "mended is what carries packets"
    nothing_to_do(checkout)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (("virsh", "destroy", "ipxe"), "shut off"),
        (("sh", "-c", "virsh destroy ipxe; virsh undefine ipxe"), "not defined any more"),
        (("virsh", "net-destroy", "inner"), "is down"),
        (("lxc-stop", "-n", "box", "-k"), "stopped"),
        (("lxc-destroy", "-n", "box", "-f"), "not there any more"),
    ],
    ids=["guest off", "guest undefined", "network down", "container off", "container gone"],
)
def test_harm_inside_the_nested_host_is_seen_in_preview_and_mended_by_up(
    checkout: Checkout, harm: tuple[str, ...], said: str
) -> None:
    checkout.inside(*harm)
    seen = checkout.preview()
    assert said in seen, seen
    checkout.up()
    assert checkout.inside("virsh", "-q", "list", "--name").said.split() == ["ipxe"]
    assert checkout.inside("virsh", "-q", "net-list", "--name").said.split() == ["inner"]
    assert checkout.inside("lxc-info", "-n", "box", "-sH").said.strip() == "RUNNING"
    assert "1 packets received" in packet(checkout), "mended is what carries packets"
    nothing_to_do(checkout)


def test_connections_cut_in_the_middle_are_told_and_the_next_up_mends(checkout: Checkout) -> None:
    """All of the nested host's SSH sessions end while a guest is being made in it."""
    whole = checkout.settings.read_text()

    def add(lab: dict[str, Any]) -> None:
        guest = {"iso": "ipxe", "memory_mib": 128, "network": "inner", "ready": {"reset_s": 60}}
        lab["hypervisors"]["kvm1"]["guests"]["cut"] = guest

    checkout.edit(add)
    output = checkout.root / "cut.log"
    script = ". .nestlab/env.sh && exec pulumi up --yes --skip-preview --non-interactive"
    running = checkout.start(["bash", "-c", script], output)
    while b"kvm1-cut-domain creating" not in output.read_bytes() and running.poll() is None:
        time.sleep(0.05)
    # The session that does it ends with the others.
    checkout.inside("sh", "-c", "busybox pkill -f '^sshd: .*@'")
    code = running.wait(300)
    said = output.read_text(errors="replace")
    assert code == 0 or "kvm1" in said.partition("Diagnostics:")[2], said
    assert "Traceback" not in said, said
    checkout.up()
    nothing_to_do(checkout)
    assert set(checkout.inside("virsh", "-q", "list", "--name").said.split()) == {"ipxe", "cut"}
    assert "1 packets received" in packet(checkout)
    checkout.settings.write_text(whole)
    checkout.up()


@pytest.mark.soak
def test_a_nested_host_that_runs_and_answers_nobody_is_reset_by_up(checkout: Checkout) -> None:
    checkout.inside("sh", "-c", "(sleep 1; ip link set eth0 down) >/dev/null 2>&1 &")
    said = checkout.up()
    assert "it was reset" in said
    assert "1 packets received" in packet(checkout)
    nothing_to_do(checkout)


def test_a_clock_that_jumps_an_hour_changes_nothing(checkout: Checkout) -> None:
    """Leases end, certificates and timers age: of the nested host, and of this machine's commands."""
    jumped = checkout.inside("sh", "-c", "date -s @$(($(date +%s) + 3660)) && date +%s").said
    assert jumped.splitlines()[-1].isdigit(), jumped
    assert set(changes(checkout.up())) == {"unchanged"}
    assert "1 packets received" in packet(checkout)
    back = checkout.inside("sh", "-c", "date -s @$(($(date +%s) - 7320)) && date +%s").said
    assert back.splitlines()[-1].isdigit(), back
    checkout.inside("virsh", "destroy", "ipxe")
    checkout.up()
    assert set(changes(checkout.up())) == {"unchanged"}
    assert "1 packets received" in packet(checkout)


def test_a_third_inner_guest_changes_just_that(checkout: Checkout) -> None:
    def add(lab: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
        lab["hypervisors"]["kvm1"]["guests"]["second"] = {
            "iso": "ipxe",
            "memory_mib": 128,
            "network": "inner",
            "ready": {"reset_s": 60},
        }

    checkout.edit(add)
    seen = checkout.preview()
    assert changes(seen).get("to replace", 0) == 0, seen
    updated = set(re.findall(r"~ +pulumi\S+ (\S+) update", seen))
    assert updated == {"kvm1-inner-gate", "kvm1-pool-gate"}, "its reservation, and its name"
    checkout.up()
    assert set(checkout.inside("virsh", "-q", "list", "--name").said.split()) == {"ipxe", "second"}


def test_more_memory_and_another_nic_replace_the_guest_and_nothing_else(checkout: Checkout) -> None:
    for field, value in (("memory_mib", 192), ("nic_model", "e1000")):

        def change(lab: dict[str, object], field: str = field, value: object = value) -> None:
            guests = lab["hypervisors"]["kvm1"]["guests"]  # type: ignore[index]
            guests["second"][field] = value

        checkout.edit(change)
        seen = checkout.preview()
        assert re.search(r"kvm1-second-domain replace", seen), seen
        assert changes(seen)["to replace"] == 1, seen
        checkout.up()
        nothing_to_do(checkout)
    xml = checkout.inside("virsh", "dumpxml", "second").said
    assert "<model type='e1000'/>" in xml
    assert "196608</memory>" in xml


def test_preview_names_what_a_change_of_the_nested_host_costs(checkout: Checkout) -> None:
    """Memory costs a boot, and the disk costs all that is on it; preview only, nothing is done."""
    whole = checkout.settings.read_text()

    def change(lab: dict[str, Any], field: str, value: int) -> None:
        lab["hypervisors"]["kvm1"][field] = value

    inside = ("kvm1-inner-network", "kvm1-ipxe-domain", "kvm1-box-container", "kvm1-pool")
    for field, value, lost in (("memory_mib", 4608, ()), ("disk_gib", 10, inside)):
        checkout.edit(lambda lab, f=field, v=value: change(lab, f, v))
        seen = checkout.preview()
        checkout.settings.write_text(whole)
        replaced = set(re.findall(r"\+- \S+ (\S+) replace", seen))
        assert "kvm1-domain" in replaced, seen
        assert set(lost) <= replaced, seen
        assert lost or replaced == {"kvm1-domain"}, seen


def test_up_takes_nothing_away_unasked(checkout: Checkout) -> None:
    """A changed golden image changes nothing; a changed disk is done only on a word."""
    facts = checkout.root / ".nestlab" / "golden.json"
    image, whole = facts.read_text(), checkout.settings.read_text()
    now = json.loads(image)["hash"]
    facts.write_text(image.replace(now, "0123456789ab"))
    seen = checkout.preview()
    assert set(changes(seen)) == {"unchanged"}, seen
    facts.write_text(image)

    marked = checkout.inside("sh", "-c", "echo mine >/root/mine; uptime -s").said

    def bigger(lab: dict[str, Any]) -> None:
        lab["hypervisors"]["kvm1"]["disk_gib"] = 10

    checkout.edit(bigger)
    done = checkout.make_target("up")
    assert done.code != 0
    assert "kvm1: made anew, and what is in it is lost (size)" in done.said
    assert "ipxe: " in done.said, "what is in it is named"
    assert "nothing was changed" in done.said
    assert "LOSE=1" in done.said
    assert checkout.inside("sh", "-c", "cat /root/mine; uptime -s").said == f"mine\n{marked}"
    checkout.settings.write_text(whole)


def test_down_takes_seconds_and_leaves_nothing(
    checkout: Checkout, strangers: dict[str, str]
) -> None:
    checkout.down()
    assert checkout.left() == []
    [name] = re.findall("<name>(own-.*)</name>", strangers[""])
    after = {kind: virsh(f"{kind}dumpxml", name) for kind in strangers}
    assert after == strangers, "what was there before is there still"
    again = checkout.make_target("down")
    assert again.code == 0, "there is nothing to take away, and that is well"
