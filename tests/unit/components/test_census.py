"""The census: one look at a whole place, on a nested host by a script that real `sh` runs here."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from components.kinds.kvm.container import configuration
from components.kinds.libvirt import census
from components.kinds.libvirt.census import Container
from components.kinds.libvirt.virsh import Virsh, VirshError
from components.reach.shell import Result
from tests.support.libvirtd import FakeLibvirt, LocalLibvirt
from tests.unit.kinds.test_kvm import wanted

if TYPE_CHECKING:
    from pathlib import Path

URI = "qemu:///system"


def told(root: Path) -> census.Census:
    """Run the script with ``root`` in place of the machine's own files."""
    script = census.SCRIPT
    for folder in (
        "/etc/libvirt/",
        "/run/libvirt/",
        "/var/lib/lxc/*/nestlab",
        "/var/lib/libvirt/dnsmasq/",
        "/sys/class/net/",
        "/proc/net/unix",
    ):
        assert folder in script, f"the script does not look into {folder} any more"
        script = script.replace(f" {folder}", f" {root}{folder}")
    path = {"PATH": f"{root}/bin:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", script], env=path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    return census.read(done.stdout)


def put(root: Path, path: str, text: str = "") -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_place_with_nothing_has_nothing(tmp_path: Path) -> None:
    assert told(tmp_path) == census.Census()


def test_a_pool_that_libvirt_started_at_a_boot_is_asked_for(tmp_path: Path) -> None:
    """It leaves no file that says so (libvirt 9); one that was started by hand does."""
    for name in ("booted", "byhand", "off"):
        put(tmp_path, f"/etc/libvirt/storage/{name}.xml", "<pool/>")
    put(tmp_path, "/run/libvirt/storage/byhand.xml", "<pool/>")
    put(tmp_path, "/bin/virsh", "#!/bin/sh\necho ' booted  '\necho ' byhand  '\necho\n")
    (tmp_path / "bin" / "virsh").chmod(0o755)
    assert told(tmp_path).pools == {"booted": True, "byhand": True, "off": False}
    (tmp_path / "etc" / "libvirt" / "storage" / "booted.xml").unlink()
    (tmp_path / "etc" / "libvirt" / "storage" / "off.xml").unlink()
    (tmp_path / "bin" / "virsh").unlink()
    assert told(tmp_path).pools == {"byhand": True}, "nobody is asked for nothing"


def test_domains_and_networks_are_read_from_libvirts_own_files(tmp_path: Path) -> None:
    for name in ("web", "db", "off"):
        put(tmp_path, f"/etc/libvirt/qemu/{name}.xml", "<domain/>")
    head = "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE\n-->\n"
    status = f"{head}<domstatus state='{{}}' reason='booted' pid='5'>\n  <x state='no'/>\n"
    put(tmp_path, "/run/libvirt/qemu/web.xml", status.format("running"))
    put(tmp_path, "/run/libvirt/qemu/db.xml", status.format("paused"))
    put(tmp_path, "/etc/libvirt/qemu/networks/lab.xml")
    put(tmp_path, "/etc/libvirt/qemu/networks/inner.xml")
    put(tmp_path, "/run/libvirt/network/lab.xml")
    seen = told(tmp_path)
    assert seen.domains == {"web": "running", "db": "paused", "off": "shut off"}
    assert seen.networks == {"lab": True, "inner": False}


@pytest.mark.parametrize(
    "command", [[], ["/bin/init"], ["/bin/sh", "-c", r"printf 'a\n b\\' '  '"]]
)
def test_containers_are_read_with_their_settings_unchanged(
    command: list[str], tmp_path: Path
) -> None:
    conf = configuration(wanted(command=command))
    put(tmp_path, "/var/lib/lxc/box/nestlab.conf", conf)
    put(tmp_path, "/var/lib/lxc/tin/nestlab.conf", "lxc.start.auto = 1\n")
    put(tmp_path, "/var/lib/lxc/stranger/config", "not ours\n")
    sockets = "Num RefCount Protocol\n0: 2 0 0 1 01 77 @/var/lib/lxc/box/command\n"
    put(tmp_path, "/proc/net/unix", sockets + "0: 2 0 0 1 01 78 @/var/lib/lxc/stranger/command\n")
    assert told(tmp_path).containers == {
        "box": Container(conf.strip(), runs=True),
        "tin": Container("lxc.start.auto = 1", runs=False),
    }, "every look would find a change"


@pytest.mark.parametrize("kind", [FakeLibvirt, LocalLibvirt])
def test_both_ways_of_looking_see_the_same(kind: type[FakeLibvirt]) -> None:
    place = kind()
    place.domain("web", "shut off")
    place.domain("local-kvm1")
    place.network("lab", "inactive")
    place.network("local-inner")
    seen = census.take(Virsh(place, URI))
    assert seen.domains == {"web": "shut off", "local-kvm1": "running"}
    assert seen.networks == {"lab": False, "local-inner": True}


def test_a_look_is_shared_for_a_moment_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    place = FakeLibvirt()
    at = Virsh(place, URI)
    census.census(at)
    census.census(at)
    assert len(place.said) == 1
    monkeypatch.setattr(census, "FRESH_S", -1.0)
    census.census(at)
    assert len(place.said) == 2


def test_two_places_are_never_taken_for_each_other() -> None:
    one, other = FakeLibvirt("kvm1"), FakeLibvirt("kvm2")
    one.domain("web")
    assert census.census(Virsh(one, URI)).domains
    assert not census.census(Virsh(other, URI)).domains


def test_a_look_that_fails_is_not_kept() -> None:
    place = FakeLibvirt()
    answers = iter([Result(127, "", "sh: not found"), Result(0, "domain web\n", "")])
    place.run = lambda *_, **__: next(answers)  # type: ignore[method-assign]
    with pytest.raises(VirshError, match="looking at this machine: sh: not found"):
        census.census(Virsh(place, URI))
    assert census.census(Virsh(place, URI)).domains == {"web": "shut off"}


def test_leases_and_plugs_are_read_too(tmp_path: Path) -> None:
    status = """[
  {
    "ip-address": "10.78.0.40",
    "mac-address": "52:54:00:55:d7:b1",
    "client-id": "01:52:54:00:55:d7:b1",
    "expiry-time": 1795000000
  },
  {
    "ip-address": "10.78.0.41",
    "mac-address": "52:54:00:55:d7:b2",
    "hostname": "web",
    "expiry-time": 1795000000
  },
  {
    "ip-address": "10.78.0.42",
    "mac-address": "52:54:00:55:d7:b2",
    "expiry-time": 1795000000
  }
]
"""
    put(tmp_path, "/var/lib/libvirt/dnsmasq/nl0.status", status)
    put(tmp_path, "/sys/class/net/nl0/brif/nlcfeed")
    seen = told(tmp_path)
    assert seen.leases == {
        "52:54:00:55:d7:b1": ("10.78.0.40",),
        "52:54:00:55:d7:b2": ("10.78.0.41", "10.78.0.42"),
    }
    assert seen.ports == {"nlcfeed"}
