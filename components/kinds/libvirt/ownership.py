"""Which object of a host is a lab's: by its UUID or by a list of names, never by where it lies.

Names are people's and can be taken by anybody; the UUIDs of a lab are computed from one random
number in its state. So a half-made object of this lab is told from a stranger of the same name, is
taken over by the next `pulumi up`, and is swept up by the last step of `pulumi destroy`. The number
is also in the name of the lab's folder for disks, which is so nobody else's; out of it go only
volumes that the lab has a note of, and the folder itself only when nothing else is in it.
"""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from components.gates.uuids import uuid_of
from components.kinds.libvirt import reached
from components.kinds.libvirt.gates.closed import opened
from components.kinds.libvirt.uplink.host import Host
from components.kinds.libvirt.uplink.trial import swept
from components.kinds.libvirt.virsh import COMMANDS, VirshError, libvirt_of
from components.reach.client import host_shell
from components.reach.shell import Unreachable
from components.reach.waiting import say

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from components.gates.identity import Whose
    from components.kinds.libvirt.virsh import PoolFacts, Virsh

CONSOLE_LOG = "/var/log/libvirt/qemu/{domain}-console.log"
"""Where a domain's serial console is also written to, on its host."""
KINDS = ("domain", "network", "pool")
"""What carries a lab's UUID, in the order in which it can be removed."""
SHOWN = 4
"""Names that a message lists."""


def left_behind(virsh: Virsh, identity: str) -> Iterator[tuple[str, str, str]]:
    """Yield kind, UUID and name of everything at the place that is this lab's."""
    for kind in KINDS:
        for found, name in virsh.pairs(kind):
            if found == uuid_of(identity, kind, name):
                yield kind, found, name


def ours(virsh: Virsh, kind: str, made: Mapping[str, str]) -> list[str]:
    """Names of ``made`` (UUID by name) that are there, and are what was made."""
    return [name for name, found in virsh.uuids(kind, *made).items() if found == made[name]]


def strangers(virsh: Virsh, kind: str, wanted: Mapping[str, str]) -> list[str]:
    """Names of ``wanted`` (UUID by name) that another ``kind`` of the place has."""
    return [name for name, found in virsh.uuids(kind, *wanted).items() if found != wanted[name]]


def taken(virsh: Virsh, kind: str, names: Collection[str]) -> str:
    """Say that others have ``names``, and what to do."""
    shown = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return (
        f"{virsh.host.name} has a {kind} {shown} already, which is not this lab's. A lab of the same "
        "name may be up, from another checkout or of another user: take that one down, or give this "
        "one another name (lab.name in its stack file)"
    )


def remove(virsh: Virsh, kind: str, name: str, volumes: Collection[str] = ()) -> None:
    """Remove a domain, network or pool (name or UUID), whatever state it is in.

    Of what is in a pool's folder only ``volumes`` go, by their names, and the folder only when it is
    empty then; what stays is told.

    Raises:
        VirshError: libvirt does not let go of it.
    """
    if kind == "domain":
        virsh.run("destroy", name)
        virsh.must("undefine", name, "--nvram", "--managed-save", "--snapshots-metadata")
    elif kind == "network":
        virsh.run("net-destroy", name)
        virsh.must("net-undefine", name)
    elif facts := virsh.pool(name):
        _remove_pool(virsh, name, facts, volumes)


def _remove_pool(virsh: Virsh, name: str, facts: PoolFacts, volumes: Collection[str]) -> None:
    if volumes:
        virsh.together(
            *(("pool-start", name), ("pool-refresh", name)),
            *(("vol-delete", volume, "--pool", name) for volume in sorted(volumes)),
        )
    virsh.run("pool-destroy", name)
    # Of a folder that is libvirt's rmdir(2), which takes an empty one only.
    kept = virsh.run("pool-delete", name)
    virsh.must("pool-undefine", name)
    if not kept.ok and "No such file" not in kept.err:
        say(f"{facts.path} at {virsh.host.name} stays, it holds what is not the lab's: {kept.said}")


def same(one: str, other: str) -> bool:
    """Whether two definitions of libvirt (XML) are about the same object: one with the same UUID."""
    found = [ET.fromstring(xml).findtext("uuid") for xml in (one, other)]  # noqa: S314 - libvirt's own
    return found[0] == found[1]


def defined(virsh: Virsh, kind: str, name: str, found: str | None, known: str) -> str:
    """Return the definition of the lab's ``kind`` ("domain", ...), which is defined again if it is gone.

    ``found`` is the definition that ``name`` has there, None where it has none; ``known`` the one that
    the lab made, empty for what is seen for the first time.

    Raises:
        VirshError: somebody else's has its name, or it was never there.
    """
    if found is not None:
        insist(kind, name, found, known)
        return found
    if not known:
        raise VirshError(f"{kind} {name} is not defined at {virsh.host.name}")
    virsh.define(kind, known)
    virsh.must(f"{COMMANDS[kind]}autostart", name)
    return known


def insist(kind: str, name: str, found: str, known: str) -> None:
    """See to it that the object that is there now is the one that was made.

    ``found`` and ``known`` are its definitions; nothing is asked without ``known``.

    Raises:
        VirshError: somebody else's has its name.
    """
    if known and not same(found, known):
        raise VirshError(
            f"{kind} {name} is not this lab's any more, somebody made another one of that name: "
            "rename or remove that one"
        )


def logs_away(virsh: Virsh, domains: Collection[str]) -> None:
    """Remove the console logs of ``domains``, those that this lab made and that are gone.

    A gate that is stopped while it waits leaves one on purpose: it says what was wrong.
    """
    if not domains:
        return
    there = virsh.uuids("domain", *domains)
    for domain in domains:
        if domain not in there:
            virsh.log_away(CONSOLE_LOG.format(domain=domain))


def unreached(props: Whose) -> str:
    """Return why the outer host's libvirt can't be asked, where that is another machine's; empty: it can."""
    return reached.wrong(props.uri) if props.target.kind == "local" else ""


def claim(props: Whose) -> str:
    """See to it that nobody else has a new lab's name; return the group that QEMU runs in, empty for none known.

    Raises:
        VirshError: a lab of that name is up.
    """
    virsh = libvirt_of(props)
    # Two labs of one name on one host: told before anything is made.
    if props.pool and virsh.uuids("pool", props.pool):
        raise VirshError(taken(virsh, "pool", [props.pool]))
    return virsh.qemu_group()


def sweep(props: Whose) -> None:
    """Remove what steps that did not end left of a lab that is taken down.

    Raises:
        VirshError, Unreachable: libvirt does not answer, or does not let go.
    """
    virsh = libvirt_of(props)
    for kind, uuid, name in list(left_behind(virsh, props.value or "")):
        remove(virsh, kind, uuid)
        say(f"removed {kind} {name}, left behind by a step that did not end")
        logs_away(virsh, [name] if kind == "domain" else [])
    # Last: machines were plugged into them. One whose ssh leads to libvirt alone has none.
    with contextlib.suppress(Unreachable):
        host = Host(host_shell(props.uri))
        for name in opened(host, props.value or ""):
            say(f"opened the network on {name}, closed by a step that did not end")
        for name in swept(host, props.value or ""):
            say(f"took back the uplink {name}, left behind by a step that did not end")
