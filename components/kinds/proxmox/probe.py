"""A nested Proxmox VE takes orders: a ticket for its root, its node online, its storage active.

``{node, storages, url}`` beside what `ssh` takes. First over SSH, where the planned host key shows that
it is the machine it should be and not another one at its address; then its API, which answers long
after the installer's own lease (R126).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import ssh
from components.kinds.proxmox.api import Api, Pve, PveError
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from components.gates.probes import Asked, Place

USER = "root@pam"


def probe(asked: Asked, place: Place) -> Seen:
    """See `components.gates.probes.probe`."""
    seen = ssh.probe(asked, place)
    return _asked(asked) if seen.ok else seen


glance = ssh.glance


def _asked(asked: Asked) -> Seen:
    wanted = asked.probe
    node, url = wanted.node, wanted.url
    try:
        pve = Pve(Api(url=url, user=USER, password=asked.reach.password, insecure=True))
        nodes = {each["node"]: each.get("status") for each in pve.get("nodes")}
        if nodes.get(node) != "online":
            return Seen(ok=False, text=f"node {node} is {nodes.get(node, 'not known')}")
        storages = {each["storage"]: each for each in pve.get(f"nodes/{node}/storage")}
        for storage in wanted.storages:
            if not storages.get(storage, {}).get("active"):
                return Seen(ok=False, text=f"storage {storage} of node {node} is not active")
        version = pve.get("version")
    except PveError as refused:
        return Seen(ok=False, text=f"{url} refuses: {refused}")
    return Seen(ok=True, text=f"Proxmox VE {version['version']}, node {node} online")
