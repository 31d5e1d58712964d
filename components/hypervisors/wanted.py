"""What the drivers of `components.remote.drivers` are given: plain data, the same for every driver.

A driver knows its hypervisor's commands and nothing of stack files; this knows the plan and nothing
of commands. The keys here are the contract between the two:

network    name, mode, bridge, subnet, prefix, gateway, dhcp, dhcp_start, dhcp_end, domain,
           reservations (a list of mac, address, name), owner
medium     name (a file name), path (on this machine), sha256, size (bytes), store, owner
guest      name, memory_mib, cores, disk_gib, disk_bus, firmware, machine, video, boot (a list of
           cdrom, hd, network), nics (a list of network, mac, model, address), iso, image (paths at
           the place, empty for none), autostart, console (type, listen, port, password), ready
           (probe, host, port), store, owner
container  name, template, archive, sha256, memory_mib, cores, command, autostart, bridge, mac, address
           (with prefix), gateway

Numbers arrive as floats. ``owner`` is a UUID that no other lab has: it tells what is the lab's own from
what somebody made by hand under the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pulumi

    from components.hypervisors.handle import JsonMap, Lab, NetworkMade
    from components.spec import (
        ContainerSpec,
        GuestSpec,
        MachinePlan,
        NetworkPlan,
        PlacePlan,
    )

Wanted = dict[str, Any]


def network(plan: NetworkPlan, reservations: Sequence[JsonMap], owner: pulumi.Input[str]) -> Wanted:
    """Return what a driver makes a network of."""
    return {
        "name": plan.libvirt_name,
        "mode": plan.mode,
        "bridge": plan.bridge,
        "subnet": plan.subnet or "",
        "prefix": plan.prefix or 0,
        "gateway": plan.gateway or "",
        "dhcp": plan.dhcp,
        "dhcp_start": plan.dhcp_start or "",
        "dhcp_end": plan.dhcp_end or "",
        "domain": plan.domain or "",
        "reservations": [dict(one) for one in reservations] if plan.dhcp else [],
        "owner": owner,
    }


def medium(name: str, path: Path, sha256: str, store: str, owner: pulumi.Input[str]) -> Wanted:
    """Return what a driver uploads: ``path``, as ``name`` in the folder ``store`` of the place."""
    return {
        "name": name,
        "path": str(path),
        # A medium that was exchanged for another under the same name is another one. In a preview it
        # need not be there.
        "size": path.stat().st_size if path.is_file() else 0,
        "sha256": sha256,
        "store": store,
        "owner": owner,
    }


def guest(
    spec: GuestSpec,
    plan: MachinePlan,
    networks: Mapping[str, NetworkMade],
    *,
    iso: pulumi.Input[str],
    image: pulumi.Input[str],
    password: pulumi.Input[str],
    store: str,
    owner: pulumi.Input[str],
) -> Wanted:
    """Return what a driver makes a guest of."""
    tcp = plan.ready.probe == "tcp"
    return {
        "name": plan.domain_name,
        "memory_mib": plan.memory_mib,
        "cores": plan.cores,
        "disk_gib": plan.disk_gib,
        "disk_bus": plan.disk_bus or "",
        "firmware": spec.firmware,
        "machine": spec.machine,
        "video": spec.video,
        "boot": list(plan.boot),
        "nics": [
            {
                "network": networks[nic.network].name,
                "mac": nic.mac,
                "model": nic.model or "",
                "address": nic.address or "",
            }
            for nic in plan.nics
        ],
        "iso": iso,
        "image": image,
        "autostart": spec.autostart,
        "console": {
            "type": spec.console.type,
            "listen": spec.console.listen,
            "port": spec.console.port or 0,
            "password": password,
        },
        "ready": {
            "probe": "tcp" if tcp else "none",
            "host": (plan.address or "") if tcp else "",
            "port": (plan.ready.port or 0) if tcp else 0,
        },
        "store": store,
        "owner": owner,
    }


def container(
    spec: ContainerSpec,
    plan: MachinePlan,
    place: PlacePlan,
    lab: Lab,
) -> Wanted:
    """Return what a driver makes a container of; a template that is not the lab's is its kind's own."""
    template = lab.spec.templates.get(spec.template)
    nic = plan.nics[0] if plan.nics else None
    net = place.networks[nic.network] if nic else None
    return {
        "name": plan.domain_name,
        "template": spec.template if template is None else "",
        "archive": str(lab.file(template.path)) if template else "",
        "sha256": (template.sha256 or "") if template else "",
        "memory_mib": plan.memory_mib,
        "cores": plan.cores,
        "command": list(spec.command or ()),
        "autostart": spec.autostart,
        "bridge": net.bridge if net else "",
        "mac": nic.mac if nic else "",
        "address": f"{nic.address}/{net.prefix}" if nic and net and nic.address else "",
        "gateway": (net.gateway or "") if net else "",
    }
