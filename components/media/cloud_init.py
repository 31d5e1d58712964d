"""Debian and Ubuntu cloud images: cloud-init's NoCloud seed, and the hypervisors it makes of them.

No installer: the image is cloned, and this CD tells it who it is. VirtualBox and VMware Workstation
come from files that the user brings, on a CD labelled `TOOLS_LABEL`; VirtualBox may come from the
distribution (Ubuntu has it, Debian 12 has not), Xen does.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.media.answers import Answers

LABEL = "cidata"
TOOLS_LABEL = "nestlab-tools"
TOOLS = "/run/nestlab-tools"
"""Where the machine mounts that CD while it sets itself up."""
SYNC = "sync"
"""The last command of every seed: file systems write up to half a minute later, and a machine that is switched off
the hard way before would come back without the host key that it was told."""
OPTIONS = ("instance", "packages", "product", "user")
REVERSED = (7, 2, 10)
"""The first VirtualBox that wants KVM to take the CPU's extension at load, if it is loaded at all."""

_DISTRIBUTED = "DEBIAN_FRONTEND=noninteractive apt-get install -y virtualbox virtualbox-dkms"
_MOUNT = f"mkdir -p {TOOLS} && mount -o ro LABEL={TOOLS_LABEL} {TOOLS}"
_UNMOUNT = f"umount {TOOLS}"
_ALLOW_NESTED = (
    "grep -qs '^vmx.allowNested' /etc/vmware/config || "
    "echo 'vmx.allowNested = \"TRUE\"' >> /etc/vmware/config"
)
_EARLY = "/etc/grub.d/08_linux_xen"
_HEADERS = 'apt-get install -y "linux-headers-$(uname -r)"'


@dataclass(frozen=True)
class Setup:
    """What makes a hypervisor of a plain system."""

    packages: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Contents by path; they are written before packages are installed."""
    commands: tuple[str, ...] = ()
    """Lines of shell, run in order as one script that stops at the first failure."""
    reboot: bool = False


def virtualbox(
    *, deb: str | None = None, extension_pack: str | None = None, licence: str | None = None
) -> Setup:
    """Return VirtualBox, from Oracle's package on the tools' CD or from the distribution.

    KVM's modules are kept out: the two can't share the CPU's extension (R75). Where they are loaded
    all the same, what they must do at load depends on VirtualBox' version.

    Args:
        deb: Name of Oracle's package on the CD; None for the distribution's.
        extension_pack: Name of the extension pack on the CD; None for none.
        licence: SHA-256 of the pack's licence, by which the user accepts it.
    """
    if (extension_pack is None) != (licence is None):
        raise ValueError(
            "extension_pack: it is installed with its licence's SHA-256, or not at all"
        )
    if licence is not None and not re.fullmatch(r"[0-9a-f]{64}", licence):
        raise ValueError("licence: a SHA-256 is 64 hexadecimal digits")
    rules = "blacklist kvm_intel\nblacklist kvm_amd\nblacklist kvm\n"
    if deb and (version := _version(deb)) and version < REVERSED:
        rules += "options kvm enable_virt_at_load=0\n"
    commands = ["modprobe -r kvm_intel kvm_amd kvm || true", _HEADERS]
    if deb or extension_pack:
        commands.append(_MOUNT)
    commands.append(
        f"apt-get install -y {quote(f'{TOOLS}/{_plain(deb)}')}" if deb else _DISTRIBUTED
    )
    if extension_pack:
        commands.append(
            f"VBoxManage extpack install --replace --accept-license={licence} "
            f"{quote(f'{TOOLS}/{_plain(extension_pack)}')}"
        )
    if deb or extension_pack:
        commands.append(_UNMOUNT)
    commands += ["modprobe vboxdrv || /sbin/vboxconfig", "VBoxManage --version"]
    return Setup(
        packages=("dkms", "gcc", "make", "perl"),
        files={"/etc/modprobe.d/nestlab-virtualbox.conf": rules},
        commands=tuple(commands),
    )


def workstation(*, bundle: str) -> Setup:
    """Return VMware Workstation, from the maker's ``bundle`` on the tools' CD."""
    return Setup(
        packages=("build-essential",),
        commands=(
            _HEADERS,
            _MOUNT,
            f"sh {quote(f'{TOOLS}/{_plain(bundle)}')} --console --eulas-agreed --required",
            _UNMOUNT,
            "vmware-modconfig --console --install-all",
            # It starts no machine inside another hypervisor unless told.
            _ALLOW_NESTED,
            "vmrun -T ws list",
        ),
    )


def xen(*, dom0_mib: int = 1024) -> Setup:
    """Return Xen of Debian's, booted by default at the next start.

    GRUB's menu has Xen's entries last (20) and boots its first: put before the kernel's (10).
    """
    if dom0_mib < 512:  # noqa: PLR2004 - below it Debian's dom0 runs out while it boots
        raise ValueError(f"dom0_mib: {dom0_mib} is less than the 512 that Debian needs")
    return Setup(
        packages=("xen-system-amd64",),
        files={
            "/etc/default/grub.d/zz-nestlab-xen.cfg": "GRUB_DEFAULT=0\nXEN_OVERRIDE_GRUB_DEFAULT=1\n"
            f'GRUB_CMDLINE_XEN_DEFAULT="dom0_mem={dom0_mib}M,max:{dom0_mib}M"\n'
        },
        commands=(
            f"dpkg-divert --local --rename --divert {_EARLY} --add /etc/grub.d/20_linux_xen",
            "update-grub",
        ),
        reboot=True,
    )


def files(answers: Answers) -> dict[str, bytes]:
    """Return what is on the CD `LABEL`.

    Options: ``product``, a `Setup`; ``packages``, a list of more; ``user``, who may log in besides
    root; ``instance``, what makes cloud-init run everything anew when it changes.
    """
    return {
        "/user-data": ("#cloud-config\n" + document(_user_data(answers))).encode(),
        "/meta-data": document(_meta_data(answers)).encode(),
        "/network-config": document(_network(answers)).encode(),
    }


def _user_data(answers: Answers) -> dict[str, object]:
    answers.only(OPTIONS)
    product = answers.options.get("product", Setup())
    more = answers.options.get("packages", ())
    if not isinstance(product, Setup):
        raise ValueError("product: it is what one of this module's functions returns")  # noqa: TRY004 - the rule for answers
    if not isinstance(more, list | tuple) or not all(
        isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in more
    ):
        raise ValueError("packages: it is a list of names of Debian packages")
    users: list[object] = [
        {"name": "root", "lock_passwd": False, "ssh_authorized_keys": [answers.authorized_key]}
    ]
    if name := answers.option("user", ""):
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", name) or name == "root":
            raise ValueError(f"user: {name!r} is no name of a user")
        users.append(user(name, [answers.authorized_key]))
    told: dict[str, object] = {
        "hostname": answers.name,
        "fqdn": answers.fqdn,
        "manage_etc_hosts": True,
        "timezone": answers.timezone,
        "keyboard": {"layout": answers.keyboard.partition("-")[0]},
        "disable_root": False,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": host_keys(answers.host_private, answers.host_public),
        "users": users,
        "chpasswd": {
            "expire": False,
            "users": [{"name": "root", "password": answers.hashed(), "type": "hash"}],
        },
        "growpart": {"mode": "auto", "devices": ["/"]},
    }
    if packages := [*product.packages, *more]:
        told["package_update"] = True
        told["packages"] = packages
    if product.files:
        told["write_files"] = [
            {"path": path, "content": content, "owner": "root:root", "permissions": "0644"}
            for path, content in product.files.items()
        ]
    if product.commands:
        told["runcmd"] = [["sh", "-ec", "\n".join((*product.commands, SYNC)) + "\n"]]
    if product.reboot:
        told["power_state"] = {"mode": "reboot", "delay": "now", "message": "nestlab: new kernel"}
    return told


def _meta_data(answers: Answers) -> dict[str, object]:
    own = hashlib.sha256(answers.host_public.encode()).hexdigest()[:16]
    instance = answers.option("instance", f"{answers.name}-{own}")
    return {"instance-id": instance, "local-hostname": answers.name}


def _network(answers: Answers) -> dict[str, object]:
    address = str(answers.interface) if answers.address else ""
    told = nic(answers.mac, address, answers.gateway or "", answers.domain, answers.dns)
    return {"version": 2, "ethernets": {"nic0": told}}


def user(name: str, keys: Sequence[str], *, locked: bool | None = None) -> dict[str, object]:
    """Return somebody who may become root; ``locked`` None: as cloud-init has it, without a password."""
    return {
        "name": name,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": list(keys),
        **({} if locked is None else {"lock_passwd": locked}),
    }


def host_keys(private: str, public: str) -> dict[str, object]:
    """Return the key by which a machine is known, planned beforehand."""
    return {"ed25519_private": private, "ed25519_public": public}


def nic(mac: str, address: str, gateway: str, domain: str, dns: str = "") -> dict[str, object]:
    """Return a NIC in network-config's version 2; ``address`` with its prefix, empty for DHCP.

    Without ``gateway`` nothing but its subnet is reached by it; ``dns`` is the gateway where none is told.
    """
    told: dict[str, object] = {"match": {"macaddress": mac}}
    if not address:
        return told | {"dhcp4": True}
    told |= {"dhcp4": False, "addresses": [address]}
    if gateway:
        # Not "default": what Debian writes with it, ifupdown does not take.
        told["routes"] = [{"to": "0.0.0.0/0", "via": gateway}]
        search = {"search": [domain]} if domain else {}
        told["nameservers"] = {"addresses": [dns or gateway], **search}
    return told


def document(told: Mapping[str, object]) -> str:
    """Return ``told`` as YAML, in its order: whatever a text holds, it is read back as that text."""
    return yaml.safe_dump(dict(told), sort_keys=False, width=10_000, allow_unicode=True)


def _plain(name: str) -> str:
    """Return a file's name, if it is one in the root of a CD."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]*", name):
        raise ValueError(f"{name!r} is no plain name of a file")
    return name


def _version(name: str) -> tuple[int, ...]:
    """Return the version in the name of a Debian package, virtualbox-7.1_7.1.4-165100~..."""
    found = re.search(r"_(\d+)\.(\d+)\.(\d+)", name)
    return tuple(map(int, found.groups())) if found else ()
