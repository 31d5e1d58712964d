"""Installers that ask nothing: the right medium of each kind, made once, and the wrong one named."""

from __future__ import annotations

import re
import shutil
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from components.gates.medium import InstallMediumProvider
from components.kinds.esxi import media as esxi
from components.kinds.proxmox import media as proxmox
from components.kinds.xenserver import media as xenserver
from components.kinds.xenserver.media import grub_cfg
from components.media import fat, sums
from components.media import unattended as module
from components.media.iso import Iso, WrongMedium, make, remaster
from components.media.iso_check import wrong
from components.media.unattended import ON_STICK, remaster_of
from components.media.unattended import unattended as installer
from components.stackfile import load, registry
from components.stackfile.places import InstalledSpec
from tests.support import host_installer, standins, weasel
from tests.unit.media.answers import ECDSA, STATIC, answers

if TYPE_CHECKING:
    from tests.unit.media.conftest import Media

KINDS = tuple(standins.MAKERS)
INSTALLERS = (
    *(kind for kind, it in registry.KINDS.items() if issubclass(it.model, InstalledSpec)),
    *(f"{kind}{ON_STICK}" for kind, it in registry.KINDS.items() if it.stick),
)
"""All that a kind's installer is made into."""
ANSWERS = {
    "esxi": "ks=cdrom:/KS.CFG",
    "esxi-usb": "ks=usb:/KS.CFG",
    "proxmox": "proxmox-ais",
    "xenserver": "answerfile_generator=file:///nestlab/answers.sh",
}
"""What shows in a changed installer that it looks for its answers."""


@pytest.fixture(autouse=True)
def _programs() -> None:
    standins.needs("xorriso", "genisoimage")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    made: list[Path] = []

    def counting(source: Path, *arguments: Any, **named: Any) -> None:
        made.append(source)
        remaster(source, *arguments, **named)

    monkeypatch.setattr(module, "remaster", counting)
    return made


@pytest.mark.parametrize("kind", INSTALLERS)
def test_the_right_medium_is_made_once_and_still_boots_by_bios_and_uefi(
    kind: str, tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    iso, cache = media[kind], tmp_path / "cache"
    result = installer(kind, iso, cache)
    assert installer(kind, iso, cache) == result
    assert made == [iso]
    assert Iso(result).boots() == {"bios", "uefi"}
    assert result.parent == cache
    assert result.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_installer_looks_for_its_answers_and_holds_none(
    kind: str, tmp_path: Path, media: Media
) -> None:
    result = installer(kind, media[kind], tmp_path / "cache")
    content = result.read_bytes()
    assert ANSWERS[kind].encode() in content
    assert b"$6$" not in content
    assert b"PRIVATE KEY" not in content


def test_another_medium_of_the_same_name_is_made_anew(
    tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    iso = Path(shutil.copy(media["proxmox"], tmp_path))
    first = installer("proxmox", iso, tmp_path / "cache")
    iso.write_bytes(standins.proxmox_iso(tmp_path / "newer", release="9.1").read_bytes())
    second = installer("proxmox", iso, tmp_path / "cache")
    assert first != second
    assert len(made) == 2
    assert "9.1" in Iso(second).read("/.cd-info").decode()


def test_a_changed_recipe_makes_it_anew(
    tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    iso = media["proxmox"]
    installer("proxmox", iso, tmp_path / "cache")
    newer = replace(remaster_of("proxmox"), version=99)
    monkeypatch.setattr(module, "remaster_of", lambda _: newer)
    installer("proxmox", iso, tmp_path / "cache")
    assert len(made) == 2


def test_two_that_want_the_same_make_it_once(
    tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    iso = media["proxmox"]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: installer("proxmox", iso, tmp_path / "cache"), range(4)))
    assert len(set(results)) == 1
    assert len(made) == 1


def test_a_making_that_was_killed_leaves_nothing_that_is_taken_for_it(
    tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    iso = media["proxmox"]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("components.media.iso._grow", killed)
        with pytest.raises(KeyboardInterrupt):
            installer("proxmox", iso, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.iso"))
    left = tmp_path / "cache" / f".proxmox-1-{sums.sha256([iso], tmp_path / 'sums')[iso]}.iso.x"
    left.mkdir()
    (left / "image.iso").write_bytes(b"gigabytes")
    assert Iso(installer("proxmox", iso, tmp_path / "cache")).find("/auto-installer-mode.toml")
    assert not left.exists(), "what a killed one left goes with the next"


WRONG = {
    "debian": "an ISO of Debian GNU/Linux 12.12.0",
    "esxi": "the ESXi installer (volume 'ESXI-8.0U3E-24677879-STANDARD')",
    "hyperv": "a Windows installer (volume 'SSS_X64FREE_EN-US_DV9')",
    "proxmox": "the installer of Proxmox VE 8.4 (volume 'PVE')",
    "xenserver": "the installer of XCP-ng 8.3.0 (volume 'XCP-ng 8.3.0')",
}


@pytest.mark.parametrize("given", WRONG)
def test_every_kind_refuses_every_other_medium_by_its_name(
    given: str, tmp_path: Path, media: Media
) -> None:
    iso, what = media[given], WRONG[given]
    for kind in KINDS:
        if kind == given:
            continue
        with pytest.raises(WrongMedium) as refused:
            installer(kind, iso, tmp_path / "cache")
        message = str(refused.value)
        assert message.startswith(f"{iso} is {what}"), message
        assert "wanted" in message
        assert ": give " in message
        assert "\n" not in message
    assert not list((tmp_path / "cache").glob("*.iso"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_refuses_its_medium_cut_short(kind: str, tmp_path: Path, media: Media) -> None:
    cut = standins.cut(media[kind], tmp_path / "cut.iso")
    with pytest.raises(WrongMedium, match="get the file again"):
        installer(kind, cut, tmp_path / "cache")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"release": "8.3"}, r"Proxmox VE 8\.3 .*only 8\.4 and newer"),
        ({"product": "pbs", "long": "Proxmox Backup Server"}, "Proxmox Backup Server 8.4"),
    ],
)
def test_proxmox_of_another_release_or_product_is_refused(
    named: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WrongMedium, match=message):
        installer("proxmox", standins.proxmox_iso(tmp_path, **named), tmp_path / "cache")


def test_a_netinstall_of_xcpng_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongMedium, match="has to be on it"):
        installer("xenserver", standins.xcpng_iso(tmp_path, packages=False), tmp_path / "cache")


def test_windows_without_the_image_that_does_not_ask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongMedium, match=r"efisys_noprompt\.bin"):
        installer("hyperv", standins.windows_iso(tmp_path, no_prompt=False), tmp_path / "cache")


def test_a_cd_of_answers_given_as_installer_is_called_so(tmp_path: Path) -> None:
    make({"/answer.toml": b""}, proxmox.LABEL, tmp_path / "a.iso")
    with pytest.raises(WrongMedium, match="a CD of answers, not an installer"):
        installer("proxmox", tmp_path / "a.iso", tmp_path / "cache")


def test_proxmox_gets_its_mode_and_what_runs_at_the_first_boot(
    tmp_path: Path, media: Media
) -> None:
    result = Iso(installer("proxmox", media["proxmox"], tmp_path / "cache"))
    told = tomllib.loads(result.read("/auto-installer-mode.toml").decode())
    assert told == {"mode": "partition", "partition_label": proxmox.LABEL}
    assert result.read("/proxmox-first-boot").startswith(b"#!/bin/sh\n")
    assert result.modified == "2024112112345600", "GRUB finds its CD by this date"


def test_esxi_gets_its_options_in_both_places_and_keeps_its_modules(
    tmp_path: Path, media: Media
) -> None:
    result = Iso(installer("esxi", media["esxi"], tmp_path / "cache"))
    for name in ("/BOOT.CFG", "/EFI/BOOT/BOOT.CFG"):
        lines = result.read(name).decode().splitlines()
        options = [line for line in lines if line.startswith("kernelopt=")]
        assert options == [
            f"kernelopt=runweasel {' '.join(esxi.BOOT)}",
        ]
        before = standins.BOOT_CFG.splitlines()
        assert [line for line in lines if line not in options] == [
            line for line in before if not line.startswith("kernelopt=")
        ]


@pytest.mark.parametrize(
    ("kind", "bus", "release"),
    [
        *(("esxi-usb", "ehci", release) for release in weasel.RELEASES),
        ("esxi", "ide", "7.0"),
        ("esxi", "ide", "8.0"),
    ],
)
def test_esxi_finds_its_kickstart_on_what_its_host_gives_it(
    kind: str, bus: str, release: str, tmp_path: Path, media: Media
) -> None:
    discs = InstallMediumProvider().create(
        {
            "name": "esxi1-discs",
            "kind": kind,
            "recipe": "esxi",
            "iso": str(media["esxi"]),
            "answers": vars(answers(**STATIC, **ECDSA)),
            "tools": {},
            "media": str(tmp_path / "media"),
            "private": str(tmp_path / "private"),
        }
    ).outs  # fmt: skip
    assert discs is not None
    disc = Path(discs["disc"])
    assert disc.stat().st_mode & 0o777 == 0o600
    devices = [weasel.Device("ide" if bus == "ide" else "ahci", Path(discs["installer"]))]
    devices.append(weasel.Device(bus, disc))
    told = weasel.kickstart(Path(discs["installer"]), devices, release)
    assert "--ip=10.77.0.20" in told


def test_esxi_without_a_driver_for_its_hosts_cds_is_refused_there(tmp_path: Path) -> None:
    newest = standins.BOOT_CFG.replace("build=8.0.3", "build=9.0.0")
    iso = standins.esxi_iso(tmp_path, boot_cfg=newest)
    assert installer("esxi-usb", iso, tmp_path / "cache").is_file()
    sticks = [name for name, it in registry.KINDS.items() if it.stick]
    assert all(remaster_of(f"{kind}{ON_STICK}").stick for kind in sticks)
    with pytest.raises(WrongMedium, match=r"ESXi 9 has no driver for IDE.*let it stand on libvirt"):
        installer("esxi", iso, tmp_path / "cache")
    nested = {
        "kind": "esxi",
        "iso": "it",
        "network": "lab",
        "machine": "pc",
        "address": "10.77.0.9",
    }
    node = {"memory_mib": 65536, "disk_gib": 500, "cores": 16}
    pve = {"kind": "proxmox", "endpoint": "https://pve.test:8006", "nodes": {"pve1": node}}
    for host, refused in (({"kind": "libvirt"}, False), (pve, True)):
        data = {
            "name": "lab",
            "host": host,
            "media": {"it": {"path": str(iso)}},
            "networks": {"lab": {"mode": "bridge", "bridge": "br0"}},
            "hypervisors": {"one": nested},
        }
        found = wrong(load(data, root=tmp_path))
        assert [problem.path for problem in found] == ["lab.hypervisors.one.iso"] * refused


def test_a_stick_holds_every_file_whole(tmp_path: Path) -> None:
    files = {"/KS.CFG": b"k" * 5000, "/EMPTY": b"", "/A.TXT": b"a" * 2048, "/B_1.BIN": b"b"}
    fat.make(files, "NESTLAB", tmp_path / "stick.img")
    assert weasel.stick(tmp_path / "stick.img") == files
    fat.make(dict(reversed(files.items())), "NESTLAB", tmp_path / "again.img")
    assert (tmp_path / "again.img").read_bytes() == (tmp_path / "stick.img").read_bytes()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"/ks.cfg": b""}, "no name of MS-DOS's"),
        ({"/folder/KS.CFG": b""}, "no name of MS-DOS's"),
        ({"/KICKSTART.CFG": b""}, "no name of MS-DOS's"),
        ({"/KS.CFG": bytes(32 << 20)}, "do not fit"),
    ],
)
def test_what_a_stick_cant_hold_is_refused(
    files: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        fat.make(files, "NESTLAB", tmp_path / "stick.img")
    assert not (tmp_path / "stick.img").exists()


def test_esxi_that_was_told_another_kickstart_gets_ours(tmp_path: Path) -> None:
    told = standins.BOOT_CFG.replace("cdromBoot", "ks=http://x/y systemMediaSize=max\r")
    result = Iso(installer("esxi", standins.esxi_iso(tmp_path, boot_cfg=told), tmp_path / "cache"))
    text = result.read("/BOOT.CFG").decode()
    assert "http" not in text
    assert text.count("systemMediaSize") == 1
    assert f"{' '.join(esxi.BOOT)}\r\n" in text, "its line ends stay"


def test_xcpng_chooses_its_installation_by_itself_in_bios_and_uefi(
    tmp_path: Path, media: Media
) -> None:
    result = Iso(installer("xenserver", media["xenserver"], tmp_path / "cache"))
    told = "answerfile_generator=file:///nestlab/answers.sh install"
    isolinux = result.read("/boot/isolinux/isolinux.cfg").decode()
    assert "DEFAULT install\n" in isolinux
    assert "TIMEOUT 10\n" in isolinux
    assert f"/boot/vmlinuz console=hvc0 console=tty0 {told} --- /install.img\n" in isolinux
    grub = result.read("/EFI/xenserver/grub.cfg").decode()
    assert 'set default="0"\nset timeout=1\n' in grub
    assert f"    module2 /boot/vmlinuz console=hvc0 console=tty0 {told}\n" in grub
    for menu in (isolinux, grub):
        assert menu.count(told) == 1, "the shell stays a shell"
        assert len(re.findall("bash-shell", menu)) == 1


@pytest.mark.parametrize("release", host_installer.RELEASES)
@pytest.mark.parametrize("form", host_installer.COMPRESSED)
def test_xcpng_of_every_release_finds_its_answers_on_the_second_cd(
    release: str, form: str, tmp_path: Path
) -> None:
    iso = standins.xcpng_iso(tmp_path, installer_root=host_installer.root(form))
    files = xenserver.files(answers(**STATIC))
    make({"/readme": b"somebody's"}, "nestlab", tmp_path / "other.iso")
    make(files, xenserver.LABEL, tmp_path / "answers.iso")
    drives, at = [tmp_path / "other.iso", tmp_path / "answers.iso"], tmp_path / "root"
    changed = installer("xenserver", iso, tmp_path / "cache")
    told = host_installer.answers(changed, drives, at, release)
    assert told.findtext("hostname") == "machine"
    assert (at / "opt" / "init").read_bytes() == b"#!/bin/sh\n", "its own root is whole"
    system = tmp_path / "system"
    (system / "etc" / "ssh").mkdir(parents=True)
    (system / "etc" / "ssh" / "sshd_config").write_text("UsePAM yes\n")
    host_installer.script(told.findtext("script") or "", at, str(system))
    key = system / "etc" / "ssh" / "ssh_host_ed25519_key"
    assert key.read_bytes() == files["/ssh_host_ed25519_key"]


@pytest.mark.parametrize("harm", ["damaged", "cut short"])
def test_an_installers_root_that_cant_be_unpacked_is_refused(harm: str, tmp_path: Path) -> None:
    root = host_installer.root("gzip")
    broken = root[:60] if harm == "cut short" else root[:40] + bytes(20) + root[60:]
    iso = standins.xcpng_iso(tmp_path, installer_root=broken)
    with pytest.raises(WrongMedium, match=f"own root can't be read, it is {harm}"):
        installer("xenserver", iso, tmp_path / "cache")


def test_xcpng_without_its_answers_says_so(tmp_path: Path, media: Media) -> None:
    changed = installer("xenserver", media["xenserver"], tmp_path / "cache")
    make({"/readme": b"somebody's"}, "nestlab", tmp_path / "other.iso")
    with pytest.raises(host_installer.NoAnswers, match="none of the CDs holds"):
        host_installer.answers(changed, [tmp_path / "other.iso"], tmp_path / "root", "8.3")


def test_an_install_entry_that_is_not_the_first_is_the_default_too() -> None:
    head, install, shell = standins.GRUB_CFG.partition('menuentry "install"')
    body, mark, rest = shell.partition('menuentry "shell"')
    swapped = head + mark + rest + "\n" + install + body
    assert 'set default="1"' in grub_cfg(swapped)
