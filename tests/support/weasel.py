"""ESXi's installer, as far as it finds its kickstart, and what an installed ESXi keeps of /etc.

Where a kickstart is looked for: VMware's "Boot Options for ESXi Installation" (``ks=cdrom:``, ``ks=usb:``,
FAT16 and FAT32 only). Which drives it sees: reports of others who ran it under QEMU (AHCI's CDs are not
read by 7.0 and 8.0, IDE's are; 9.0 has no IDE; a stick on an EHCI controller works from 7.0 to 9.0,
canonical/packer-maas). What is kept: files marked by their sticky bit (VisorFS); in 8.0 sshd_config is
made anew at each boot; ``%firstboot`` runs once, after ``local.sh``, which runs late at each boot
(CuckooEXE/TestRange, on 8.0U3b). sshd in FIPS mode knows RSA and ECDSA on NIST's curves only.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from components.media.iso import Iso

if TYPE_CHECKING:
    from collections.abc import Sequence

RELEASES = ("7.0", "8.0", "9.0")
SECTOR = 512
FIPS = ("ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")


class NoKickstart(Exception):
    """What the installer stops with, on its screen."""


@dataclass(frozen=True)
class Device:
    """A drive: ``bus`` is ahci, ide or ehci; ``path`` its ISO, or a stick's image."""

    bus: str
    path: Path


def kickstart(installer: Path, devices: Sequence[Device], release: str) -> str:
    """Return the kickstart that an installer, booted from the first CD, comes to run.

    Raises:
        NoKickstart: it finds none.
    """
    iso = Iso(installer)
    menu = iso.read(iso.find("/boot.cfg") or "").decode()
    [options] = re.findall(r"(?m)^kernelopt=([^\r\n]*)", menu)
    words = options.split()
    told = [word.partition("=")[2] for word in words if word.startswith("ks=")]
    if "runweasel" not in words or not told:
        raise NoKickstart("it asks")
    where, _, name = told[-1].partition(":")
    seen = {"7.0": {"ide", "ehci"}, "8.0": {"ide", "ehci"}, "9.0": {"ehci"}}[release]
    for device in devices:
        if device.bus not in seen or (device.bus == "ehci") != (where == "usb"):
            continue
        found = stick(device.path) if where == "usb" else _cd(device.path)
        if name in found:
            return found[name].decode()
    raise NoKickstart(f"Could not open the kickstart file {told[-1]}")


def _cd(path: Path) -> dict[str, bytes]:
    iso = Iso(path)
    return {name: iso.read(name) for name in iso.files()}


def stick(path: Path) -> dict[str, bytes]:
    """Return the files in the root of a stick's first partition, by Microsoft's FAT specification."""
    image = path.read_bytes()
    assert image[510:512] == b"\x55\xaa"
    kind, start, count = image[450], *struct.unpack_from("<II", image, 454)
    assert kind in {0x06, 0x0B, 0x0C, 0x0E}, "a partition of FAT16 or FAT32"
    assert (start + count) * SECTOR == len(image)
    volume = image[start * SECTOR :]
    (size, per_cluster, reserved, tables, entries, small, _media, length) = struct.unpack_from(
        "<HBHBHHBH", volume, 11
    )
    large = struct.unpack_from("<I", volume, 32)[0]
    assert size == SECTOR
    assert (small or large) == count
    assert volume[510:512] == b"\x55\xaa"
    root = (reserved + tables * length) * SECTOR
    data = root + entries * 32
    clusters = (count - data // SECTOR) // per_cluster
    assert 4085 <= clusters < 65525, "this many clusters make it FAT16, whatever it says"
    assert length * SECTOR >= (clusters + 2) * 2
    chains = [volume[(reserved + n * length) * SECTOR :][: length * SECTOR] for n in range(tables)]
    assert len(set(chains)) == 1
    links = struct.unpack(f"<{length * SECTOR // 2}H", chains[0])
    found = {}
    for at in range(root, data, 32):
        name, marks, cluster, bytes_ = struct.unpack_from("<11sB14xHI", volume, at)
        if not name[0]:
            break
        if marks & 0x08:
            continue
        content = b""
        while 2 <= cluster < 0xFFF8:
            begin = data + (cluster - 2) * per_cluster * SECTOR
            content += volume[begin : begin + per_cluster * SECTOR]
            cluster = links[cluster]
        ending = name[8:].decode().rstrip()
        base = name[:8].decode().rstrip()
        found[f"/{base}.{ending}" if ending else f"/{base}"] = content[:bytes_]
    return found


SSHD_CONFIG = {
    "7.0": "HostKey /etc/ssh/ssh_host_rsa_key\nPermitRootLogin yes\nAllowTcpForwarding no\n",
    "8.0": "FipsMode yes\nHostKey /etc/ssh/ssh_host_rsa_key\nPermitRootLogin yes\nAllowTcpForwarding no\n",
}
"""Of a new host; both names of keys and FipsMode are VMware's, and AllowTcpForwarding is DISA's guide's for both."""
ESXCLI = """\
case "$*" in
"system ssh server config set -k allowtcpforwarding -v "*)
    [ "{release}" = 7.0 ] && echo "Error: Unknown command or namespace system ssh server config set" && exit 1
    echo "${{*##* }}" > {store}
    sed -i "s/^AllowTcpForwarding .*/AllowTcpForwarding ${{*##* }}/" {config}
esac
"""
"""Since 8.0 sshd is set by it: sshd_config is made of what it keeps."""


@dataclass
class Host:
    """An installed ESXi's /etc over a folder, which boots."""

    root: Path
    release: str
    fips: bool = True
    reboots: int = 0
    calls: list[list[str]] = field(default_factory=list)
    _saved: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    _hostd: bool = True

    def __post_init__(self) -> None:
        """Make what a new host has."""
        for name, mode, content in (
            ("etc/ssh/sshd_config", 0o1600, SSHD_CONFIG[self.release]),
            ("etc/ssh/ssh_host_rsa_key", 0o1600, "ssh-rsa its own\n"),
            ("etc/rc.local.d/local.sh", 0o1755, "#!/bin/sh\n# local configuration\nexit 0\n"),
        ):
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            file.chmod(mode)
        self._save()

    def first_boot(self, script: str) -> None:
        """Boot for the first time after the installation, whose kickstart has ``script`` for that."""
        self._local()
        self._hostd = False
        self._run(script)
        self._hostd = True
        while self.reboots and self.calls[-1] == ["reboot"]:
            self.boot()

    def boot(self) -> None:
        """Switch it off and on: what was not saved, or is not marked, is gone."""
        for file in sorted((self.root / "etc").rglob("*"), reverse=True):
            if file.is_file():
                file.unlink()
        for name, (mode, content) in self._saved.items():
            file = self.root / name
            file.write_bytes(content)
            file.chmod(mode)
        if self.release != "7.0":
            kept = self.root / "store"
            forwards = kept.read_text().strip() if kept.exists() else "no"
            config = SSHD_CONFIG[self.release].replace("Forwarding no", f"Forwarding {forwards}")
            (self.root / "etc/ssh/sshd_config").write_text(config)
        self._local()

    def host_keys(self) -> dict[str, str]:
        """Return what sshd offers, by type, as its config says; in FIPS mode not every type."""
        config = (self.root / "etc/ssh/sshd_config").read_text().splitlines()
        fips = self.fips and self.release != "7.0"
        found = {}
        for number, line in enumerate(config):
            if not line.startswith("HostKey "):
                continue
            if fips and "FipsMode yes" not in config[:number]:
                return {}  # it does not start
            public = self.root / f"{line.split()[1].lstrip('/')}.pub"
            words = public.read_text().split() if public.is_file() else ["ssh-rsa", "its own"]
            if fips and words[0] not in FIPS:
                continue
            found[words[0]] = words[1]
        return found

    def carries_on(self) -> bool:
        """Whether sshd carries connections to others, and the firewall lets them out."""
        config = (self.root / "etc/ssh/sshd_config").read_text().splitlines()
        opened = "network firewall ruleset set --ruleset-id=sshClient --enabled=true"
        return "AllowTcpForwarding no" not in config and ["esxcli", *opened.split()] in self.calls

    def lets_in(self, public: str) -> bool:
        """Whether root may log in with this key."""
        listed = self.root / "etc/ssh/keys-root/authorized_keys"
        kind = public.split(maxsplit=1)[0]
        if self.fips and self.release != "7.0" and kind not in FIPS:
            return False
        return listed.is_file() and public in listed.read_text().splitlines()

    def _save(self) -> None:
        for file in (self.root / "etc").rglob("*"):
            mode = file.stat().st_mode
            if file.is_file() and mode & stat.S_ISVTX:
                name = str(file.relative_to(self.root))
                self._saved[name] = (stat.S_IMODE(mode), file.read_bytes())

    def _local(self) -> None:
        self._run((self.root / "etc/rc.local.d/local.sh").read_text())

    def _run(self, script: str) -> None:
        tools = self.root / "tools"
        tools.mkdir(exist_ok=True)
        log = self.root / "calls"
        log.write_text("")
        names = ("esxcli", "vim-cmd", "reboot", "sbin/auto-backup.sh", "etc/init.d/SSH",
                 "usr/lib/vmware/openssh/bin/sshd")  # fmt: skip
        for name in names:
            tool = (self.root if "/" in name else tools) / name
            tool.parent.mkdir(parents=True, exist_ok=True)
            does = ""
            if name == "esxcli":
                config, store = self.root / "etc/ssh/sshd_config", self.root / "store"
                does = ESXCLI.format(release=self.release, store=store, config=config)
            tool.write_text(f'#!/bin/sh\necho "{Path(name).name} $*" >> {log}\n{does}')
            tool.chmod(0o755)
        (self.root / "tmp").mkdir(exist_ok=True)
        places = r"(?<![\w./])/(?=etc/|sbin/|usr/lib/vmware|tmp/)"
        # sshd_config names the keys where they are on the host.
        plain = script.replace(f"{self.root}/", "/")
        told = re.sub(places, f"{self.root}/", plain).replace(
            f"HostKey {self.root}/etc", "HostKey /etc"
        )
        subprocess.run(
            ["sh"],
            input=told,
            text=True,
            timeout=60,
            check=False,
            capture_output=True,
            env={"PATH": f"{tools}:{os.environ['PATH']}"},
        )
        made = [line.split() for line in log.read_text().splitlines()]
        if not self._hostd:
            hung = [call for call in made if call[0] in {"vim-cmd", "esxcli"}]
            assert not hung, f"hostd does not answer yet: {hung}"
        if ["auto-backup.sh"] in made:
            self._save()
        self.reboots += made.count(["reboot"])
        self.calls += made
