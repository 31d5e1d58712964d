"""ESXi: a kickstart on a CD of its own, and an installer whose boot options name it.

``ks=cdrom:/KS.CFG`` is looked for on every CD there is, in upper case. What the installed host
needs is in the kickstart's part for the first boot, since ESXi does not mount CDs later: keys, SSH,
and a virtual switch that lets nested guests' frames pass. With UEFI Secure Boot that part is not
run, so a machine of this kind must not have it.

SSH gets the planned Ed25519 host key. ESXi makes itself none of that type and, in its FIPS mode,
takes none, so that mode is switched off for SSH; where its sshd then refuses the settings they are
taken back, and the host can be reached with its own RSA key only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from components.media.recipe import Edits, Recipe, other, text

if TYPE_CHECKING:
    from components.media.answers import Answers
    from components.media.iso import Iso

LABEL = "NESTLAB"
OPTIONS = ("licence",)
BOOT = ("ks=cdrom:/KS.CFG", "allowLegacyCPU=true", "systemMediaSize=min")
"""Boot options: the kickstart, CPUs that are only deprecated, and a datastore beside the system."""
BOOT_FILES = ("/boot.cfg", "/efi/boot/boot.cfg")

_KICKSTART = """\
vmaccepteula
rootpw --iscrypted {password}
install --firstdisk --overwritevmfs --ignoreprereqwarnings --ignoreprereqerrors --forceunsupportedinstall
{licence}network {network}
reboot

%firstboot --interpreter=busybox
set +e
umask 077
esxcli system hostname set --fqdn={fqdn}

# Frames of nested guests carry addresses that are not the virtual switch's own.
esxcli network vswitch standard policy security set --vswitch-name=vSwitch0 --allow-promiscuous=true --allow-forged-transmits=true --allow-mac-change=true

# FIPS mode knows no Ed25519 keys.
esxcli system security fips140 ssh set --enable=false
mkdir -p /etc/ssh/keys-root
cat > /etc/ssh/keys-root/authorized_keys << 'NESTLAB'
{authorized}
NESTLAB
chmod 600 /etc/ssh/keys-root/authorized_keys
cat > /etc/ssh/ssh_host_ed25519_key << 'NESTLAB'
{private}NESTLAB
cat > /etc/ssh/ssh_host_ed25519_key.pub << 'NESTLAB'
{public}
NESTLAB
chmod 600 /etc/ssh/ssh_host_ed25519_key
cp /etc/ssh/sshd_config /tmp/sshd_config.before
(
    echo "HostKey /etc/ssh/ssh_host_ed25519_key"
    echo "HostKeyAlgorithms +ssh-ed25519"
    echo "PubkeyAcceptedKeyTypes +ssh-ed25519"
    cat /tmp/sshd_config.before
) > /etc/ssh/sshd_config
/usr/lib/vmware/openssh/bin/sshd -t || cp /tmp/sshd_config.before /etc/ssh/sshd_config

vim-cmd hostsvc/enable_ssh
vim-cmd hostsvc/start_ssh
vim-cmd hostsvc/enable_esx_shell
vim-cmd hostsvc/start_esx_shell
/etc/init.d/SSH restart
esxcli system settings advanced set --option=/UserVars/SuppressShellWarning --int-value=1
/sbin/auto-backup.sh
"""


def files(answers: Answers) -> dict[str, bytes]:
    """Return what is on the answers' CD.

    Options: ``licence``, a key of five groups; none means 60 days of everything.
    """
    answers.only(OPTIONS)
    licence = answers.option("licence", "")
    if licence and not re.fullmatch(r"[0-9A-Z]{5}(-[0-9A-Z]{5}){4}", licence):
        raise ValueError("licence: a key of ESXi is five groups of five letters and digits")
    kickstart = _KICKSTART.format(
        password=answers.hashed(),
        licence=f"serialnum --esx={licence}\n" if licence else "",
        network=_network(answers),
        fqdn=answers.fqdn,
        authorized=answers.authorized_key,
        private=answers.host_private,
        public=answers.host_public,
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


def boot_cfg(told: str) -> str:
    """Return a boot.cfg with the options of `BOOT`, instead of what it says of the same things."""
    ours = {word.partition("=")[0].lower() for word in BOOT}

    def options(line: re.Match[str]) -> str:
        kept = [w for w in line[1].split() if w.partition("=")[0].lower() not in ours]
        words = kept if "runweasel" in kept else ["runweasel", *kept]
        return f"kernelopt={' '.join([*words, *BOOT])}"

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


def edits(iso: Iso) -> Edits:
    """Let it read its kickstart from whatever CD has one."""
    changes = {}
    for name in BOOT_FILES:
        found = iso.find(name) or name
        told = text(iso, name) or ""
        changes[found] = boot_cfg(told).encode("utf-8", "surrogateescape")
    return Edits(changes)


RECIPE = Recipe(version=1, check=check, edits=edits)
