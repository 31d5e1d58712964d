"""How each product finds its answers, and what they say to it: readers of their own. Light modules only.

What comes out is the same for all: name, mac, cidr, gateway, files (path, content, mode), and where the
product's sshd has its host key and the keys that it lets in.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import fnmatch
import ipaddress
import json
import lzma
import re
import subprocess
import tomllib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterator

Config = dict[str, Any]


class NoAnswers(Exception):
    """The product would ask, or stop; the message says at what."""


@contextlib.contextmanager
def _mounted(device: str, form: str = "iso9660") -> Iterator[Path]:
    at = Path("/run/medium")
    at.mkdir(exist_ok=True)
    subprocess.run(["busybox", "mount", "-t", form, "-o", "ro", device, str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["busybox", "umount", str(at)], check=True)


def _labelled(label: str) -> str:
    done = subprocess.run(
        ["busybox", "findfs", f"LABEL={label}"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def cloud() -> Config:
    """As cloud-init's NoCloud: a file system called cidata (or CIDATA) with user-data and meta-data."""
    import yaml  # noqa: PLC0415 - only these kinds have it

    device = _labelled("cidata") or _labelled("CIDATA")
    if not device:
        raise NoAnswers("no file system is called cidata")
    with _mounted(device) as at:
        text = (at / "user-data").read_text()
        meta = yaml.safe_load((at / "meta-data").read_text())
        network = yaml.safe_load((at / "network-config").read_text())
    if not text.startswith("#cloud-config\n"):
        raise NoAnswers("user-data is no cloud-config")
    user = yaml.safe_load(text)
    [nic] = network["ethernets"].values()
    [route] = nic["routes"]
    [root] = [each for each in user["users"] if each["name"] == "root"]
    if user["disable_root"]:
        raise NoAnswers("root is not let in")
    script = "\n".join(" ".join(each) for each in user["runcmd"])
    return {
        "kind": _product(script),
        "name": meta["local-hostname"],
        "mac": nic["match"]["macaddress"],
        "cidr": nic["addresses"][0],
        "gateway": route["via"],
        "host_key": "/etc/ssh/ssh_host_ed25519_key",
        "authorized": "/root/.ssh/authorized_keys",
        "password": user["chpasswd"]["users"][0]["password"],
        "files": [
            ["/etc/ssh/ssh_host_ed25519_key", user["ssh_keys"]["ed25519_private"], 0o600],
            ["/root/.ssh/authorized_keys", "\n".join(root["ssh_authorized_keys"]) + "\n", 0o600],
        ],
    }


def _product(script: str) -> str:
    """What the commands of the first boot install; what they need has to be there."""
    if "apt-get install -y virtualbox " in script:
        return "virtualbox"
    if "vmware-modconfig" in script:
        tools = _labelled("nestlab-tools")
        if not tools:
            raise NoAnswers("no CD is called nestlab-tools, from which Workstation is installed")
        with _mounted(tools) as at:
            if not (at / "workstation.bundle").read_bytes().startswith(b"#!"):
                raise NoAnswers("the bundle is no program")
        return "workstation"
    raise NoAnswers("nothing is installed")


def installed(cds: list[str]) -> Config:
    """As the installer that was booted, of which ``cds`` are mounted: the one it came from, then all.

    Raises:
        NoAnswers: it would ask.
    """
    booted, drives = Path(cds[0]), [Path(each) for each in cds[1:]]
    for mark, reader in (
        ("boot.cfg", esxi),
        ("boot/isolinux/isolinux.cfg", xenserver),
        ("readme.txt", hyperv),
        ("auto-installer-capable", proxmox),
    ):
        if _find(booted, mark):
            return reader(booted, drives)
    raise NoAnswers(f"no installer is known on {[each.name for each in booted.iterdir()]}")


def _find(root: Path, name: str) -> Path | None:
    """Return a file of a medium by its path there, in whatever case it is written."""
    at = root
    for part in name.strip("/").split("/"):
        found = [each for each in at.iterdir() if each.name.lower() == part.lower()]
        if not found:
            return None
        at = found[0]
    return at


def esxi(booted: Path, drives: list[Path]) -> Config:
    """As weasel: boot.cfg's kernelopt names the kickstart, on a USB stick's FAT or a CD.

    No CD of an AHCI controller is read (reports on 7.0 and 8.0U3b); sticks are looked for by their bus.
    """
    told = (_find(booted, "boot.cfg") or booted).read_text()
    [options] = re.findall(r"(?m)^kernelopt=(.*)$", told)
    [place] = [word[3:] for word in options.split() if word.startswith("ks=")]
    where, _, name = place.partition(":")
    if where == "usb":
        for part in sorted(Path("/sys/block").glob("sd*/sd*")):
            if "/usb" in str(part.resolve()):
                with _mounted(f"/dev/{part.name}", "vfat") as at:
                    if found := _find(at, name):
                        return _kickstart(found.read_text())
    elif where == "cdrom":
        for drive in drives:
            controllers = Path(f"/sys/block/{drive.name}").resolve().parents
            links = [each / "driver" for each in controllers if (each / "driver").exists()]
            if "ahci" in {each.resolve().name for each in links}:
                continue
            if found := _find(drive, name):
                return _kickstart(found.read_text())
    raise NoAnswers(f"no kickstart at {place}")


def _kickstart(text: str) -> Config:
    words = {}
    [network] = re.findall(r"(?m)^network (.*)$", text)
    for word in network.split():
        key, _, value = word.removeprefix("--").partition("=")
        words[key] = value
    [password] = re.findall(r"(?m)^rootpw --iscrypted (\S+)$", text)
    first = re.findall(r"(?ms)^%firstboot --interpreter=busybox\n(.*)", text)
    if "vmaccepteula" not in text or not re.search(r"(?m)^install --firstdisk", text):
        raise NoAnswers("the kickstart does not install")
    cidr = ipaddress.IPv4Interface(f"{words['ip']}/{words['netmask']}")
    return {
        "kind": "esxi",
        "name": words["hostname"].partition(".")[0],
        "mac": words["device"],
        "cidr": str(cidr),
        "gateway": words["gateway"],
        "host_key": "/etc/ssh/ssh_host_ecdsa_key",
        "authorized": "/etc/ssh/keys-root/authorized_keys",
        "password": password,
        "firstboot": "".join(first),
        "files": [],
    }


def xenserver(booted: Path, _: list[Path]) -> Config:
    """As host-installer: the menu's own choice, the kernel's words, what they name in install.img's root.

    ``mount=`` is mounted after the answers were read (since 10.10.17), so it finds none.
    """
    menu = (_find(booted, "boot/isolinux/isolinux.cfg") or booted).read_text()
    chosen = re.findall(r"(?mi)^default (\S+)", menu)[0]
    [line] = re.findall(rf"(?si)label {chosen}\n.*?append ([^\n]*)", menu)
    [words] = [part.split() for part in line.split("---") if "/vmlinuz" in part]
    told = dict(word.partition("=")[::2] for word in words)
    root = Path("/run/installer")
    root.mkdir(parents=True, exist_ok=True)
    _unpack((_find(booted, "install.img") or booted).read_bytes(), root)
    generator = told.get("answerfile_generator", "").removeprefix("file://")
    if not generator or "answerfile" in told or not Path(f"{root}{generator}").is_file():
        raise NoAnswers(f"no answerfile comes of {words}")
    Path("/nestlab").symlink_to(root / "nestlab")
    done = subprocess.run(
        ["/bin/sh", generator], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise NoAnswers(f"Generator script failed: {done.stderr}")
    tree = ET.fromstring(done.stdout)  # noqa: S314 - ours
    interface = tree.find("admin-interface")
    if interface is None:
        raise NoAnswers("no admin-interface")

    def text(tag: str, of: ET.Element = tree) -> str:
        return of.findtext(tag) or ""

    cidr = ipaddress.IPv4Interface(f"{text('ipaddr', interface)}/{text('subnet', interface)}")
    settings = Path("/etc/ssh/sshd_config")
    settings.write_text("HostKey /etc/ssh/ssh_host_rsa_key\n")
    for script in tree.iter("script"):
        if script.get("stage") == "filesystem-populated":
            path = (script.text or "").removeprefix("file://")
            subprocess.run(["/bin/sh", path, "/"], check=True, timeout=60)
    if "ssh_host_ed25519_key" not in settings.read_text():
        raise NoAnswers("sshd is not told of the planned key")
    Path("/nestlab").unlink()
    return {
        "kind": "xenserver",
        "name": text("hostname"),
        "mac": interface.get("hwaddr"),
        "cidr": str(cidr),
        "gateway": text("gateway", interface),
        "host_key": "/etc/ssh/ssh_host_ed25519_key",
        "authorized": "/root/.ssh/authorized_keys",
        "password": text("root-password"),
        "files": [],
    }


UNATTEND = "{urn:schemas-microsoft-com:unattend}"


def hyperv(_: Path, drives: list[Path]) -> Config:
    """As Windows Setup: Autounattend.xml in the root of a drive; then what it runs at the first logon.

    ``setup.ps1`` is PowerShell, so what it does is done here: address, keys and their places.
    """
    [cd] = [drive for drive in drives if _find(drive, "Autounattend.xml")]
    tree = ET.parse(_find(cd, "Autounattend.xml") or cd).getroot()  # noqa: S314 - ours

    def text(*path: str) -> str:
        found = [each.text for each in tree.iterfind(".//" + "/".join(UNATTEND + p for p in path))]
        if len(found) != 1:
            raise NoAnswers(f"{path} is there {len(found)} times")
        return found[0] or ""

    hidden = base64.b64decode(text("AdministratorPassword", "Value")).decode("utf-16-le")
    command = text("FirstLogonCommands", "SynchronousCommand", "CommandLine")
    [label] = re.findall(r"Get-Volume -FileSystemLabel (\S+?)\)", command)
    with _mounted(_labelled(label)) as at:
        if not (_find(at, "setup.ps1") or at).is_file():
            raise NoAnswers("its first logon runs nothing")
        told = json.loads((_find(at, "machine.json") or at).read_text())
        names = ("ssh_host_ed25519_key", "authorized_keys")
        key, authorized = ((_find(at, name) or at).read_text() for name in names)
    folder = "/ProgramData/ssh"
    return {
        "kind": "hyperv",
        "name": text("ComputerName"),
        "mac": told["mac"].lower().replace("-", ":"),
        "cidr": f"{told['address']}/{told['prefix']}",
        "gateway": told["gateway"],
        "host_key": f"{folder}/ssh_host_ed25519_key",
        "authorized": f"{folder}/administrators_authorized_keys",
        "password": hidden.removesuffix("AdministratorPassword"),
        "files": [
            [f"{folder}/ssh_host_ed25519_key", key, 0o600],
            [f"{folder}/administrators_authorized_keys", authorized, 0o600],
        ],
    }


TABLES = {
    "global": "country fqdn keyboard mailto timezone root-password root-password-hashed"
    " reboot-on-error reboot-mode root-ssh-keys",
    "network": "source cidr dns gateway filter",
    "disk-setup": "filesystem disk-list filter filter-match zfs lvm btrfs",
    "first-boot": "source ordering url cert-fingerprint",
}
"""What an answer file of Proxmox VE may say; anything else stops its installer."""
HOOK = "/var/lib/proxmox-first-boot/proxmox-first-boot"


def proxmox(booted: Path, _: list[Path]) -> Config:
    """As proxmox-fetch-answer and proxmox-auto-installer (pve-installer, 8.4).

    A file of the medium says where the answers are; their filter finds the NIC among udev's properties, a
    disk is one whose path ends so, and the executable for the first boot is the medium's.
    """
    mode = _find(booted, "auto-installer-mode.toml")
    if mode is None:
        raise NoAnswers("it was not made for installing itself, and shows its menu")
    where = tomllib.loads(mode.read_text())
    if where.keys() - {"mode", "partition_label", "http"} or where["mode"] != "partition":
        raise NoAnswers(f"it is not told of a partition: {where}")
    label = where.get("partition_label", "proxmox-ais")
    device = next(filter(None, map(_labelled, (label, label.upper(), label.lower()))), "")
    if not device:
        raise NoAnswers(f"could not find partition for label {label}")
    with _mounted(device) as at:
        told = tomllib.loads((at / "answer.toml").read_text())
    for table, keys in told.items():
        if unknown := keys.keys() - set(TABLES.get(table, "").split()):
            raise NoAnswers(f"unknown fields in {table}: {unknown}")
    name, dot, _ = told["global"]["fqdn"].partition(".")
    if not dot or "root-password" in told["global"]:
        raise NoAnswers("it wants a name with a domain, and one way of telling the password")
    [wanted] = told["disk-setup"]["disk-list"]
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    if not [disk for disk, at, *_ in mounts if at == "/" and disk.endswith(wanted)]:
        raise NoAnswers(f"disk in 'disk-selection' not found: {wanted}")
    hook = told["first-boot"]
    if hook["source"] != "from-iso" or hook["ordering"] != "before-network":
        raise NoAnswers(f"{hook} is not played here")
    # As any sshd that is installed it has keys of its own before somebody gives it others.
    own = "/etc/ssh/ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own], check=True)
    keys = "\n".join(told["global"]["root-ssh-keys"])
    [release] = re.findall(
        r"(?m)^RELEASE='(.*)'$", (_find(booted, ".cd-info") or booted).read_text()
    )
    return {
        "kind": "proxmox",
        "name": name,
        "fqdn": told["global"]["fqdn"],
        "release": release,
        "mac": _mac(told["network"]),
        "cidr": told["network"]["cidr"],
        "gateway": told["network"]["gateway"],
        "host_key": own,
        "authorized": "/root/.ssh/authorized_keys",
        "password": told["global"]["root-password-hashed"],
        "hook": [HOOK, hook["ordering"]],
        "files": [
            ["/root/.ssh/authorized_keys", keys, 0o600],
            [HOOK, (_find(booted, "proxmox-first-boot") or booted).read_text(), 0o700],
        ],
    }


def _mac(network: dict[str, Any]) -> str:
    """Return the address of the first NIC that has a property which the filter names and fits."""
    if network["source"] != "from-answer":
        raise NoAnswers(f"its address comes from {network['source']}")
    # The installer has the drivers that the installed system loads.
    order = Path("/lib/modules/net/order").read_text().split()
    for module in order:
        subprocess.run(["busybox", "insmod", f"/lib/modules/net/{module}"], check=False)
    for file in sorted(Path("/sys/class/net").glob("*/address")):
        mac = file.read_text().strip()
        properties = {"ID_NET_NAME_MAC": f"enx{mac.replace(':', '')}"}
        for key, pattern in network["filter"].items():
            if key in properties and fnmatch.fnmatchcase(properties[key], pattern):
                return mac
    raise NoAnswers("filter did not match any device")


_OPENERS = (
    (b"\xfd7zXZ", lzma.LZMADecompressor),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
)


def _unpack(image: bytes, to: Path) -> None:
    """Unpack an initial RAM disk as Linux does: archives one after the other, compressed or not."""
    while image := image.lstrip(b"\0"):
        for mark, opener in _OPENERS:
            if image.startswith(mark):
                unpacker: Any = opener()
                plain = unpacker.decompress(image)
                image = unpacker.unused_data
                _archive(plain, to)
                break
        else:
            image = image[_archive(image, to) :]


def _archive(data: bytes, to: Path) -> int:
    """Unpack one archive (newc); return its length."""
    at = 0
    while True:
        if data[at : at + 6] != b"070701":
            raise NoAnswers("junk within the archive of install.img")
        mode, size, length = (int(data[at + n : at + n + 8], 16) for n in (14, 54, 94))
        name = data[at + 110 : at + 110 + length - 1].decode()
        at += -(-(110 + length) // 4) * 4
        if name == "TRAILER!!!":
            return at
        path = to / name
        if mode & 0o170000 == 0o040000:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(data[at : at + size])
            path.chmod(mode & 0o7777)
        at += -(-size // 4) * 4
