"""The golden images: what makes one another one, what its making refuses, and how libvirt gets it.

When these fail, labs start from a stale or half-uploaded image, or `make clean` takes the disk
away under somebody's machine. Whether the image boots is proved by its own making and the host tier.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5
from xml.etree import ElementTree as ET

import pytest
from typing_extensions import override

from components.findings import GoldenImage
from toolchain import clean
from toolchain.bootstrap import paths, run, ui
from toolchain.image import disk, golden, image
from toolchain.machine import host
from toolchain.machine.system import Result, System

if TYPE_CHECKING:
    from collections.abc import Sequence

HASH = "0123456789ab"
WHOLE = {f"{HASH}.qcow2", f"{HASH}.vmlinuz", f"{HASH}.initrd", f"{HASH}.whole"}


@dataclass
class Pool:
    place: str
    running: bool = True
    autostart: bool = False


def uuid_of(name: str) -> str:
    return str(uuid5(NAMESPACE_OID, name))


@dataclass
class FakeLibvirt(System):
    """virsh before a libvirt of pools, of folders with volumes, and of domains."""

    up: bool = True
    pools: dict[str, Pool] = field(default_factory=dict)
    folders: dict[str, dict[str, str]] = field(default_factory=dict)
    """Folder -> volume -> its XML; folders outlive the pools that show them."""
    domains: dict[str, str] = field(default_factory=dict)
    fails: str = ""
    """Beginning of the command that libvirt refuses."""
    changes: list[str] = field(default_factory=list)

    @override
    def run(self, argv: Sequence[str], *, timeout_s: float = 30, stdin: str = "") -> Result:
        assert list(argv[:4]) == ["virsh", "-q", "-c", "qemu:///system"], f"unexpected: {argv}"
        if not self.up:
            return Result(1, err="error: failed to connect to the hypervisor")
        answer = Result(0)
        for command in argv[4].split("; "):
            if self.fails and command.startswith(self.fails):
                return Result(1, err="error: no space left on device")
            answer = self.answer(shlex.split(command), stdin)
        return answer

    def answer(self, words: list[str], stdin: str) -> Result:
        match words:
            case ["pool-list" | "list", *_]:
                both = "--uuid" in words
                rows = (f"{uuid_of(name)} {name}" if both else name for name in self.listed(words))
                # Padded, as virsh-pool.c has it.
                return Result(0, "".join(f"{row:<20}\n" for row in rows))
            case ["dumpxml", uuid]:
                return Result(0, next(x for n, x in self.domains.items() if uuid_of(n) == uuid))
            case ["vol-dumpxml", "--vol", volume, "--pool", pool]:
                return Result(0, self.volumes(self.named(pool))[volume])
            case ["pool-refresh" | "vol-list" | "pool-dumpxml" as verb, pool]:
                return self.shown(verb, pool)
            case ["pool-delete", pool] if self.volumes(pool):
                return Result(1, err="error: failed to remove pool: Directory not empty")
            case _:
                self.changes.append(" ".join(words))
                self.change_pool(*words) if words[0].startswith("pool-") else self.change_volume(
                    words, stdin
                )
                return Result(0)

    def listed(self, words: list[str]) -> list[str]:
        words = [word for word in words if word != "--uuid"]
        if words == ["list", "--all", "--name"]:
            return list(self.domains)
        assert words in (["pool-list", "--name"], ["pool-list", "--all", "--name"]), words
        return [name for name, pool in self.pools.items() if pool.running or "--all" in words]

    def named(self, pool: str) -> str:
        return next((name for name in self.pools if uuid_of(name) == pool), pool)

    def shown(self, verb: str, name: str) -> Result:
        name = self.named(name)
        pool = self.pools.get(name)
        if pool is None or not (pool.running or verb == "pool-dumpxml"):
            return Result(1, err=f"error: no active pool '{name}'")
        if verb == "pool-dumpxml":
            return Result(0, f"<pool><target><path>{pool.place}</path></target></pool>")
        lines = "".join(f" {volume}   {pool.place}/{volume}\n" for volume in self.volumes(name))
        return Result(0, lines if verb == "vol-list" else "")

    def volumes(self, pool: str) -> dict[str, str]:
        return self.folders[self.pools[pool].place]

    def change_pool(self, verb: str, name: str, *rest: str) -> None:
        match verb:
            case "pool-define-as":
                self.pools[name] = Pool(rest[-1], running=False)
            case "pool-build":
                self.folders.setdefault(self.pools[name].place, {})
            case "pool-start" | "pool-destroy":
                self.pools[name].running = verb == "pool-start"
            case "pool-autostart":
                self.pools[name].autostart = True
            case "pool-delete":
                assert self.folders.pop(self.pools[name].place) == {}, "the folder is not empty"
            case "pool-undefine":
                del self.pools[name]
            case _:
                pytest.fail(f"unexpected: virsh {verb}")

    def change_volume(self, words: list[str], stdin: str) -> None:
        match words:
            case ["vol-create", pool, "/dev/stdin"]:
                volume = ET.fromstring(stdin).findtext("name") or ""  # noqa: S314 - our own words
                assert volume not in self.volumes(pool), f"volume {volume} is there already"
                self.volumes(pool)[volume] = stdin
            case ["vol-delete", volume, pool]:
                del self.volumes(pool)[volume]
            case ["vol-upload", volume, file, "--pool", pool]:
                assert volume in self.volumes(pool)
                assert Path(file).is_file()
            case _:
                pytest.fail(f"unexpected: virsh {words}")

    @property
    def images(self) -> set[str]:
        return set(self.folders.get(str(golden.PLACE), {}))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this machine's cache nor this checkout's folder is touched."""
    monkeypatch.setenv("NESTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "LOCAL", tmp_path / "local")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An image in the cache, in a folder whose name has a blank."""
    folder = tmp_path / "my images" / HASH
    folder.mkdir(parents=True)
    for name in ("root.qcow2", "vmlinuz", "initrd"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def alone(made: Path) -> Path:
    """An image whose disk boots by itself."""
    for name in ("vmlinuz", "initrd"):
        (made / name).unlink()
    return made


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the image's files that a test may change."""
    copy = tmp_path / "sources"
    shutil.copytree(image.SOURCES, copy)
    monkeypatch.setattr(image, "SOURCES", copy)
    return copy


# What makes another image


@pytest.mark.parametrize(
    ("name", "others"),
    [
        *((f"common/{name}", {"kvm", "xen"}) for name in ("packages", "excluded", "customize")),
        ("common/initrd-init", {"kvm", "xen"}),
        ("common/root/usr/lib/nestlab/seed", {"kvm", "xen"}),
        *((f"kvm/{name}", {"kvm"}) for name in ("packages", "variant", "busybox-template.sed")),
        ("kvm/root/usr/lib/nestlab/warm", {"kvm"}),
        *((f"xen/{name}", {"xen"}) for name in ("packages", "variant", "prove")),
        ("xen/root/boot/grub/grub.cfg", {"xen"}),
    ],
)
def test_a_change_of_a_file_makes_another_image_of_each_variant_it_is_part_of(
    sources: Path, name: str, others: set[str]
) -> None:
    before = {variant: image.digest(variant, "bookworm") for variant in image.VARIANTS}
    with (sources / name).open("a") as file:
        file.write("\n# another\n")
    assert {
        variant
        for variant in image.VARIANTS
        if image.digest(variant, "bookworm") != before[variant]
    } == others


def test_a_new_file_and_a_renamed_one_make_another_image(sources: Path) -> None:
    seen = {image.digest("kvm", "bookworm")}
    (sources / "kvm/root/etc/new").touch()
    seen.add(image.digest("kvm", "bookworm"))
    (sources / "kvm/root/etc/new").rename(sources / "kvm/root/etc/newer")
    seen.add(image.digest("kvm", "bookworm"))
    assert len(seen) == 3


def test_recipe_suite_size_and_variant_make_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {image.digest(*made) for made in (("kvm", "bookworm"), ("kvm", "trixie"))}
    seen.add(image.digest("xen", "bookworm"))
    for module, name in ((image, "RECIPE"), (disk, "ROOT_GIB")):
        monkeypatch.setattr(module, name, getattr(module, name) + 1)
        seen.add(image.digest("kvm", "bookworm"))
    assert len(seen) == 5


def test_the_same_inputs_make_the_same_image_wherever_the_checkout_is(sources: Path) -> None:
    assert sources != Path(image.__file__).parent
    copied = image.digest("kvm", "bookworm")
    assert copied == image.digest("kvm", "bookworm")
    (sources / "kvm/packages").touch()
    assert image.digest("kvm", "bookworm") == copied, "a file's time is no part of the image"


@pytest.mark.parametrize(
    ("told", "suite"),
    [
        ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', "bookworm"),
        ('ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n', "trixie"),
        ('ID=debian\nVERSION_ID="11"\nVERSION_CODENAME=bullseye\n', "bookworm"),
        ("ID=debian\nVERSION_CODENAME=forky\n", "bookworm"),
        ('ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n', "bookworm"),
        (None, "bookworm"),
    ],
)
def test_the_suite_is_this_machines_own_when_it_is_a_debian_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, suite: str
) -> None:
    file = tmp_path / "os-release"
    if told is not None:
        file.write_text(told)
    monkeypatch.setattr(image, "OS_RELEASE", file)
    assert image.suite() == suite


# What goes in


def packed(variant: str) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(image.overlay(variant))) as tar:
        return {entry.name: entry for entry in tar}


def text(variant: str, name: str) -> str:
    """What a file of the overlay says."""
    with tarfile.open(fileobj=io.BytesIO(image.overlay(variant))) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read().decode()


variants = pytest.mark.parametrize("variant", image.VARIANTS)


@variants
def test_what_is_laid_over_belongs_to_root_and_scripts_can_be_run(variant: str) -> None:
    files = packed(variant)
    assert files["usr/lib/nestlab/seed"].mode == 0o755
    assert files["nestlab-customize"].mode == 0o755
    assert files["nestlab-variant"].mode == 0o644, "it is read, not run"
    assert files["etc/ssh/sshd_config"].mode == 0o644
    assert {(entry.uid, entry.gid) for entry in files.values()} == {(0, 0)}


def test_a_variants_own_file_counts_more_than_the_common_one(sources: Path) -> None:
    (sources / "xen/root/etc/fstab").write_text("another\n")
    assert text("xen", "etc/fstab") == "another\n"
    assert "LABEL=root" in text("kvm", "etc/fstab")


def test_each_variant_has_its_own_packages_and_all_have_the_common_ones() -> None:
    kvm, xen = (set(image.listed(variant, "packages")) for variant in image.VARIANTS)
    assert {"openssh-server", "busybox-static", "dnsmasq-base", "iproute2"} <= kvm & xen
    assert {"libvirt-daemon-system", "lxc"} <= kvm - xen
    assert {"xen-system-amd64", "linux-image-amd64", "grub-pc-bin", "grub-xen-host"} <= xen - kvm
    assert set(image.listed("kvm", "excluded")) & set(image.listed("xen", "excluded"))


@variants
def test_every_unit_and_script_that_is_named_lies_there(variant: str) -> None:
    files = packed(variant)
    asked = text(variant, "nestlab-customize").split("systemctl --quiet enable")[1]
    enabled = asked.split("\nsystemctl")[0].split()
    own = shlex.split(text(variant, "nestlab-variant").split("units=")[1].splitlines()[0])[
        0
    ].split()
    assert "$units" in enabled
    for unit in [word for word in enabled if word.startswith("nestlab-")] + own:
        assert f"etc/systemd/system/{unit}" in files
    for name in files:
        if not name.startswith("etc/systemd/system/"):
            continue
        for line in text(variant, name).splitlines():
            program = line.partition("=/usr/lib/nestlab/")[2].split(" ")[0]
            if program and not program.startswith("xen/"):
                assert f"usr/lib/nestlab/{program}" in files, f"{name}: {line}"


@variants
def test_what_a_unit_of_an_image_needs_is_no_other_variants(variant: str) -> None:
    known = {name.rpartition("/")[2] for each in image.VARIANTS for name in packed(each)}
    foreign = known - {name.rpartition("/")[2] for name in packed(variant)}
    for name in packed(variant):
        if name.startswith("etc/systemd/system/"):
            assert not foreign & set(text(variant, name).replace("=", " ").split()), name


SCRIPTS = [
    *(f"common/{name}" for name in ("customize", "initrd-init")),
    *(f"common/root/usr/lib/nestlab/{name}" for name in ("seed", "dns", "hold-netfilter")),
    *("kvm/variant", "xen/variant", "xen/prove"),
    *(f"kvm/root/usr/lib/nestlab/{name}" for name in ("warm", "lxc-start-all")),
    "xen/root/usr/lib/nestlab/xen-start-all",
]
PERL = "common/root/usr/lib/nestlab/hold"


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_well_formed(script: str) -> None:
    done = subprocess.run(
        ["sh", "-n", image.SOURCES / script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("asked", "begun"), [(1, ["start"]), (0, [])])
def test_containers_start_with_their_host_by_what_the_lab_wrote(
    asked: int, begun: list[str], tmp_path: Path
) -> None:
    """On a folder that stands for the image's, with this machine's programs for busybox's."""
    home = tmp_path / "var/lib/lxc/box"
    for folder in (home, tmp_path / "sys/class/net/br0", tmp_path / "bin"):
        folder.mkdir(parents=True)
    (home / "config").write_text(f"lxc.include = {home}/nestlab.conf\n")
    (home / "nestlab.conf").write_text(f"lxc.start.auto = {asked}\nlxc.net.0.link = br0\n")
    for name, does in (("busybox", 'exec "$@"'), ("lxc-containers", 'echo "$@"')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    script = (image.SOURCES / "kvm/root/usr/lib/nestlab/lxc-start-all").read_text()
    script = script.replace("/usr/libexec/lxc/", "").replace("/var/", f"{tmp_path}/var/")
    done = subprocess.run(
        ["sh", "-c", script.replace("/sys/", f"{tmp_path}/sys/")],
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, begun), done.stderr


def test_the_perl_script_is_well_formed() -> None:
    done = subprocess.run(
        ["perl", "-c", image.SOURCES / PERL], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_script_is_left_out_of_that() -> None:
    found = {
        path.relative_to(image.SOURCES).as_posix()
        for path in image.SOURCES.rglob("*")
        if path.is_file() and path.read_bytes().startswith(b"#!")
    }
    assert found <= {*SCRIPTS, PERL}


@variants
def test_the_image_lets_in_nobody_by_password_and_brings_no_key(variant: str) -> None:
    sshd = text(variant, "etc/ssh/sshd_config").splitlines()
    assert "PasswordAuthentication no" in sshd
    assert "PermitRootLogin prohibit-password" in sshd
    assert [line for line in sshd if line.startswith("HostKey")] == [
        "HostKey /etc/ssh/ssh_host_ed25519_key"
    ]
    assert not [
        name
        for name in packed(variant)
        if "host_" in name or "authorized" in name or name.endswith(".pub")
    ]
    assert "rm -f /etc/ssh/ssh_host_*" in text(variant, "nestlab-customize")


def test_a_xen_host_boots_xen_first_at_once_and_with_a_dom0_that_keeps_its_memory() -> None:
    lines = [line.strip() for line in text("xen", "boot/grub/grub.cfg").splitlines()]
    assert {"set timeout=0", "set default=0"} <= set(lines)
    first = next(number for number, line in enumerate(lines) if line.startswith("menuentry"))
    xen, kernel, initrd = (line.split() for line in lines[first + 1 : first + 4])
    assert xen[:2] == ["multiboot2", "/boot/xen"]
    assert {"com1=115200,8n1", "console=com1,vga", "dom0_mem=1536M,max:1536M"} <= set(xen)
    assert kernel[:2] == ["module2", "/boot/vmlinuz"]
    assert {"root=LABEL=root", "console=hvc0", "clocksource=xen"} <= set(kernel)
    assert initrd == ["module2", "/boot/initrd"]


# Where packages come from


@dataclass
class FakeApt(System):
    targets: str = ""
    settings: str = ""

    @override
    def run(self, argv: Sequence[str], *, timeout_s: float = 30, stdin: str = "") -> Result:
        return Result(0, {"apt-get": self.targets, "apt-config": self.settings}.get(argv[0], ""))


def test_packages_come_from_the_machines_own_mirror_and_from_nobody_elses() -> None:
    apt = FakeApt(
        targets="Debian|http://mirror.test/debian/|bookworm|main\n"
        "Debian|http://mirror.test/debian/|bookworm|main\n"
        "Debian|http://mirror.test/debian/|bookworm|contrib\n"
        "Debian|http://mirror.test/debian/|trixie|main\n"
        "Debian|http://mirror.test/security/|bookworm-security|main\n"
        "Vendor|http://vendor.test/debian/|bookworm|main\n"
    )
    assert image.mirrors(apt, "bookworm") == [
        "deb http://mirror.test/debian/ bookworm main",
        "deb http://mirror.test/security/ bookworm-security main",
    ]


def test_before_the_first_update_of_apt_a_source_is_known_by_its_address() -> None:
    apt = FakeApt(
        targets="$(ORIGIN)|http://mirror.test/debian/|bookworm|main\n"
        "$(ORIGIN)|http://vendor.test/apt/|bookworm|main\n"
    )
    assert image.mirrors(apt, "bookworm") == ["deb http://mirror.test/debian/ bookworm main"]


def test_updates_without_the_suite_itself_count_for_nothing() -> None:
    apt = FakeApt(targets="Debian|http://mirror.test/s/|bookworm-security|main\n")
    assert image.mirrors(apt, "bookworm") == []


def test_a_proxy_of_apt_is_handed_on_outside_the_command_line(tmp_path: Path) -> None:
    apt = FakeApt(settings="Acquire::http \nAcquire::http::Proxy http://u:secret@proxy.test:3128\n")
    assert image.proxies(apt) == {"http_proxy": "http://u:secret@proxy.test:3128"}
    words = image.command(tmp_path, "kvm", "bookworm", image.mirrors(apt, "bookworm"), root=True)
    assert not [word for word in words if "secret" in word]


def test_without_root_mmdebstrap_uses_a_user_namespace_and_leaves_a_tar(tmp_path: Path) -> None:
    words = image.command(
        tmp_path, "kvm", "bookworm", ["deb http://u:secret@m/ bookworm main"], root=False
    )
    assert {"--mode=unshare", "--format=tar", str(tmp_path / "root.tar")} <= set(words)
    assert words[-1] == str(tmp_path / "sources.list"), "a mirror's password is nobody's business"
    assert {"--mode=root", "--format=dir"} <= set(
        image.command(tmp_path, "xen", "b", [], root=True)
    )


def test_a_killed_making_leaves_neither_mounts_nor_processes(tmp_path: Path) -> None:
    words = image.command(tmp_path, "kvm", "bookworm", [], root=True)
    assert words[: words.index("mmdebstrap")] == [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    ]


# What its making refuses


@dataclass
class FakeMachine(System):
    root: bool = True
    lacking: frozenset[str] = frozenset()

    @override
    def run(self, argv: Sequence[str], *, timeout_s: float = 30, stdin: str = "") -> Result:
        return Result(0)

    @override
    def which(self, program: str) -> str | None:
        return None if program in self.lacking else f"/usr/bin/{program}"

    @override
    def is_root(self) -> bool:
        return self.root


def test_missing_programs_are_all_named_with_the_command_that_installs_them() -> None:
    with pytest.raises(ui.Problem) as refused:
        image.check(FakeMachine(lacking=frozenset({"mmdebstrap", "qemu-img"})))
    assert "apt-get install --no-install-recommends mmdebstrap qemu-utils" in str(refused.value)


def test_without_root_the_helpers_for_user_namespaces_are_asked_for() -> None:
    lacking = frozenset({"newuidmap", "fakeroot"})
    image.check(FakeMachine(lacking=lacking))
    with pytest.raises(ui.Problem, match="uidmap, fakeroot missing"):
        image.check(FakeMachine(root=False, lacking=lacking))


def test_without_root_subordinate_ids_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "_has_subordinate_ids", lambda: False)
    with pytest.raises(ui.Problem, match="usermod --add-subuids"):
        image.check(FakeMachine(root=False))


# The disk and its first boot


def disk_with_loader(making: Path, told: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk with GRUB's two parts, of which debugfs says that one lies in the blocks ``told``."""
    disk = making / "root.raw"
    content = bytearray(b"\xee" * (8 * 4096))
    content[3 * 4096 : 3 * 4096 + 1024] = bytes(range(256)) * 4
    disk.write_bytes(content)
    (making / "root/boot/grub").mkdir(parents=True)
    (making / "root/boot/grub/boot.img").write_bytes(b"\xeb" * 510 + b"\x55\xaa")
    monkeypatch.setattr(run, "run", lambda *_, **__: told)
    return disk


def test_the_disk_of_a_xen_host_boots_by_the_loader_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_disk = disk_with_loader(tmp_path, "3 4 5 \n", monkeypatch)
    disk.install_loader(FakeMachine(), tmp_path)
    made = made_disk.read_bytes()
    assert made[:0x5C] == b"\xeb" * 0x5C
    assert made[510:512] == b"\x55\xaa"
    assert int.from_bytes(made[0x5C:0x64], "little") == 24, "the first sector reads block 3"
    second = made[3 * 4096 : 3 * 4096 + 512]
    assert int.from_bytes(second[500:508], "little") == 25, "the second reads what follows it"
    assert second[508:] == bytes(range(252, 256)), "how much that is was right already"
    assert second[:500] == (bytes(range(256)) * 2)[:500]
    assert made[512 : 3 * 4096] == b"\xee" * (3 * 4096 - 512), "the file system is left alone"
    assert made[3 * 4096 + 512 : 3 * 4096 + 1024] == bytes(range(256)) * 2


@pytest.mark.parametrize(
    "told", ["", "3 4 6", "/boot/grub/core.img: File not found by ext2_lookup"]
)
def test_a_loader_in_pieces_or_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    made_disk = disk_with_loader(tmp_path, told, monkeypatch)
    before = made_disk.read_bytes()
    with pytest.raises(ui.Problem, match="it has to be one piece"):
        disk.install_loader(FakeMachine(), tmp_path)
    assert made_disk.read_bytes() == before


def test_a_boot_sector_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_with_loader(tmp_path, "3", monkeypatch)
    (tmp_path / "root/boot/grub/boot.img").write_bytes(b"\0" * 512)
    with pytest.raises(ui.Problem, match="is no boot sector"):
        disk.install_loader(FakeMachine(), tmp_path)


@pytest.mark.parametrize(("variant", "loaders"), [("kvm", 0), ("xen", 1)])
def test_kernel_and_initrd_leave_the_disk_unless_its_loader_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, loaders: int
) -> None:
    ran: list[str] = []
    installed: list[Path] = []
    monkeypatch.setattr(run, "run", lambda words, **_: ran.append(words[-1]))
    monkeypatch.setattr(disk, "install_loader", lambda _, making: installed.append(making))
    disk.pack(FakeMachine(), tmp_path, variant, root=True)
    assert ("mv root/boot/vmlinuz vmlinuz" in ran[0]) == (variant == "kvm")
    assert len(installed) == loaders


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("kvm", ""),
        ("kvm", "nestlab-warm: complete\n"),
        ("kvm", "nestlab-warm: kvm answers\n"),
        ("xen", "nestlab-warm: kvm answers\nnestlab-warm: complete\n"),
        ("xen", "nestlab-prove: Domain-0 answers\n"),
        ("xen", "nestlab-prove: a guest ran\n"),
    ],
)
def test_an_image_whose_first_boot_proves_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, said: str
) -> None:
    monkeypatch.setattr(run, "run", lambda *_, **__: said)
    with pytest.raises(ui.Problem, match="did not say 'nestlab-"):
        disk.prove(FakeMachine(), tmp_path, variant, image.SOURCES / "xen/prove")


def test_what_a_first_boot_must_say_is_said_by_the_image() -> None:
    said = {"kvm": "kvm/root/usr/lib/nestlab/warm", "xen": "xen/prove"}
    for variant, script in said.items():
        told = (image.SOURCES / script).read_text()
        for line in disk.PROVED[variant]:
            assert line.replace("kvm answers", "$kind answers") in told


def first_boot(making: Path, variant: str, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every command of a first boot that went well."""
    ran: list[list[str]] = []

    def remember(words: list[str], **_: object) -> str:
        ran.append(words)
        return "\n".join(disk.PROVED[variant])

    monkeypatch.setattr(run, "run", remember)
    disk.prove(FakeMachine(), making, variant, image.SOURCES / "xen/prove")
    return ran


@variants
def test_nothing_of_the_making_reaches_a_network_or_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    line = " ".join(first_boot(tmp_path, variant, monkeypatch)[-1])
    assert line.startswith("setpriv --pdeathsig KILL qemu-system-x86_64 ")
    assert "-nodefaults -nic none" in line


def test_the_first_boot_of_a_kvm_host_gets_the_arguments_labs_boot_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [words] = first_boot(tmp_path, "kvm", monkeypatch)
    line = words[words.index("-append") + 1].split()
    assert {"root=LABEL=root", "quiet", "init=/usr/lib/nestlab/warm"} <= set(line)
    assert not [word for word in line if word.startswith("_")]
    assert "-snapshot" not in words, "what libvirt learned would be lost"


def test_the_first_boot_of_a_xen_host_is_by_its_own_loader_with_a_seed_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, words = first_boot(tmp_path, "xen", monkeypatch)
    assert "-snapshot" in words
    assert "-kernel" not in words
    assert words[words.index("-cpu") + 1] == "Nehalem"
    assert made[made.index("-L") + 1] == "cidata"
    seed = Path(made[made.index("-d") + 1]) / "user-data"
    assert seed.read_bytes() == (image.SOURCES / "xen/prove").read_bytes()
    assert "cidata" in text("xen", "usr/lib/nestlab/seed"), "the label the machine looks for"


# Making and caching


def test_a_failed_making_leaves_nothing_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: System, making: Path, *__: str) -> None:
        (making / "root.raw").write_text("half")
        raise ui.Problem("no mirror")

    monkeypatch.setattr(image, "make", fails)
    with pytest.raises(ui.Problem, match="no mirror"):
        image.ensure(FakeMachine(), "kvm")
    assert list(paths.images().iterdir()) == []


@pytest.mark.parametrize("own", [0o000, 0o027, 0o077])
def test_an_image_is_made_with_the_same_umask_whatever_the_users_is(
    own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders in it are made by shells: with another umask only root could enter them."""
    seen: list[int] = []

    def makes(_: System, making: Path, *__: str) -> None:
        seen.append(os.umask(0))
        os.umask(seen[0])
        (making / "root.qcow2").write_text("made")

    monkeypatch.setattr(image, "make", makes)
    before = os.umask(own)
    try:
        image.ensure(FakeMachine(), "kvm")
        assert os.umask(own) == own, "and it is the user's again"
    finally:
        os.umask(before)
    assert seen == [0o022]


def test_an_image_that_is_there_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def makes(_: System, making: Path, *__: str) -> None:
        (making / "root.qcow2").write_text("made")

    monkeypatch.setattr(image, "make", makes)
    first = image.ensure(FakeMachine(), "kvm")
    assert first.name == image.digest("kvm", image.suite())
    assert image.ensure(FakeMachine(), "xen") != first
    monkeypatch.setattr(image, "make", lambda *_: pytest.fail("made twice"))
    assert image.ensure(FakeMachine(lacking=frozenset({"mmdebstrap"})), "kvm") == first


@variants
def test_of_the_making_only_what_labs_boot_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    def install(_: System, making: Path, *__: str, root: bool) -> None:
        assert root
        for name in ("root/boot/xen", "seed/user-data"):
            (making / name).parent.mkdir(parents=True)
            (making / name).touch()
        for name in ("root.raw", "overlay.tar", "sources.list", "root.qcow2", "vmlinuz"):
            (making / name).touch()

    monkeypatch.setattr(image, "install", install)
    monkeypatch.setattr(disk, "pack", lambda *_, **__: None)
    monkeypatch.setattr(disk, "prove", lambda *_: None)
    monkeypatch.setattr(run, "run", lambda *_, **__: "")
    image.make(FakeMachine(), tmp_path, variant, "bookworm")
    assert {path.name for path in tmp_path.iterdir()} == {"root.qcow2", "vmlinuz"}


@pytest.mark.parametrize(("argv", "wanted"), [([], "kvm"), (["kvm"], "kvm"), (["xen"], "xen")])
def test_xen_is_made_only_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], wanted: str
) -> None:
    asked: list[str] = []

    def ensure(_: System, variant: str) -> Path:
        asked.append(variant)
        return tmp_path

    monkeypatch.setattr(image, "ensure", ensure)
    monkeypatch.setattr(golden, "publish", lambda _, __, variant, ___: asked.append(variant))
    assert image.main(argv) == 0
    assert asked == [wanted, wanted]


# How libvirt gets it


def test_the_image_is_uploaded_and_marked_whole_last(made: Path) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, "kvm", 4)
    assert libvirt.images == WHOLE
    assert libvirt.pools[golden.POOL] == Pool(str(golden.PLACE), running=True, autostart=True)
    uploads = [number for number, words in enumerate(libvirt.changes) if "vol-upload" in words]
    assert len(uploads) == 3
    assert (
        uploads[-1]
        < len(libvirt.changes) - 2
        == libvirt.changes.index(f"vol-create {golden.POOL} /dev/stdin", uploads[-1])
    ), "what says that it is whole comes after every upload"


def test_volumes_can_be_read_by_whoever_qemu_runs_as(made: Path) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, "kvm", 4)
    disk = libvirt.folders[str(golden.PLACE)][f"{HASH}.qcow2"]
    assert "<mode>0644</mode>" in disk
    assert f">{4 << 30}<" in disk
    assert 'type="qcow2"' in disk


def test_an_image_that_libvirt_has_is_left_alone(made: Path) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, "kvm", 4)
    libvirt.changes.clear()
    golden.publish(libvirt, made, "kvm", 4)
    assert libvirt.changes == []


@pytest.mark.parametrize("lost", sorted(WHOLE))
def test_an_upload_that_was_cut_off_is_made_again(made: Path, lost: str) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, "kvm", 4)
    del libvirt.folders[str(golden.PLACE)][lost]
    libvirt.changes.clear()
    golden.publish(libvirt, made, "kvm", 4)
    assert libvirt.images == WHOLE
    assert len([words for words in libvirt.changes if "vol-upload" in words]) == 3


def test_a_pool_that_was_only_stopped_or_undefined_is_mended_without_an_upload(made: Path) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, "kvm", 4)
    for break_it in ("stop", "undefine"):
        if break_it == "stop":
            libvirt.pools[golden.POOL].running = False
        else:
            del libvirt.pools[golden.POOL]
        libvirt.changes.clear()
        golden.publish(libvirt, made, "kvm", 4)
        assert libvirt.pools[golden.POOL].running
        assert not [words for words in libvirt.changes if words.startswith("vol-")], break_it


def test_a_pool_of_that_name_in_another_folder_is_refused(made: Path) -> None:
    libvirt = FakeLibvirt(pools={golden.POOL: Pool("/srv/images")}, folders={"/srv/images": {}})
    with pytest.raises(ui.Problem, match=r"lies in /srv/images.*\nRemove it"):
        golden.publish(libvirt, made, "kvm", 4)
    assert libvirt.changes == []


def test_a_failed_upload_is_told_and_not_taken_for_whole(made: Path) -> None:
    libvirt = FakeLibvirt(fails=f"vol-upload {HASH}.initrd")
    with pytest.raises(ui.Problem, match="no space left on device"):
        golden.publish(libvirt, made, "kvm", 4)
    assert f"{HASH}.whole" not in libvirt.images
    assert not (paths.LOCAL / "golden.json").exists()


def test_golden_json_says_what_a_lab_needs(made: Path) -> None:
    golden.publish(FakeLibvirt(), made, "kvm", 4)
    told = json.loads((paths.LOCAL / "golden.json").read_text())
    cmdline = told.pop("cmdline")
    assert told == {
        "version": 1,
        "hash": HASH,
        "pool": "nestlab-images",
        "volume": f"{HASH}.qcow2",
        "kernel": f"/var/lib/libvirt/nestlab/images/{HASH}.vmlinuz",
        "initrd": f"/var/lib/libvirt/nestlab/images/{HASH}.initrd",
        "files": {
            "disk": str(made / "root.qcow2"),
            "kernel": str(made / "vmlinuz"),
            "initrd": str(made / "initrd"),
        },
        "root_gib": 4,
    }
    assert {"key": "root", "value": "LABEL=root"} in cmdline
    assert {"key": "_", "value": "quiet"} in cmdline
    keys = [pair["key"] for pair in cmdline]
    assert len(keys) == len(set(keys)), "a mapping holds each key once"


def test_an_image_that_boots_by_itself_is_one_volume_and_its_facts_have_no_kernel(
    alone: Path,
) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, alone, "xen", 4)
    assert libvirt.images == {f"{HASH}.qcow2", f"{HASH}.whole"}
    assert not (paths.LOCAL / "golden.json").exists(), "the nested KVM host's is another image"
    assert json.loads((paths.LOCAL / "golden-xen.json").read_text()) == {
        "version": 1,
        "hash": HASH,
        "pool": "nestlab-images",
        "volume": f"{HASH}.qcow2",
        "cmdline": [],
        "files": {"disk": str(alone / "root.qcow2")},
        "root_gib": 4,
    }


@variants
def test_labs_read_what_is_written_of_each_image(
    made: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    monkeypatch.setattr(paths, "LOCAL", made.parent / ".nestlab")
    golden.publish(FakeLibvirt(), made, variant, 4)
    assert GoldenImage.read(made.parent, variant).hash == HASH


# How it is taken back


def test_clean_removes_pool_and_images(made: Path) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, "kvm", 4)
    golden.forget(libvirt)
    assert libvirt.pools == {}
    assert libvirt.folders == {}


def test_an_image_that_a_disk_still_rests_on_stays_and_others_go(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, "kvm", 4)
    libvirt.folders[str(golden.PLACE)] |= {"0123456789ac.qcow2": "", "0123456789ac.whole": ""}
    libvirt.pools["lab"] = Pool("/lab")
    backing = (
        f"<volume><backingStore><path>{golden.PLACE}/{HASH}.qcow2</path></backingStore></volume>"
    )
    libvirt.folders["/lab"] = {"host.qcow2": backing, "other.qcow2": "<volume/>"}
    golden.forget(libvirt)
    assert libvirt.images == WHOLE
    assert golden.POOL in libvirt.pools
    assert f"golden image {HASH} stays" in (said := capsys.readouterr().err)
    assert "disk host.qcow2 needs it" in said
    assert "other" not in said


def test_an_image_whose_kernel_a_guest_boots_stays(made: Path) -> None:
    libvirt = FakeLibvirt(domains={"g": f"<kernel>{golden.PLACE}/{HASH}.vmlinuz</kernel>"})
    golden.publish(libvirt, made, "kvm", 4)
    golden.forget(libvirt)
    assert libvirt.images == WHOLE


def test_what_an_inactive_pool_holds_is_unknown_so_images_stay(made: Path) -> None:
    libvirt = FakeLibvirt(pools={"lab": Pool("/lab", running=False)})
    golden.publish(libvirt, made, "kvm", 4)
    golden.forget(libvirt)
    assert libvirt.images == WHOLE


@pytest.mark.parametrize("libvirt", [FakeLibvirt(up=False), FakeLibvirt()])
def test_where_there_is_nothing_to_forget_nothing_is_done(libvirt: FakeLibvirt) -> None:
    golden.forget(libvirt)
    assert libvirt.changes == []


def test_clean_takes_the_image_back_while_libvirt_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(paths, "STATE", tmp_path / "state")
    monkeypatch.setattr(paths, "VENV", tmp_path / "venv")
    monkeypatch.setattr(golden, "forget", lambda _: order.append("forget"))
    monkeypatch.setattr(host, "stop", lambda _: order.append("stop"))
    clean.main([])
    assert order == ["forget", "stop"]


def test_what_others_put_beside_the_images_stays_and_odd_names_are_no_hindrance(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, "kvm", 8)
    mine = {"notes.txt": "<v/>", "my vm.qcow2": "<v/>", "aaaaaaaaaaaa.qcow2": "<v/>"}
    libvirt.folders[str(golden.PLACE)].update(mine)
    libvirt.pools["--all"] = Pool("/srv/mine", running=True)
    libvirt.folders["/srv/mine"] = {"-x": "<v/>", "a\u2028b": "<v/>"}
    libvirt.domains["my web"] = "<domain/>"
    golden.forget(libvirt)
    assert libvirt.images == set(mine)
    assert set(libvirt.pools) == {"--all"}
    assert f"{golden.PLACE} stays" in "".join(capsys.readouterr())
