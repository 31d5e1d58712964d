"""Which programs of the system a lab needs, and getting them from Debian's own packages.

Other distributions are served by the list alone: it says which programs are missing, and the
user installs them. Nothing is ever upgraded or removed, and present packages are left as they are.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from toolchain.bootstrap.ui import Problem, step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from toolchain.machine.system import System

# Package -> a program of it that is used, empty where only its files are (firmware, boot ROMs).
NEEDED = {
    "libvirt-daemon-system": "libvirtd",
    "libvirt-clients": "virsh",
    "qemu-system-x86": "qemu-system-x86_64",
    "qemu-utils": "qemu-img",
    "ovmf": "",
    "dnsmasq-base": "dnsmasq",
    "iptables": "iptables",
    "iproute2": "ip",
    "openssh-client": "ssh",
    "xorriso": "xorriso",
    "genisoimage": "genisoimage",
    "xsltproc": "xsltproc",
    "mmdebstrap": "mmdebstrap",
    "uidmap": "newuidmap",
    "fakeroot": "fakeroot",
    "e2fsprogs": "mkfs.ext4",
    "ipxe": "",
    "ipxe-qemu": "",
}

INDEX_TIMEOUT_S = 300
INSTALL_TIMEOUT_S = 1800


def missing(system: System, wanted: Iterable[str] = ()) -> list[str]:
    """Packages of ``wanted``, or of `NEEDED`, that are not installed.

    Without dpkg, those whose program is not found; what has no program is then not looked for.
    """
    wanted = list(wanted) or list(NEEDED)
    if not system.which("dpkg-query"):
        programs = {package: NEEDED.get(package) for package in wanted}
        return [name for name, program in programs.items() if program and not system.which(program)]
    asked = system.run(["dpkg-query", "-W", "-f=${db:Status-Status} ${Package}\n", *wanted])
    installed = {
        line.split()[1] for line in asked.out.splitlines() if line.startswith("installed ")
    }
    return [package for package in wanted if package not in installed]


def refusal(system: System, lacking: list[str]) -> str:
    """What to tell somebody who must install ``lacking`` by hand."""
    words = " ".join(lacking)
    if system.which("apt-get"):
        return (
            f"these packages are missing: {words}. Installing needs root, and sudo without a "
            f"password is not there. Run:\n"
            f"  sudo apt-get install --no-install-recommends {words}"
        )
    programs = " ".join(NEEDED[package] or package for package in lacking)
    return (
        f"these programs are missing: {programs}. This is no Debian, so they are not installed "
        f"for you; by Debian's names they come with: {words}"
    )


def install(system: System, lacking: list[str]) -> None:
    """Install ``lacking`` from the configured Debian archives. Root only.

    Raises:
        Problem: there is no apt-get, or it failed.

    """
    if not system.which("apt-get"):
        raise Problem(refusal(system, lacking))
    _apt(["update", "-qq"], "fetch Debian's package lists", INDEX_TIMEOUT_S)
    _apt(
        ["install", "-y", "-qq", "--no-install-recommends", *lacking],
        f"install {len(lacking)} Debian packages",
        INSTALL_TIMEOUT_S,
        detail=" ".join(lacking),
    )


def _apt(words: list[str], title: str, timeout_s: float, *, detail: str = "") -> None:
    # Somebody else's apt (unattended upgrades) may hold dpkg's lock for minutes: wait, don't fail.
    argv = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *words]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    with step(title, detail):
        try:
            done = subprocess.run(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise Problem(
                f"`{' '.join(argv)}` did not end within {timeout_s:g} s: run it by hand to see why."
            ) from late
    if done.returncode:
        said = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-8:])
        raise Problem(
            f"`{' '.join(argv)}` failed:\n{said}\nMend Debian's package set-up and repeat."
        )
