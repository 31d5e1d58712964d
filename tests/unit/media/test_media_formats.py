"""Each kind's answers, read by a parser that is not ours, and its scripts run with paths of the test."""

from __future__ import annotations

import base64
import os
import re
import shlex
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from components.kinds.esxi import media as esxi
from components.kinds.hyperv import media as windows
from components.kinds.proxmox import media as proxmox
from components.kinds.proxmox.model import LVM
from components.kinds.xenserver import media as xenserver
from components.media import cloud_init
from components.media.iso import LABEL_LENGTH
from tests.support import weasel
from tests.unit.media.answers import ECDSA, HOST, LOGIN, PASSWORD, STATIC, answers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEY = LOGIN["public"].strip()
NS = {"u": "urn:schemas-microsoft-com:unattend"}
WCM = "{http://schemas.microsoft.com/WMIConfig/2002/State}"


def run(script: str, tmp_path: Path, stubs: Mapping[str, str], *arguments: str) -> list[str]:
    """Run a script of shell with stubs for the machine's commands; what they were called with."""
    calls = tmp_path / "calls"
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    calls.write_text("")
    for name, body in stubs.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{body}\n')
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-s", "--", *arguments],
        input=script,
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return calls.read_text().splitlines()


def test_labels_are_ones_that_every_reader_sees_whole() -> None:
    labels = [m.LABEL for m in (cloud_init, esxi, proxmox, windows, xenserver)]
    assert all(len(label) <= LABEL_LENGTH for label in (*labels, cloud_init.TOOLS_LABEL))


# Proxmox VE


def answer(**changed: Any) -> dict[str, Any]:
    return tomllib.loads(proxmox.files(answers(**changed))["/answer.toml"].decode())


def test_proxmox_has_what_its_installer_knows_and_nothing_else() -> None:
    told = answer(**STATIC)
    # proxmox-auto-installer, answer.rs: unknown fields are refused there.
    assert set(told) == {"global", "network", "disk-setup", "first-boot"}
    assert told["global"] == {
        "keyboard": "en-us",
        "country": "us",
        "fqdn": "machine.lab.test",
        "mailto": "root@machine.lab.test",
        "timezone": "UTC",
        "root-password-hashed": answers().hashed(),
        "root-ssh-keys": [KEY],
        "reboot-on-error": False,
    }
    assert told["network"] == {
        "source": "from-answer",
        "cidr": "10.77.0.20/24",
        "dns": "10.77.0.2",
        "gateway": "10.77.0.1",
        "filter": {"ID_NET_NAME_MAC": "*525400123456"},
    }
    assert told["disk-setup"] == {"filesystem": "ext4", "disk-list": ["sda"], "lvm": LVM}
    assert told["first-boot"] == {"source": "from-iso", "ordering": "before-network"}


def test_proxmox_by_dhcp_is_told_no_address() -> None:
    assert answer()["network"] == {"source": "from-dhcp"}


def test_proxmox_takes_the_courses_lvm_sizes_and_a_zone_it_knows() -> None:
    sizes = {"hdsize": 30, "swapsize": 0, "maxroot": 8.5, "minfree": 2}
    told = answer(options={"lvm": sizes}, timezone="Europe/Madrid", keyboard="es", disk="vda")
    assert told["disk-setup"]["lvm"] == sizes
    assert told["disk-setup"]["disk-list"] == ["vda"]
    assert (told["global"]["timezone"], told["global"]["keyboard"]) == ("Europe/Madrid", "es")


def test_proxmox_on_zfs_says_which_raid() -> None:
    told = answer(options={"filesystem": "zfs"})
    assert told["disk-setup"]["zfs"] == {"raid": "raid0"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"options": {"filesystem": "ntfs"}}, "none of ext4, xfs, zfs, btrfs"),
        ({"options": {"filesystem": "zfs", "lvm": {"maxroot": 1}}}, "zfs has no LVM"),
        ({"options": {"lvm": {"size": 1}}}, "lvm: it is a size in GiB"),
        ({"options": {"lvm": {"maxroot": "8"}}}, "lvm: it is a size in GiB"),
        ({"options": {"country": "Spain"}}, "two lower-case letters"),
        ({"options": {"mailto": "a\nb"}}, "no text of one line"),
        ({"keyboard": "xx"}, "keyboard: 'xx' is none of de, "),
    ],
)
def test_proxmox_refuses_what_its_installer_would(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer(**changed)


def test_free_text_in_toml_comes_out_unchanged() -> None:
    text = "root \"at\" \\home 'x' # é\N{GRINNING FACE} = [a]"
    assert answer(options={"mailto": text})["global"]["mailto"] == text


def first_boot(tmp_path: Path, found: str) -> list[str]:
    """Run the first boot's script on a machine whose CD, if any, is the folder ``cd``."""
    script = proxmox.FIRST_BOOT.replace("/etc/ssh/", f"{tmp_path}/ssh/")
    mount = f'for at; do :; done; cp {tmp_path}/cd/* "$at"/'
    stubs = {
        "udevadm": "exit 1",
        "blkid": f"echo {found}" if found else "exit 2",
        "mount": mount,
        "umount": 'rm -f "$1"/*',
        "systemctl": "",
    }
    (tmp_path / "ssh").mkdir(exist_ok=True)
    return run(script, tmp_path, stubs)


def test_proxmox_takes_its_host_key_from_the_cd_at_its_first_boot(tmp_path: Path) -> None:
    (tmp_path / "cd").mkdir()
    for name, content in proxmox.files(answers()).items():
        (tmp_path / "cd" / name.strip("/")).write_bytes(content)
    calls = first_boot(tmp_path, "/dev/sr1")
    assert "blkid -L proxmox-ais" in calls
    assert any(re.fullmatch(r"mount -t iso9660 -o ro /dev/sr1 \S+", call) for call in calls)
    assert calls[-2] == "systemctl --no-block try-restart ssh.service"
    assert calls[-1].startswith("umount ")
    key = tmp_path / "ssh" / "ssh_host_ed25519_key"
    assert key.read_text() == HOST["private"].strip() + "\n"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.with_suffix(".pub").stat().st_mode & 0o777 == 0o644


def test_proxmox_without_its_cd_keeps_the_keys_it_made(tmp_path: Path) -> None:
    assert first_boot(tmp_path, "") == ["udevadm settle --timeout=60", "blkid -L proxmox-ais"]
    assert not list((tmp_path / "ssh").iterdir())


# ESXi


def kickstart(text: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Commands with their words, and the text of each section, as a kickstart's reader sees them."""
    commands: dict[str, list[str]] = {}
    sections: dict[str, str] = {}
    section = ""
    for line in text.splitlines(keepends=True):
        if line.startswith("%"):
            section = line.strip()
            sections[section] = ""
        elif section:
            sections[section] += line
        elif line.strip() and not line.startswith("#"):
            word, *words = shlex.split(line)
            assert word not in commands
            commands[word] = words
    return commands, sections


def ks(**changed: Any) -> tuple[dict[str, list[str]], dict[str, str]]:
    files = esxi.files(answers(**{**ECDSA, **changed}))
    assert list(files) == ["/KS.CFG"], "upper case is what the installer looks for"
    return kickstart(files["/KS.CFG"].decode())


def test_esxi_is_told_disk_password_and_address() -> None:
    commands, sections = ks(**STATIC)
    assert commands == {
        "vmaccepteula": [],
        "rootpw": ["--iscrypted", answers(**ECDSA).hashed()],
        "install": [
            "--firstdisk",
            "--overwritevmfs",
            "--ignoreprereqwarnings",
            "--ignoreprereqerrors",
            "--forceunsupportedinstall",
        ],
        "network": [
            "--device=52:54:00:12:34:56",
            "--bootproto=static",
            "--ip=10.77.0.20",
            "--netmask=255.255.255.0",
            "--gateway=10.77.0.1",
            "--nameserver=10.77.0.2",
            "--hostname=machine.lab.test",
            "--addvmportgroup=1",
        ],
        "reboot": [],
    }
    assert list(sections) == ["%firstboot --interpreter=busybox"]


def test_esxi_keeps_its_datastore_and_asks_dhcp_by_default() -> None:
    commands, _ = ks()
    assert "--novmfsondisk" not in commands["install"]
    assert "--bootproto=dhcp" in commands["network"]
    assert not any("--ip" in word for word in commands["network"])


def test_esxi_with_a_licence_is_no_evaluation() -> None:
    commands, _ = ks(options={"licence": "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"})
    assert commands["serialnum"] == ["--esx=AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"]
    with pytest.raises(ValueError, match="five groups"):
        ks(options={"licence": "AAAAA reboot"})


def first_booted(tmp_path: Path, release: str) -> weasel.Host:
    _, sections = ks()
    host = weasel.Host(tmp_path / "esxi", release)
    host.first_boot(sections["%firstboot --interpreter=busybox"])
    return host


@pytest.mark.parametrize("release", weasel.SSHD_CONFIG)
def test_esxi_answers_with_its_planned_key_after_every_boot(tmp_path: Path, release: str) -> None:
    host = first_booted(tmp_path, release)
    assert host.reboots == 1
    kind, key = ECDSA["host_public"].split()[:2]
    for _ in range(3):
        assert host.host_keys()[kind] == key
        assert host.lets_in(ECDSA["authorized_key"])
        assert host.carries_on(), "its guests are entered through it"
        private = host.root / "etc/ssh/ssh_host_ecdsa_key"
        assert private.read_text() == ECDSA["host_private"]
        assert private.stat().st_mode & 0o077 == 0
        host.boot()
    assert host.reboots == 1, "it boots again once, not for ever"
    config = (host.root / "etc/ssh/sshd_config").read_text()
    assert config.count("ssh_host_ecdsa_key") == 1


def test_esxi_has_ssh_and_an_open_switch_once_it_has_booted(tmp_path: Path) -> None:
    calls = [" ".join(call) for call in first_booted(tmp_path, "8.0").calls]
    switch = next(call for call in calls if "vswitch" in call)
    assert "--allow-promiscuous=true" in switch
    assert "--allow-forged-transmits=true" in switch
    assert "esxcli system hostname set --fqdn=machine.lab.test" in calls
    assert calls.index("vim-cmd hostsvc/enable_ssh") < calls.index("SSH restart")
    assert "vim-cmd hostsvc/start_ssh" in calls
    assert any("SuppressShellWarning" in call for call in calls)
    assert calls[-1] == "auto-backup.sh", "what is not saved is gone at the next boot"


@pytest.mark.parametrize("field", ["host_public", "authorized_key"])
def test_esxi_is_given_no_key_that_its_ssh_refuses_without_a_word(field: str) -> None:
    key = HOST["public"] if field == "host_public" else LOGIN["public"]
    with pytest.raises(ValueError, match=f"{field}: ESXi's SSH takes keys of type ecdsa"):
        ks(**{field: key})


# XCP-ng and XenServer


def answerfile(**changed: Any) -> ET.Element:
    return ET.fromstring(xenserver.files(answers(**changed))["/answerfile.xml"])  # noqa: S314 - ours


def test_xenserver_has_what_host_installer_reads() -> None:
    root = answerfile(**STATIC)
    assert (root.tag, root.attrib) == ("installation", {"mode": "fresh", "srtype": "ext"})
    assert {child.tag: (child.text, child.attrib) for child in root if len(child) == 0} == {
        "primary-disk": ("sda", {"guest-storage": "yes"}),
        "keymap": ("us", {}),
        "root-password": (answers().hashed(), {"type": "hash"}),
        "source": (None, {"type": "local"}),
        "name-server": ("10.77.0.2", {}),
        "hostname": ("machine", {}),
        "timezone": ("Etc/UTC", {}),
        "ntp": (None, {"source": "none"}),
        "network-backend": ("vswitch", {}),
        "script": (
            "file:///nestlab/keys.sh",
            {"stage": "filesystem-populated", "type": "url"},
        ),
    }
    interface = root.find("admin-interface")
    assert interface is not None
    assert interface.attrib == {"hwaddr": "52:54:00:12:34:56", "proto": "static"}
    assert {child.tag: child.text for child in interface} == {
        "ipaddr": "10.77.0.20",
        "subnet": "255.255.255.0",
        "gateway": "10.77.0.1",
    }


def test_xenserver_by_dhcp_is_told_no_address() -> None:
    root = answerfile()
    interface = root.find("admin-interface")
    assert interface is not None
    assert (interface.get("proto"), len(interface), root.find("name-server")) == ("dhcp", 0, None)


def test_xenserver_with_thick_storage() -> None:
    assert answerfile(options={"sr_type": "lvm"}).get("srtype") == "lvm"
    with pytest.raises(ValueError, match="neither ext nor lvm"):
        answerfile(options={"sr_type": "zfs"})


def test_xenservers_script_reads_what_is_on_the_cd() -> None:
    files = xenserver.files(answers())
    read = set(re.findall(rf"{xenserver.AT}(/\w+(?:\.pub)?)", xenserver.SCRIPT))
    assert read == files.keys() - {"/answerfile.xml", "/keys.sh"}


@pytest.mark.parametrize("config", ["HostKey /etc/ssh/ssh_host_rsa_key\n", "UsePAM yes\n"])
def test_xenserver_gets_its_keys_before_its_first_boot(tmp_path: Path, config: str) -> None:
    cd, root = tmp_path / "cd", tmp_path / "root"
    (root / "etc" / "ssh").mkdir(parents=True)
    (root / "root").mkdir()
    (root / "etc" / "ssh" / "sshd_config").write_text(config)
    cd.mkdir()
    files = xenserver.files(answers())
    for name, content in files.items():
        (cd / name.strip("/")).write_bytes(content)
    run(files["/keys.sh"].decode().replace("/nestlab/", f"{cd}/"), tmp_path, {}, str(root))
    assert (root / "root" / ".ssh" / "authorized_keys").read_text() == KEY + "\n"
    key = root / "etc" / "ssh" / "ssh_host_ed25519_key"
    assert key.read_text() == HOST["private"].strip() + "\n"
    assert key.stat().st_mode & 0o777 == 0o600
    after = (root / "etc" / "ssh" / "sshd_config").read_text()
    listed = "HostKey" in config
    assert after == ("HostKey /etc/ssh/ssh_host_ed25519_key\n" if listed else "") + config


# Windows


def unattend(**changed: Any) -> ET.Element:
    return ET.fromstring(windows.files(answers(**changed))["/Autounattend.xml"])  # noqa: S314 - ours


def component(root: ET.Element, part: str, name: str) -> ET.Element:
    found = root.find(f"u:settings[@pass='{part}']/u:component[@name='{name}']", NS)
    assert found is not None
    assert found.attrib == {
        "name": name,
        "processorArchitecture": "amd64",
        "publicKeyToken": "31bf3856ad364e35",
        "language": "neutral",
        "versionScope": "nonSxS",
    }
    return found


def texts(element: ET.Element) -> dict[str, str | None]:
    return {child.tag.partition("}")[2]: child.text for child in element}


def test_windows_partitions_its_disk_for_uefi_and_installs_by_index() -> None:
    setup = component(unattend(), "windowsPE", "Microsoft-Windows-Setup")
    disk = setup.find("u:DiskConfiguration/u:Disk", NS)
    assert disk is not None
    assert (disk.findtext("u:DiskID", "", NS), disk.findtext("u:WillWipeDisk", "", NS)) == (
        "0",
        "true",
    )
    made = disk.findall("u:CreatePartitions/u:CreatePartition", NS)
    assert [texts(one) for one in made] == [
        {"Order": "1", "Type": "EFI", "Size": "260"},
        {"Order": "2", "Type": "MSR", "Size": "16"},
        {"Order": "3", "Type": "Primary", "Extend": "true"},
    ]
    assert all(one.get(f"{WCM}action") == "add" for one in (disk, *made))
    formatted = disk.findall("u:ModifyPartitions/u:ModifyPartition", NS)
    assert [
        (one.findtext("u:PartitionID", "", NS), one.findtext("u:Format", "", NS))
        for one in formatted
    ] == [
        ("1", "FAT32"),
        ("3", "NTFS"),
    ]
    image = setup.find("u:ImageInstall/u:OSImage", NS)
    assert image is not None
    meta = image.find("u:InstallFrom/u:MetaData", NS)
    target = image.find("u:InstallTo", NS)
    assert meta is not None
    assert target is not None
    assert texts(meta) == {"Key": "/IMAGE/INDEX", "Value": "2"}
    assert texts(target) == {"DiskID": "0", "PartitionID": "3"}
    assert setup.findtext("u:UserData/u:AcceptEula", "", NS) == "true"
    assert setup.find("u:UserData/u:ProductKey", NS) is None, "an evaluation has none"


def test_windows_by_name_and_with_a_key() -> None:
    name = "Windows Server 2022 SERVERSTANDARDCORE"
    options = {"image": name, "product_key": "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"}
    setup = component(unattend(options=options), "windowsPE", "Microsoft-Windows-Setup")
    meta = setup.find(".//u:MetaData", NS)
    assert meta is not None
    assert texts(meta) == {"Key": "/IMAGE/NAME", "Value": name}
    assert setup.findtext(".//u:ProductKey/u:Key", "", NS) == options["product_key"]


def test_windows_knows_its_name_zone_and_layout() -> None:
    root = unattend(timezone="Europe/Madrid", keyboard="es", options={"locale": "es-ES"})
    shell = component(root, "specialize", "Microsoft-Windows-Shell-Setup")
    assert texts(shell) == {"ComputerName": "machine", "TimeZone": "Romance Standard Time"}
    for part, name in (
        ("windowsPE", "Microsoft-Windows-International-Core-WinPE"),
        ("oobeSystem", "Microsoft-Windows-International-Core"),
    ):
        told = texts(component(root, part, name))
        assert (told["InputLocale"], told["UILanguage"]) == ("0c0a:0000040a", "es-ES")


def test_windows_logs_on_once_and_runs_the_script_from_its_cd() -> None:
    shell = component(unattend(), "oobeSystem", "Microsoft-Windows-Shell-Setup")
    for path, word in (
        ("u:UserAccounts/u:AdministratorPassword", "AdministratorPassword"),
        ("u:AutoLogon/u:Password", "Password"),
    ):
        element = shell.find(path, NS)
        assert element is not None
        told = texts(element)
        assert told["PlainText"] == "false"
        assert base64.b64decode(told["Value"] or "").decode("utf-16-le") == PASSWORD + word
    assert shell.findtext("u:AutoLogon/u:LogonCount", "", NS) == "1"
    commands = shell.findall("u:FirstLogonCommands/u:SynchronousCommand", NS)
    assert [texts(one)["Order"] for one in commands] == ["1"]
    line = texts(commands[0])["CommandLine"] or ""
    assert f"Get-Volume -FileSystemLabel {windows.LABEL})" in line
    assert "'{0}:\\setup.ps1' -f " in line
    assert len(line) < 1024, "the longest that the format takes"


def test_windows_script_is_the_same_for_every_machine_and_plain_ascii() -> None:
    one = windows.files(answers())
    other = windows.files(
        answers(name="other", fqdn="other.lab.test", password="Other-Lab-2", **STATIC)
    )
    assert one["/setup.ps1"] == other["/setup.ps1"]
    assert one["/setup.ps1"].isascii(), (
        "PowerShell 5 reads anything else by the machine's code page"
    )
    script = one["/setup.ps1"].decode()
    read = set(
        re.findall(r"'(ssh_host_ed25519_key(?:\.pub)?|authorized_keys|machine\.json)'", script)
    )
    assert read == {name.strip("/") for name in one} - {"Autounattend.xml", "setup.ps1"}
    assert script.count("{") == script.count("}")
    assert script.count("(") == script.count(")")


def test_windows_script_does_its_parts_in_an_order_that_works() -> None:
    script = windows.SETUP
    order = [
        "'DefaultPassword'",
        "New-NetIPAddress",
        "OpenSSH.Server~~~~0.0.1.0",
        "administrators_authorized_keys",
        "/inheritance:r /grant '*S-1-5-18:F' '*S-1-5-32-544:F'",
        "Restart-Service -Name sshd",
        "New-NetFirewallRule",
        "Install-WindowsFeature -Name Hyper-V -IncludeManagementTools",
        "Restart-Computer",
    ]
    places = [script.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "a" * 16, "fqdn": f"{'a' * 16}.lab.test"}, "15 letters"),
        ({"password": "Short-1"}, "8 letters or more"),
        ({"password": "only-small"}, "of 3 of these kinds"),
        ({"password": "My-Administrator-1"}, "user's name"),
        ({"timezone": "Asia/Kathmandu"}, "give it as windows_timezone"),
        ({"keyboard": "xx"}, "keyboard: 'xx' is none of us, "),
        ({"options": {"locale": "spanish"}}, "not like en-US"),
        ({"options": {"product_key": "x"}}, "five groups"),
    ],
)
def test_windows_refuses_what_it_would_stop_at(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unattend(**changed)


# Debian and Ubuntu cloud images


def cloud(**changed: Any) -> dict[str, Any]:
    files = cloud_init.files(answers(**changed))
    assert files["/user-data"].startswith(b"#cloud-config\n")
    return {name: yaml.safe_load(content) for name, content in files.items()}


def test_a_cloud_image_is_told_who_it_is() -> None:
    told = cloud(**STATIC)
    user = told["/user-data"]
    assert (user["hostname"], user["fqdn"]) == ("machine", "machine.lab.test")
    assert user["users"] == [
        {"name": "root", "lock_passwd": False, "ssh_authorized_keys": [KEY]},
    ]
    assert user["disable_root"] is False
    assert user["chpasswd"]["users"] == [
        {"name": "root", "password": answers().hashed(), "type": "hash"}
    ]
    assert told["/network-config"] == {
        "version": 2,
        "ethernets": {
            "nic0": {
                "match": {"macaddress": "52:54:00:12:34:56"},
                "dhcp4": False,
                "addresses": ["10.77.0.20/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.77.0.1"}],
                "nameservers": {"addresses": ["10.77.0.2"], "search": ["lab.test"]},
            }
        },
    }
    assert told["/meta-data"]["local-hostname"] == "machine"


def test_a_cloud_image_runs_its_seed_anew_when_the_machine_is_another() -> None:
    other = HOST["public"].replace("AAAA", "AAAB")
    ids = [
        cloud(**changed)["/meta-data"]["instance-id"]
        for changed in ({}, {}, {"host_public": other})
    ]
    assert ids[0] == ids[1] != ids[2]
    assert cloud(options={"instance": "0123"})["/meta-data"]["instance-id"] == "0123"


def test_a_cloud_image_by_dhcp_with_a_user_and_packages() -> None:
    told = cloud(options={"user": "student", "packages": ["htop"]})
    assert told["/network-config"]["ethernets"]["nic0"]["dhcp4"] is True
    user = told["/user-data"]["users"][1]
    assert (user["name"], user["ssh_authorized_keys"]) == ("student", [KEY])
    assert told["/user-data"]["packages"] == ["htop"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": "root"}, "no name of a user"),
        ({"user": "a b"}, "no name of a user"),
        ({"packages": "htop"}, "list of names"),
        ({"packages": ["-o=x"]}, "list of names"),
        ({"product": "xen"}, "one of this module's functions"),
    ],
)
def test_a_cloud_image_refuses_what_it_can_not_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cloud(options=options)


SETUPS = {
    "virtualbox": cloud_init.virtualbox(),
    "virtualbox from Oracle": cloud_init.virtualbox(
        deb="virtualbox-7.1_7.1.4-165100~Debian~bookworm_amd64.deb",
        extension_pack="Oracle_VirtualBox_Extension_Pack-7.1.4.vbox-extpack",
        licence="0" * 64,
    ),
    "workstation": cloud_init.workstation(bundle="VMware-Workstation-Full-25H2.x86_64.bundle"),
    "xen": cloud_init.xen(),
}


def commands(setup: cloud_init.Setup) -> list[str]:
    ((shell, flags, script),) = cloud(options={"product": setup})["/user-data"]["runcmd"]
    assert (shell, flags) == ("sh", "-ec"), "stops at the first failure"
    done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines: list[str] = script.splitlines()
    return lines


@pytest.mark.parametrize("name", SETUPS)
def test_what_a_product_needs_reaches_cloud_init_whole(name: str) -> None:
    setup = SETUPS[name]
    told = cloud(options={"product": setup})["/user-data"]
    assert told["packages"] == list(setup.packages)
    files = {file["path"]: file["content"] for file in told.get("write_files", [])}
    assert files == dict(setup.files)
    assert commands(setup) == [*setup.commands, "sync"], "a host that is switched off keeps it"
    assert ("power_state" in told) is setup.reboot


def test_virtualbox_keeps_kvm_out() -> None:
    (rules,) = SETUPS["virtualbox"].files.values()
    assert rules.splitlines() == ["blacklist kvm_intel", "blacklist kvm_amd", "blacklist kvm"]
    assert commands(SETUPS["virtualbox"])[0].startswith("modprobe -r kvm_intel kvm_amd kvm")


@pytest.mark.parametrize(
    ("version", "told"), [("7.1.4", True), ("7.2.8", True), ("7.2.10", False), ("8.0.0", False)]
)
def test_virtualbox_is_told_of_kvms_load_only_as_long_as_that_helps(
    version: str, told: bool
) -> None:
    setup = cloud_init.virtualbox(deb=f"virtualbox-x_{version}-1~Debian~bookworm_amd64.deb")
    (rules,) = setup.files.values()
    assert ("options kvm enable_virt_at_load=0" in rules) is told


def test_virtualbox_from_oracle_comes_from_the_tools_cd() -> None:
    lines = commands(SETUPS["virtualbox from Oracle"])
    at = [
        next(n for n, line in enumerate(lines) if part in line)
        for part in (
            "LABEL=nestlab-tools",
            ".deb",
            f"--accept-license={'0' * 64}",
            "umount",
            "VBoxManage --version",
        )
    ]
    assert at == sorted(at)
    with pytest.raises(ValueError, match="licence's SHA-256"):
        cloud_init.virtualbox(extension_pack="x.vbox-extpack")


def test_workstation_may_run_inside_another_hypervisor() -> None:
    lines = commands(SETUPS["workstation"])
    (install,) = [line for line in lines if line.startswith("sh ")]
    assert shlex.split(install)[2:] == ["--console", "--eulas-agreed", "--required"]
    assert any("vmx.allowNested" in line and "/etc/vmware/config" in line for line in lines)
    assert lines.index("vmware-modconfig --console --install-all") > lines.index(install)


@pytest.mark.parametrize("name", ["a b.bundle", "../x", "a;b", "$(id)", "", "-x"])
def test_a_tool_whose_name_a_shell_would_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no plain name"):
        cloud_init.workstation(bundle=name)


def test_xen_is_what_boots_next_with_its_own_memory() -> None:
    setup = cloud_init.xen(dom0_mib=768)
    assert setup.packages == ("xen-system-amd64",)
    (settings,) = setup.files.values()
    read = dict(line.split("=", 1) for line in settings.splitlines())
    assert read["GRUB_DEFAULT"] == "0"
    assert read["GRUB_CMDLINE_XEN_DEFAULT"] == '"dom0_mem=768M,max:768M"'
    divert, update, *_ = commands(setup)
    assert divert.startswith("dpkg-divert ")
    assert "08_linux_xen" in divert
    assert update == "update-grub"
    assert setup.reboot
    with pytest.raises(ValueError, match="512"):
        cloud_init.xen(dom0_mib=256)
