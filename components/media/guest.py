"""What a guest with cloud-init is told: the files of a NoCloud disc (cloudinit.readthedocs.io, "NoCloud").

The documents are dumped by a YAML library from plain values, so no text in them can become a field. What
runs at the end writes how it went, which is how the guest is known to be ready (`OUTCOME`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING

from components.media import cloud_init
from components.media.answers import crypt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OUTCOME = "/var/lib/nestlab/outcome"
"""File of the guest in which its last commands say how they went."""
DONE = "done"
_SCRIPT = """\
mkdir -p {folder}
say() {{ echo "$1 {mark}" > {outcome}; }}
trap '[ "$?" = 0 ] || say "failed at $step of"' EXIT
set -e
{steps}
say {done}
sync
"""
_RUN = "/run/cloud-init"
_AT_WORK = (
    f"if [ -d {_RUN} ] && ! [ -e {_RUN}/result.json ] && ! [ -e {_RUN}/disabled ]; "
    "then echo cloud-init has not ended yet >&2; exit 1; fi; "
)
"""It writes the first when it is done, at each boot, and the second where somebody switched it off (its
documentation, "Exported errors", and its generator). Until then it may start the SSH server anew, as it does when it
sets whether passwords are taken."""
# Not `dpkg-query -W NAME`: that knows each that an installed one mentions. Whoever asks for what others provide (awk)
# gets one of these.
_CHECK = """\
if command -v dpkg-query >/dev/null; then
  for name in {names}; do
    dpkg-query -W -f '${{db:Status-Status}},${{Package}},${{Provides}}\\n' | sed -n 's/^installed,//p' |
      tr ',' '\\n' | sed 's/^ *//; s/[ :].*//' | grep -qxF -e "$name"
  done
elif command -v rpm >/dev/null; then rpm -q --whatprovides {names} >/dev/null
fi"""


@dataclass(frozen=True)
class Nic:
    """A NIC of the guest, and how it gets its address."""

    mac: str
    address: str = ""
    """IPv4 with its prefix; empty: by DHCP."""
    gateway: str = ""
    """Where the rest of the world is, and names are asked for; empty: nowhere by this NIC."""
    domain: str = ""


@dataclass(frozen=True)
class Configuration:
    """What one guest is told; every text was checked by the stack file's model."""

    user: str
    hostname: str
    keys: Sequence[str]
    """OpenSSH's public lines, the lab's own among them."""
    nics: Sequence[Nic]
    instance: str
    """cloud-init acts once on each."""
    mark: str
    """What tells this configuration from others of the guest."""
    host_private: str = field(repr=False)
    host_public: str
    password: str = field(default="", repr=False)
    """Empty: only keys open it."""
    packages: Sequence[str] = ()
    commands: Sequence[str] = ()

    @property
    def domain(self) -> str:
        """The first that a NIC's network has."""
        return next((nic.domain for nic in self.nics if nic.domain), "")


def files(told: Configuration) -> dict[str, str]:
    """Return what is on the disc `components.media.cloud_init.LABEL`; holds secrets."""
    return disc(told, _user_data(told))


def disc(told: Configuration, user_data: Mapping[str, object]) -> dict[str, str]:
    """Return the files of a disc with that ``user_data``, which is all that differs between systems."""
    return {
        "/user-data": "#cloud-config\n" + cloud_init.document(user_data),
        "/meta-data": cloud_init.document(
            {"instance-id": told.instance, "local-hostname": told.hostname}
        ),
        "/network-config": cloud_init.document(_network(told)),
    }


def asked(user: str, mark: str, *, finishes: bool) -> tuple[list[str], str]:
    """Return a command that a guest answers once it is itself, and what its output holds then.

    ``finishes``: it has packages or commands, and is itself when these are done.
    """
    # `sync`: what it was told is then on its disk, and the guest may be switched off.
    if not finishes:
        return ["sh", "-c", f"{_AT_WORK}id -un && {cloud_init.SYNC}"], user
    not_yet = "echo its packages and commands are not done yet"
    words = f"if cat {OUTCOME} 2>/dev/null; then {cloud_init.SYNC}; else {not_yet}; fi"
    return ["sh", "-c", words], f"{DONE} {mark}"


def _user_data(told: Configuration) -> dict[str, object]:
    keys = [key.strip() for key in told.keys]
    user = cloud_init.user(told.user, keys, locked=not told.password)
    found: dict[str, object] = {
        "hostname": told.hostname,
        **({"fqdn": f"{told.hostname}.{told.domain}"} if told.domain else {}),
        "manage_etc_hosts": True,
        "ssh_pwauth": bool(told.password),
        "ssh_deletekeys": True,
        "ssh_keys": cloud_init.host_keys(told.host_private, told.host_public),
        "users": [user],
        "growpart": {"mode": "auto", "devices": ["/"]},
    }
    if told.password:
        hashed = crypt(told.password, f"{told.hostname} {told.host_public}")
        # The first for a user that is being made, and all versions; the second, since 22.3, for one that is there.
        user["passwd"] = hashed
        found["chpasswd"] = {
            "expire": False,
            "users": [{"name": told.user, "password": hashed, "type": "hash"}],
        }
    if told.packages:
        found |= {"package_update": True, "packages": list(told.packages)}
    last = ["sh", "-c", _script(told)] if told.packages or told.commands else [cloud_init.SYNC]
    found["runcmd"] = [last]
    return found


def _script(told: Configuration) -> str:
    """Return what runs last: it looks whether the packages are there, runs the commands, and says how it went."""
    steps = []
    if told.packages:
        names = " ".join(quote(name) for name in told.packages)
        steps.append(f"step=packages\n{_CHECK.format(names=names)}")
    for number, command in enumerate(told.commands):
        # A shell of its own: what is wrong in it ends it alone, and `exit 0` is no end of the rest.
        steps.append(f"step=commands.{number}\nsh -ec {quote(command)}")
    return _SCRIPT.format(
        folder=OUTCOME.rpartition("/")[0],
        outcome=OUTCOME,
        mark=told.mark,
        steps="\n".join(steps),
        done=DONE,
    )


def _network(told: Configuration) -> dict[str, object]:
    nics: dict[str, object] = {}
    routed = False
    for number, nic in enumerate(told.nics):
        gateway = "" if routed else nic.gateway
        nics[f"nic{number}"] = cloud_init.nic(nic.mac, nic.address, gateway, nic.domain)
        routed = routed or bool(nic.gateway)
    return {"version": 2, "ethernets": nics}
