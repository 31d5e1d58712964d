"""XCP-ng and XenServer: an answerfile on a CD of its own, and an installer that looks for it.

The installer is told to run a script for its answerfile (``answerfile_generator=``), which is in its
own root: an archive behind the one in ``install.img``. It finds the CD, copies it and prints the
answerfile. ``mount=`` would not do: since host-installer 10.10.17, which 8.3 and XenServer 8 have,
that is mounted after the answers were read (CA-391027); the generator is there from 6.0 on.

The script that puts the keys into the new system holds no data: it copies them from the same files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from components.media import cpio
from components.media.remaster import Edits, Remaster, other, text

if TYPE_CHECKING:
    from components.media.answers import Answers
    from components.media.iso import Iso

LABEL = "nestlab"
OPTIONS = ("sr_type",)
AT = "/nestlab"
"""Where the CD's files are while the installer runs."""
GENERATOR = f"{AT}/answers.sh"
"""The script in the installer's root that prints the answerfile."""
BOOT = (f"answerfile_generator=file://{GENERATOR}", "install")
INSTALLER = "/install.img"
"""The installer's root, which Linux unpacks into memory."""
ISOLINUX = "/boot/isolinux/isolinux.cfg"
GRUB = ("/efi/xenserver/grub.cfg", "/boot/grub/grub.cfg")
"""Where the menu for UEFI is; the second, in older releases."""

# Not by the label: a kernel may keep CDs out of the list that `blkid` searches.
LOOK = f"""\
#!/bin/sh
# Made by nestlab. Run by the installer, which takes what this prints for its answerfile: looks into
# each CD for this machine's answers, and keeps a copy of all that comes with them.
set -eu
umask 077
cd={AT}/cd
mkdir -p $cd
for drive in /dev/sr*
do
    mount -t iso9660 -o ro "$drive" $cd 2> /dev/null || continue
    if test -f $cd/answerfile.xml && test -f $cd/keys.sh
    then
        cp $cd/* {AT}/
        umount $cd
        cat {AT}/answerfile.xml
        exit 0
    fi
    umount $cd
done
echo "none of the CDs holds this machine's answers" >&2
exit 1
"""
SCRIPT = """\
#!/bin/sh
# Made by nestlab. Run by the installer with the new system's root as its argument: root's key, and
# the planned SSH host key, which sshd's own start then finds there.
set -eu
umask 077
root=$1
mkdir -p "$root/root/.ssh"
cat /nestlab/authorized_keys >> "$root/root/.ssh/authorized_keys"
chmod 700 "$root/root/.ssh"
chmod 600 "$root/root/.ssh/authorized_keys"
cp /nestlab/ssh_host_ed25519_key /nestlab/ssh_host_ed25519_key.pub "$root/etc/ssh/"
chmod 600 "$root/etc/ssh/ssh_host_ed25519_key"
chmod 644 "$root/etc/ssh/ssh_host_ed25519_key.pub"
config=$root/etc/ssh/sshd_config
if grep -q '^HostKey ' "$config" && ! grep -q '^HostKey /etc/ssh/ssh_host_ed25519_key' "$config"
then
    sed -i '1i HostKey /etc/ssh/ssh_host_ed25519_key' "$config"
fi
"""


def files(answers: Answers) -> dict[str, bytes]:
    """Return what is on the CD `LABEL`.

    Options: ``sr_type``, ``ext`` (thin, the default) or ``lvm``.
    """
    return {
        "/answerfile.xml": _answerfile(answers),
        "/keys.sh": SCRIPT.encode(),
        "/authorized_keys": f"{answers.authorized_key}\n".encode(),
        "/ssh_host_ed25519_key": answers.host_private.encode(),
        "/ssh_host_ed25519_key.pub": f"{answers.host_public}\n".encode(),
    }


def _answerfile(answers: Answers) -> bytes:
    answers.only(OPTIONS)
    storage = answers.option("sr_type", "ext")
    if storage not in {"ext", "lvm"}:
        raise ValueError(f"sr_type: {storage!r} is neither ext nor lvm")
    root = ET.Element("installation", {"mode": "fresh", "srtype": storage})

    def add(tag: str, content: str = "", **attributes: str) -> ET.Element:
        element = ET.SubElement(root, tag, attributes)
        element.text = content
        return element

    add("primary-disk", answers.disk, **{"guest-storage": "yes"})
    add("keymap", answers.keyboard)
    add("root-password", answers.hashed(), type="hash")
    add("source", type="local")
    proto = "static" if answers.address else "dhcp"
    interface = add("admin-interface", hwaddr=answers.mac, proto=proto)
    if answers.address:
        for tag, value in (
            ("ipaddr", answers.address),
            ("subnet", answers.netmask),
            ("gateway", answers.gateway),
        ):
            ET.SubElement(interface, tag).text = value
        add("name-server", answers.dns)
    add("hostname", answers.name)
    add("timezone", answers.timezone)
    # A lab may have no way out, and a time server that is not reached delays each boot.
    add("ntp", source="none")
    add("network-backend", "vswitch")
    add("script", f"file://{AT}/keys.sh", stage="filesystem-populated", type="url")
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def isolinux_cfg(told: str) -> str:
    """Return isolinux' menu: the entry ``install`` with the arguments of `BOOT`, soon and by itself."""
    lines, label = [], ""
    for line in told.splitlines(keepends=True):
        words = line.split()
        word = words[0].lower() if words else ""
        if word == "label":
            label = words[1].lower()
        if word == "timeout":
            line = re.sub(r"\d+", "10", line, count=1)  # noqa: PLW2901 - tenths of a second
        elif word == "default":
            line = re.sub(r"(?i)(default\s+)\S+", r"\1install", line, count=1)  # noqa: PLW2901
        elif word == "append" and label == "install":
            line = _for_dom0(line)  # noqa: PLW2901
        lines.append(line)
    return "".join(lines)


def grub_cfg(told: str) -> str:
    """Return GRUB's menu, likewise."""
    lines, entry, number, wanted = [], "", -1, "0"
    for line in told.splitlines(keepends=True):
        if begins := re.match(r"\s*menuentry\s+[\"']([^\"']*)[\"']", line):
            entry, number = begins[1].lower(), number + 1
            wanted = str(number) if entry == "install" else wanted
        if entry == "install" and re.match(r"\s*(xen_module|module2?)\s+/boot/vmlinuz", line):
            line = f"{line.rstrip()} {' '.join(BOOT)}\n"  # noqa: PLW2901
        lines.append(re.sub(r"^(\s*set\s+timeout=)\S+", r"\g<1>1", line))
    return re.sub(r"(?m)^(\s*set\s+default=)\S+", rf'\g<1>"{wanted}"', "".join(lines))


def _for_dom0(line: str) -> str:
    """Add to what is told the kernel: the part that names vmlinuz, of Xen's, the kernel's, the rest."""
    parts = re.split(r"(\s+---)", line)
    for number, part in enumerate(parts):
        if "/vmlinuz" in part:
            parts[number] = f"{part.rstrip()} {' '.join(BOOT)}"
            return "".join(parts)
    return line


def check(iso: Iso) -> None:
    """Refuse what is no installer of XCP-ng or XenServer with a repository in it."""
    tree = text(iso, "/.treeinfo") or ""
    menus = [found for name in (ISOLINUX, *GRUB) if (found := text(iso, name)) is not None]
    remedy = "give xcp-ng-8.3*.iso (not the netinstall) or XenServer's"
    if not re.search(r"(?i)xcp-ng|xenserver|citrix hypervisor", tree) or not menus:
        raise other(iso, "the installer of XCP-ng or XenServer is wanted", remedy)
    if not any("/vmlinuz" in menu for menu in menus) or not iso.find(INSTALLER):
        raise other(iso, "its boot menu is not one that is known here", remedy)
    if not any(name.lower().startswith("/packages/") for name in iso.files()):
        raise other(iso, "what is installed has to be on it", remedy)


def edits(iso: Iso) -> Edits:
    """Let its menus choose the installation by themselves, and tell it where its answers are."""
    image = iso.find(INSTALLER) or INSTALLER
    try:
        changes = {image: cpio.appended(iso.read(image), {GENERATOR: LOOK.encode()})}
    except ValueError as wrong:
        raise other(
            iso, f"the installer's own root can't be read, {wrong}", "get it again"
        ) from None
    for name, change in ((ISOLINUX, isolinux_cfg), *((grub, grub_cfg) for grub in GRUB)):
        found, told = iso.find(name), text(iso, name)
        if found is not None and told is not None:
            changes[found] = change(told).encode("utf-8", "surrogateescape")
    return Edits(changes)


REMASTER = Remaster(version=2, check=check, edits=edits)
