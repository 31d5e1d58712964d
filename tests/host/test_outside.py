"""Programs that are none of nestlab's make labs by its components, on the real libvirt."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import virsh
from tests.support.outside import Outside
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.host
STEADY = "unchanged"
CHANGED = ("created", "updated", "deleted", "replaced")
YAML_S = 1800.0


@pytest.fixture(scope="module", autouse=True)
def _set_up() -> None:
    if shutil.which("virsh") is None or not (paths.LOCAL / "host.json").is_file():
        pytest.skip("needs libvirt and what `make host doctor` found")


def _build(language: str) -> None:
    """Build what runs YAML, if a program needs it: once on a machine; nothing is done where it is there."""
    if language.startswith("yaml"):
        words = [sys.executable, "-m", "toolchain", "toolchain", "--yaml"]
        subprocess.run(words, cwd=paths.ROOT, check=True, timeout=YAML_S)


def steady(made: Outside) -> None:
    """An `up` after an `up` changes nothing."""
    again = made.up()
    assert STEADY in again, again
    assert not any(word in again for word in CHANGED), again


@pytest.fixture
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outside]:
    """A program that makes a guest on a network, in the language that is asked for."""
    _build(request.param)
    made = Outside.make(request.param, tmp_path / "program")
    made.configure(**{"lab-name": made.lab}, subnet="10.171.77.0/24", memory=64)
    try:
        yield made
    finally:
        made.away()


@pytest.mark.parametrize("guest", ["python-guest", "yaml-guest"], indirect=True)
def test_a_guest_on_a_network_lives_through_all_there_is(guest: Outside) -> None:
    said = guest.up()
    outputs, domain = guest.outputs(), f"{guest.lab}-web"
    assert outputs["subnet"] == "10.171.77.0/24", said
    assert outputs["address"] in virsh("net-dhcp-leases", f"{guest.lab}-lan")
    assert outputs["console"].startswith("vnc://")
    assert outputs["password"] == "[secret]"
    assert "password" not in said or "[secret]" in said

    steady(guest)

    guest.configure(memory=96)
    assert "Domain" in guest.up()
    assert f"{96 * 1024} KiB" in virsh("dominfo", domain)

    virsh("destroy", domain)
    seen = guest.preview()
    assert "web-gate" in seen, seen
    assert "`pulumi up` mends it" in seen, seen
    guest.up()
    assert "running" in virsh("domstate", domain)

    guest.configure(memory=8)
    wrong = guest.start("preview")
    # By pieces it is told by whichever of them the engine hears first, with paths from there on.
    assert re.search(
        r"guests\.web\.memory_mib|'web' has a problem.*\n.* memory_mib", wrong.stdout
    ), wrong.stdout
    assert "8 MiB given, but at least 16 MiB is needed" in wrong.stdout
    assert "Traceback" not in wrong.stdout
    guest.configure(memory=96)

    guest.pulumi("destroy", "--yes", "--skip-preview", "--suppress-progress")
    assert guest.left() == []


SECRET = "well-hidden"


def config_of(made: Outside) -> str:
    """What LXC has of the container, as its host says."""
    return made.inside("a", "kvm1", "cat", "/var/lib/lxc/box/nestlab.conf")


def greeting_of(made: Outside) -> str:
    return made.inside("a", "kvm1", "lxc-attach", "-n", "box", "--", "cat", "/greeting").strip()


def test_a_host_inside_with_a_container_and_another_lab_in_one_stack(tmp_path: Path) -> None:
    made = Outside.make("python-nested", tmp_path / "program")
    made.configure(**{"lab-name": made.lab}, memory=64)
    for first, network in enumerate(("lan", "inner", "other"), 171):
        made.configure(**{f"{network}-subnet": f"10.{first}.78.0/24"})
    made.pulumi("config", "set", "--secret", "greeting", f"{SECRET}-1")
    try:
        said = made.up()
        outputs = made.outputs()
        assert outputs["key"] == "[secret]"
        assert outputs["host"] in virsh("net-dhcp-leases", f"{made.lab}-a-lan")
        assert "yes" in virsh("net-info", f"{made.lab}-b-lan")
        assert outputs["box"] in config_of(made)
        assert greeting_of(made) == f"{SECRET}-1"
        steady(made)

        # One boot serves what follows: a host that is edited inside stays up.
        booted = virsh("domid", f"{made.lab}-a-kvm1")
        made.configure(memory=96)
        made.pulumi("config", "set", "--secret", "greeting", f"{SECRET}-2")
        said += made.preview() + made.up()
        assert "lxc.cgroup2.memory.max = 96M" in config_of(made)
        assert greeting_of(made) == f"{SECRET}-2"
        assert SECRET not in said, "a secret word is in nobody's terminal"
        assert SECRET not in made.pulumi("stack", "export"), "nor in the state in clear"

        made.inside("a", "kvm1", "lxc-stop", "-n", "box", "-k")
        virsh("net-destroy", f"{made.lab}-b-lan")
        seen = made.preview()
        assert "container box is stopped; `pulumi up` mends it" in seen, seen
        assert f"network {made.lab}-b-lan is down; `pulumi up` mends it" in seen, seen
        made.up()
        assert greeting_of(made) == f"{SECRET}-2"
        assert "yes" in virsh("net-info", f"{made.lab}-b-lan")
        assert virsh("domid", f"{made.lab}-a-kvm1") == booted
        steady(made)

        virsh("destroy", f"{made.lab}-a-kvm1")
        assert "`pulumi up` mends it" in made.preview()
        made.up()
        assert "running" in virsh("domstate", f"{made.lab}-a-kvm1")
        assert greeting_of(made) == f"{SECRET}-2"

        made.pulumi("destroy", "--yes", "--skip-preview", "--suppress-progress")
        assert made.left() == []
    finally:
        made.away()
