"""ESXi: a kickstart on a USB stick or a CD of its own, and an installer whose boot options name it.

Its installer reads no CD of QEMU's AHCI ("same ISO: SATA fails, IDE installs", reports on 7.0 and
8.0U3b), and 9.0 none on IDE either. So the kickstart comes on a stick wherever the host has such
(``ks=usb:/KS.CFG``, which packer-maas installs 7.0 to 9.0 with), else on a CD (``ks=cdrom:``), which is
looked for on every CD there is, in upper case.

What the installed host needs is written by ``/etc/rc.local.d/local.sh`` at each boot. ESXi keeps of
/etc what was there when it was installed and marked, and nothing new: not the keys, and in 8.0 no
change of sshd_config, which is made of its configuration store. `local.sh` is one of the kept files; it
runs late, when ``esxcli`` and ``vim-cmd`` answer, which they may not while a kickstart's ``%firstboot``
runs (TestRange, on 8.0U3b). It has run by then, so that part writes it and boots again, once. With
UEFI Secure Boot neither runs, so a machine of this kind must not have it.

Guests are entered through its SSH, whose ``AllowTcpForwarding`` is "no" (STIG of 7.0 and of 8.0, which say where it
stands), and whose connections to them are SSH's own to its firewall: the rule set ``sshClient``, off by default.

Both SSH keys have to be ECDSA on P-256: in FIPS mode, the default of 8.0, sshd refuses Ed25519 without
a word, and that mode must come before what it forbids.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from components.media.remaster import Edits, Remaster, other, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.media.answers import Answers
    from components.media.iso import Iso

LABEL = "NESTLAB"
OPTIONS = ("licence",)
KEY = "ecdsa-sha2-nistp256"
"""What both SSH keys have to be, as OpenSSH calls it."""
OPTIONS_OF_BOOT = (
    "allowLegacyCPU=true",
    "systemMediaSize=min",
    "cpuUniformityHardCheckPanic=FALSE",
)
"""CPUs that are only deprecated, a datastore beside the system, and cores that are not all alike."""
BOOT = ("ks=cdrom:/KS.CFG", *OPTIONS_OF_BOOT)
"""Boot options of an installer whose kickstart comes on a CD."""
BOOT_STICK = ("ks=usb:/KS.CFG", *OPTIONS_OF_BOOT)
"""Of one whose kickstart comes on a USB stick."""
DROPPED = "cdromboot"
"""With this option the CD it was booted from is taken for the one with everything (TestRange)."""
WITHOUT_IDE = 9
"""The first release without a driver for IDE."""
BOOT_FILES = ("/boot.cfg", "/efi/boot/boot.cfg")

_KICKSTART = """\
vmaccepteula
rootpw --iscrypted {password}
install --firstdisk --overwritevmfs --ignoreprereqwarnings --ignoreprereqerrors --forceunsupportedinstall
{licence}network {network}
reboot

%firstboot --interpreter=busybox
if ! grep -q NESTLAB /etc/rc.local.d/local.sh; then
cat > /etc/rc.local.d/local.sh << 'NESTLAB-LOCAL'
{local}NESTLAB-LOCAL
chmod +x /etc/rc.local.d/local.sh
/sbin/auto-backup.sh
reboot
fi
"""
# Files are written into, not replaced, and no mode is set in numbers: what marks a file as one that is
# kept is its sticky bit.
_LOCAL = """\
#!/bin/sh
# Made by nestlab (NESTLAB), run at each boot: what ESXi does not keep, and how the lab gets in.
umask 077
mkdir -p /etc/ssh/keys-root
cat > /etc/ssh/keys-root/authorized_keys << 'NESTLAB'
{authorized}
NESTLAB
cat > /etc/ssh/ssh_host_ecdsa_key << 'NESTLAB'
{private}NESTLAB
cat > /etc/ssh/ssh_host_ecdsa_key.pub << 'NESTLAB'
{public}
NESTLAB

# Where sshd is told which keys it has, it is told of this one, behind the others.
config=/etc/ssh/sshd_config
if grep -q '^HostKey ' $config && ! grep -q '^HostKey /etc/ssh/ssh_host_ecdsa_key$' $config; then
    cat $config > /tmp/sshd_config.before
    awk '{{ print }} /^HostKey / && !done {{ print "HostKey /etc/ssh/ssh_host_ecdsa_key"; done = 1 }}' \
        /tmp/sshd_config.before > $config
    /usr/lib/vmware/openssh/bin/sshd -t || cat /tmp/sshd_config.before > $config
fi

# Its guests are entered through it: sshd carries the connections, which it is told not to (7.0 in its file, 8.0
# in its configuration store), and the firewall lets them out.
if ! esxcli system ssh server config set -k allowtcpforwarding -v yes; then
    cat $config > /tmp/sshd_config.before
    sed 's/^AllowTcpForwarding .*/AllowTcpForwarding yes/' /tmp/sshd_config.before > $config
fi
esxcli network firewall ruleset set --ruleset-id=sshClient --enabled=true

esxcli system hostname set --fqdn={fqdn}
# Frames of nested guests carry addresses that are not the virtual switch's own.
esxcli network vswitch standard policy security set --vswitch-name=vSwitch0 --allow-promiscuous=true --allow-forged-transmits=true --allow-mac-change=true
esxcli system settings advanced set --option=/UserVars/SuppressShellWarning --int-value=1
vim-cmd hostsvc/enable_esx_shell
vim-cmd hostsvc/start_esx_shell
vim-cmd hostsvc/enable_ssh
vim-cmd hostsvc/start_ssh
/etc/init.d/SSH restart
/sbin/auto-backup.sh
exit 0
"""


def files(answers: Answers) -> dict[str, bytes]:
    """Return what is on the stick or CD with the answers.

    Options: ``licence``, a key of five groups; none means 60 days of everything.
    """
    answers.only(OPTIONS)
    for field in ("host_public", "authorized_key"):
        if getattr(answers, field).split()[0] != KEY:
            raise ValueError(f"{field}: ESXi's SSH takes keys of type {KEY}")
    licence = answers.option("licence", "")
    if licence and not re.fullmatch(r"[0-9A-Z]{5}(-[0-9A-Z]{5}){4}", licence):
        raise ValueError("licence: a key of ESXi is five groups of five letters and digits")
    kickstart = _KICKSTART.format(
        password=answers.hashed(),
        licence=f"serialnum --esx={licence}\n" if licence else "",
        network=_network(answers),
        local=_LOCAL.format(
            fqdn=answers.fqdn,
            authorized=answers.authorized_key,
            private=answers.host_private,
            public=answers.host_public,
        ),
    )
    return {"/KS.CFG": kickstart.encode()}


def _network(answers: Answers) -> str:
    words = [f"--device={answers.mac}"]
    if answers.address:
        words += [
            "--bootproto=static",
            f"--ip={answers.address}",
            f"--netmask={answers.netmask}",
            f"--gateway={answers.gateway}",
            f"--nameserver={answers.dns}",
        ]
    else:
        words.append("--bootproto=dhcp")
    return " ".join([*words, f"--hostname={answers.fqdn}", "--addvmportgroup=1"])


def boot_cfg(told: str, boot: Sequence[str] = BOOT) -> str:
    """Return a boot.cfg with the options ``boot``, instead of what it says of the same things."""
    ours = {word.partition("=")[0].lower() for word in boot} | {DROPPED}

    def options(line: re.Match[str]) -> str:
        kept = [w for w in line[1].split() if w.partition("=")[0].lower() not in ours]
        words = kept if "runweasel" in kept else ["runweasel", *kept]
        return f"kernelopt={' '.join([*words, *boot])}"

    return re.sub(r"(?mi)^kernelopt=([^\r\n]*)", options, told, count=1)


def check(iso: Iso) -> None:
    """Refuse what is no installer of ESXi."""
    for name in BOOT_FILES:
        told = text(iso, name) or ""
        if not re.search(r"(?mi)^title=.*\bESXi?\b", told) or not re.search(
            r"(?mi)^kernelopt=", told
        ):
            remedy = "give a VMware-VMvisor-Installer-*.iso of 7.0 or newer"
            raise other(iso, "the installer of ESXi is wanted", remedy)


def check_cd(iso: Iso) -> None:
    """Refuse, beside that, one that does not read its kickstart from a CD: 9.0 has no driver for IDE."""
    check(iso)
    told = re.search(r"(?mi)^build=(\d+)\.", text(iso, BOOT_FILES[0]) or "")
    if told and int(told[1]) >= WITHOUT_IDE:
        wanted = f"ESXi {told[1]} has no driver for IDE, where its host has the CD with its answers"
        raise other(
            iso, wanted, "give 8.0's, or let it stand on libvirt, which plugs in a USB stick"
        )


def edits(iso: Iso) -> Edits:
    """Let it read its kickstart from whatever CD has one."""
    return _told(iso, BOOT)


def edits_stick(iso: Iso) -> Edits:
    """Let it read its kickstart from a USB stick."""
    return _told(iso, BOOT_STICK)


def _told(iso: Iso, boot: Sequence[str]) -> Edits:
    changes = {}
    for name in BOOT_FILES:
        found = iso.find(name) or name
        told = text(iso, name) or ""
        changes[found] = boot_cfg(told, boot).encode("utf-8", "surrogateescape")
    return Edits(changes)


REMASTER = Remaster(version=2, check=check_cd, edits=edits)
STICK = Remaster(version=1, check=check, edits=edits_stick, stick=True)
