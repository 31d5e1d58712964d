"""Whether another machine's libvirt can be asked, and if not, which step of the way there is missing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from components.reach import client
from components.reach.shell import LocalShell, Unreachable

if TYPE_CHECKING:
    from components.reach.shell import Shell

AT = "lab.host.uri"
PATIENCE_S = 25.0
"""ssh itself gives up on a host that says nothing before this, seconds (`client.OPTIONS`)."""
NOT_THERE = "is libvirt installed and running there? `sudo apt-get install libvirt-daemon-system`"
OFF = "is it on, does its SSH server run, and is this its name and port?"
STEPS = (
    (
        r"virsh is not installed|^env: .virsh",
        "virsh is not here",
        "run `make host`",
    ),
    (
        r"IDENTIFICATION HAS CHANGED",
        "its host key is another one than the one that is known",
        "ask who runs it; if it was installed anew, `ssh-keygen -R` forgets the old key",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "its host key is not known",
        "compare and accept it once with `ssh {entry}`, or name a file that has it, ?knownhosts=PATH",
    ),
    (
        r"Permission denied \(|Too many authentication failures",
        "it lets nobody in with that user and key",
        "put the public key into ~/.ssh/authorized_keys there (`ssh-copy-id`), or name another, ?keyfile=PATH",
    ),
    (
        r"Could not resolve|Name or service not known",
        "nobody knows its name",
        "correct the host in the URI, or give it an address in /etc/hosts",
    ),
    (
        r"libvirt-sock'?: Permission denied|authentication unavailable|access denied by policy",
        "libvirt there does not take orders from this user",
        "there, `sudo adduser {user} libvirt`; the next login counts",
    ),
    (
        r"(Failed to connect socket to|libvirt-sock).*(No such file|Connection refused)",
        "no libvirt listens there",
        NOT_THERE,
    ),
    (
        r"(virt-ssh-helper|\bnc\b|netcat).*not found",
        "no libvirt listens there",
        NOT_THERE,
    ),
    (
        r"timed out|did not end within|No route to host|Network is unreachable|port \d+: Connection refused",
        "nobody answers there",
        OFF,
    ),
)
"""What ssh, libvirt's helper or libvirt say (LC_ALL=C), what that means, and what to do; the first counts."""


def wrong(uri: str, shell: Shell | None = None) -> str:
    """Return why libvirt at ``uri`` can't be asked, as a line that names the field; empty: it can.

    ``shell`` is this machine's. Takes as long as ssh waits for a host that says nothing.
    """
    host = client.host_shell(uri)
    if not isinstance(host, client.ClientShell):
        return ""
    if not host.user:
        # terraform-provider-libvirt 0.8.3 (libvirt/uri/ssh.go) has a user from the URI alone.
        rule = "the provider logs in as whom the URI names, and as nobody else"
        return f"{AT}: {host.host!r} given, but {rule}: write USER@{host.host}"
    try:
        done = (shell or LocalShell()).run([*client.virsh(uri), "uri"], timeout_s=PATIENCE_S)
    except Unreachable as silent:
        return _told(host, str(silent))
    return "" if done.ok else _told(host, done.err or done.said)


def _told(host: client.ClientShell, said: str) -> str:
    user, entry = host.user or "YOU", f"{host.user}@{host.host}" if host.user else host.host
    entry = f"-p {host.port} {entry}" if host.port else entry
    given = f"{AT}: {host.host!r} given"
    for pattern, rule, remedy in STEPS:
        if re.search(pattern, said, re.MULTILINE):
            return f"{given}, but {rule}: {remedy.format(user=user, entry=entry)} (it says: {_last(said)})"
    return f"{given}, but its libvirt can't be asked: {OFF} (it says: {_last(said)})"


def _last(said: str) -> str:
    """Return the last line of ``said`` that says something, without what libvirt puts around it."""
    rows = [line.strip() for line in said.splitlines() if line.strip()]
    plain = [
        re.sub(r"^error: |Cannot recv data: |: Connection reset by peer$", "", row) for row in rows
    ]
    return plain[-1] if plain else "nothing"
