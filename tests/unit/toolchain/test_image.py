"""The golden image: what makes it another one, what its making refuses, and how libvirt gets it.

When these fail, labs start from a stale or half-uploaded image, or `make clean` takes the disk
away under somebody's machine. Whether the image boots is proved by its own making and the host tier.
"""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from typing_extensions import override

from toolchain import clean, golden, host, image, paths, run, ui
from toolchain.system import Result, System

if TYPE_CHECKING:
    from collections.abc import Sequence

HASH = "0123456789ab"
WHOLE = {f"{HASH}.qcow2", f"{HASH}.vmlinuz", f"{HASH}.initrd", f"{HASH}.whole"}


@dataclass
class Pool:
    place: str
    running: bool = True
    autostart: bool = False


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
                return Result(0, "".join(f"{name}\n" for name in self.listed(words)))
            case ["dumpxml", name]:
                return Result(0, self.domains[name])
            case ["vol-dumpxml", volume, "--pool", pool]:
                return Result(0, self.volumes(pool)[volume])
            case ["pool-refresh" | "vol-list" | "pool-dumpxml" as verb, pool]:
                return self.shown(verb, pool)
            case _:
                self.changes.append(" ".join(words))
                self.change_pool(*words) if words[0].startswith("pool-") else self.change_volume(
                    words, stdin
                )
                return Result(0)

    def listed(self, words: list[str]) -> list[str]:
        if words == ["list", "--all", "--name"]:
            return list(self.domains)
        assert words in (["pool-list", "--name"], ["pool-list", "--all", "--name"]), words
        return [name for name, pool in self.pools.items() if pool.running or "--all" in words]

    def shown(self, verb: str, name: str) -> Result:
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
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the image's files that a test may change."""
    copy = tmp_path / "sources"
    shutil.copytree(image.SOURCES, copy)
    monkeypatch.setattr(image, "SOURCES", copy)
    return copy


# What makes another image


@pytest.mark.parametrize(
    "name",
    [
        "packages",
        "excluded",
        "customize",
        "initrd-init",
        "busybox-template.sed",
        "root/usr/lib/nestlab/seed",
        "root/etc/ssh/sshd_config",
    ],
)
def test_a_change_of_any_file_makes_another_image(sources: Path, name: str) -> None:
    before = image.digest("bookworm")
    with (sources / name).open("a") as file:
        file.write("\n# another\n")
    assert image.digest("bookworm") != before


def test_a_new_file_and_a_renamed_one_make_another_image(sources: Path) -> None:
    seen = {image.digest("bookworm")}
    (sources / "root/etc/new").touch()
    seen.add(image.digest("bookworm"))
    (sources / "root/etc/new").rename(sources / "root/etc/newer")
    seen.add(image.digest("bookworm"))
    assert len(seen) == 3


def test_recipe_suite_and_size_make_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {image.digest("bookworm"), image.digest("trixie")}
    for name in ("RECIPE", "ROOT_GIB"):
        monkeypatch.setattr(image, name, getattr(image, name) + 1)
        seen.add(image.digest("bookworm"))
    assert len(seen) == 4


def test_the_same_inputs_make_the_same_image_wherever_the_checkout_is(sources: Path) -> None:
    assert sources != Path(image.__file__).parent / "image"
    copied = image.digest("bookworm")
    assert copied == image.digest("bookworm")
    (sources / "packages").touch()
    assert image.digest("bookworm") == copied, "a file's time is no part of the image"


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


def packed() -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(image.overlay())) as tar:
        return {entry.name: entry for entry in tar}


def test_what_is_laid_over_belongs_to_root_and_scripts_can_be_run() -> None:
    files = packed()
    assert files["usr/lib/nestlab/seed"].mode == 0o755
    assert files["nestlab-customize"].mode == 0o755
    assert files["etc/ssh/sshd_config"].mode == 0o644
    assert {(entry.uid, entry.gid) for entry in files.values()} == {(0, 0)}


def test_every_unit_and_script_that_is_named_lies_there() -> None:
    files = packed()
    customize = (image.SOURCES / "customize").read_text()
    enable = customize.split("systemctl --quiet enable")[1].split("\nsystemctl")[0]
    for unit in (word for word in enable.split() if word.startswith("nestlab-")):
        assert f"etc/systemd/system/{unit}" in files
    for name, entry in files.items():
        if not name.startswith("etc/systemd/system/"):
            continue
        text = (image.SOURCES / "root" / name).read_text()
        for line in (line for line in text.splitlines() if "=/usr/lib/nestlab/" in line):
            assert line.split("=")[1].lstrip("/") in files, f"{entry.name}: {line}"


@pytest.mark.parametrize(
    "script",
    ["customize", "initrd-init", *(f"root/usr/lib/nestlab/{n}" for n in ("seed", "warm", "dns"))],
)
def test_scripts_are_well_formed(script: str) -> None:
    done = subprocess.run(
        ["sh", "-n", image.SOURCES / script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_image_lets_in_nobody_by_password_and_brings_no_key() -> None:
    sshd = (image.SOURCES / "root/etc/ssh/sshd_config").read_text().splitlines()
    assert "PasswordAuthentication no" in sshd
    assert "PermitRootLogin prohibit-password" in sshd
    assert [line for line in sshd if line.startswith("HostKey")] == [
        "HostKey /etc/ssh/ssh_host_ed25519_key"
    ]
    assert not [
        name
        for name in packed()
        if "host_" in name or "authorized" in name or name.endswith(".pub")
    ]
    assert "rm -f /etc/ssh/ssh_host_*" in (image.SOURCES / "customize").read_text()


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
    words = image.command(tmp_path, "bookworm", image.mirrors(apt, "bookworm"), root=True)
    assert not [word for word in words if "secret" in word]


def test_without_root_mmdebstrap_uses_a_user_namespace_and_leaves_a_tar(tmp_path: Path) -> None:
    words = image.command(
        tmp_path, "bookworm", ["deb http://u:secret@m/ bookworm main"], root=False
    )
    assert {"--mode=unshare", "--format=tar", str(tmp_path / "root.tar")} <= set(words)
    assert words[-1] == str(tmp_path / "sources.list"), "a mirror's password is nobody's business"
    assert {"--mode=root", "--format=dir"} <= set(image.command(tmp_path, "b", [], root=True))


def test_a_killed_making_leaves_neither_mounts_nor_processes(tmp_path: Path) -> None:
    words = image.command(tmp_path, "bookworm", [], root=True)
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


@pytest.mark.parametrize("said", ["", "nestlab-warm: complete\n", "nestlab-warm: kvm answers\n"])
def test_an_image_whose_first_boot_proves_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(run, "run", lambda *_, **__: said)
    with pytest.raises(ui.Problem, match="did not say 'nestlab-warm"):
        image.boot(FakeMachine(), tmp_path)


def test_the_first_boot_gets_the_arguments_labs_boot_with_and_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def remember(words: list[str], **_: object) -> str:
        ran.append(words)
        return "\n".join(image.PROVED)

    monkeypatch.setattr(run, "run", remember)
    image.boot(FakeMachine(), tmp_path)
    line = ran[0][ran[0].index("-append") + 1].split()
    assert {"root=LABEL=root", "quiet", "init=/usr/lib/nestlab/warm"} <= set(line)
    assert not [word for word in line if word.startswith("_")]
    assert "-nodefaults -nic none" in " ".join(ran[0]), "nothing of the making reaches a network"


def test_a_failed_making_leaves_nothing_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: System, making: Path, __: str) -> None:
        (making / "root.raw").write_text("half")
        raise ui.Problem("no mirror")

    monkeypatch.setattr(image, "make", fails)
    with pytest.raises(ui.Problem, match="no mirror"):
        image.ensure(FakeMachine())
    assert list(paths.images().iterdir()) == []


def test_an_image_that_is_there_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def makes(_: System, making: Path, __: str) -> None:
        (making / "root.qcow2").write_text("made")

    monkeypatch.setattr(image, "make", makes)
    first = image.ensure(FakeMachine())
    assert first.name == image.digest(image.suite())
    monkeypatch.setattr(image, "make", lambda *_: pytest.fail("made twice"))
    assert image.ensure(FakeMachine(lacking=frozenset({"mmdebstrap"}))) == first


# How libvirt gets it


def test_the_image_is_uploaded_and_marked_whole_last(made: Path) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, 4)
    assert libvirt.images == WHOLE
    assert libvirt.pools[golden.POOL] == Pool(str(golden.PLACE), running=True, autostart=True)
    uploads = [number for number, words in enumerate(libvirt.changes) if "vol-upload" in words]
    assert len(uploads) == 3
    assert (
        uploads[-1]
        < len(libvirt.changes) - 1
        == libvirt.changes.index(f"vol-create {golden.POOL} /dev/stdin", uploads[-1])
    ), "the mark comes after every upload"


def test_volumes_can_be_read_by_whoever_qemu_runs_as(made: Path) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, 4)
    disk = libvirt.folders[str(golden.PLACE)][f"{HASH}.qcow2"]
    assert "<mode>0644</mode>" in disk
    assert f">{4 << 30}<" in disk
    assert 'type="qcow2"' in disk


def test_an_image_that_libvirt_has_is_left_alone(made: Path) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, 4)
    libvirt.changes.clear()
    golden.publish(libvirt, made, 4)
    assert libvirt.changes == []


@pytest.mark.parametrize("lost", sorted(WHOLE))
def test_an_upload_that_was_cut_off_is_made_again(made: Path, lost: str) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, 4)
    del libvirt.folders[str(golden.PLACE)][lost]
    libvirt.changes.clear()
    golden.publish(libvirt, made, 4)
    assert libvirt.images == WHOLE
    assert len([words for words in libvirt.changes if "vol-upload" in words]) == 3


def test_a_pool_that_was_only_stopped_or_undefined_is_mended_without_an_upload(made: Path) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, 4)
    for break_it in ("stop", "undefine"):
        if break_it == "stop":
            libvirt.pools[golden.POOL].running = False
        else:
            del libvirt.pools[golden.POOL]
        libvirt.changes.clear()
        golden.publish(libvirt, made, 4)
        assert libvirt.pools[golden.POOL].running
        assert not [words for words in libvirt.changes if words.startswith("vol-")], break_it


def test_a_pool_of_that_name_in_another_folder_is_refused(made: Path) -> None:
    libvirt = FakeLibvirt(pools={golden.POOL: Pool("/srv/images")}, folders={"/srv/images": {}})
    with pytest.raises(ui.Problem, match=r"lies in /srv/images.*\nRemove it"):
        golden.publish(libvirt, made, 4)
    assert libvirt.changes == []


def test_a_failed_upload_is_told_and_not_taken_for_whole(made: Path) -> None:
    libvirt = FakeLibvirt(fails=f"vol-upload {HASH}.initrd")
    with pytest.raises(ui.Problem, match="no space left on device"):
        golden.publish(libvirt, made, 4)
    assert f"{HASH}.whole" not in libvirt.images
    assert not (paths.LOCAL / golden.GOLDEN_JSON).exists()


def test_golden_json_says_what_a_lab_needs(made: Path) -> None:
    golden.publish(FakeLibvirt(), made, 4)
    told = json.loads((paths.LOCAL / golden.GOLDEN_JSON).read_text())
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


# How it is taken back


def test_clean_removes_pool_and_images(made: Path) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, 4)
    golden.forget(libvirt)
    assert libvirt.pools == {}
    assert libvirt.folders == {}


def test_an_image_that_a_disk_still_rests_on_stays_and_others_go(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    libvirt = FakeLibvirt()
    golden.publish(libvirt, made, 4)
    libvirt.folders[str(golden.PLACE)] |= {"0ld.qcow2": "", "0ld.whole": ""}
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
    golden.publish(libvirt, made, 4)
    golden.forget(libvirt)
    assert libvirt.images == WHOLE


def test_what_an_inactive_pool_holds_is_unknown_so_images_stay(made: Path) -> None:
    libvirt = FakeLibvirt(pools={"lab": Pool("/lab", running=False)})
    golden.publish(libvirt, made, 4)
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
