"""From the plan to what drivers are ordered to make: `components.reach.orders`, the same for every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.codec import later
from components.reach.orders import (
    Console,
    ContainerOrder,
    DataDisk,
    GuestOrder,
    MediumOrder,
    NetworkOrder,
    Nic,
    Ready,
    Reservation,
)
from components.stackfile.places import ordered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pulumi

    from components.place.contract import Lab, NetworkMade
    from components.place.seeds import Seeded
    from components.stackfile import (
        ContainerSpec,
        GuestSpec,
        MachinePlan,
        NetworkPlan,
        PlacePlan,
    )


def network(
    plan: NetworkPlan, reservations: Sequence[Reservation], owner: pulumi.Input[str]
) -> NetworkOrder:
    """Return what a driver makes a network of."""
    return NetworkOrder(
        name=plan.called,
        mode=plan.mode,
        bridge=plan.bridge,
        subnet=plan.subnet or "",
        prefix=plan.prefix or 0,
        gateway=plan.gateway or "",
        dhcp=plan.dhcp,
        dhcp_start=plan.dhcp_start or "",
        dhcp_end=plan.dhcp_end or "",
        domain=plan.domain or "",
        reservations=list(reservations) if plan.dhcp else [],
        owner=later(owner),
    )


def medium(name: str, path: Path, sha256: str, store: str, owner: pulumi.Input[str]) -> MediumOrder:
    """Return what a driver uploads: ``path``, as ``name`` in the folder ``store`` of the place."""
    return MediumOrder(
        name=name,
        path=str(path),
        # A medium that was exchanged for another under the same name is another one. In a preview it
        # need not be there.
        size=path.stat().st_size if path.is_file() else 0,
        sha256=sha256,
        store=store,
        owner=later(owner),
    )


def seed(seeded: Seeded, ending: str, store: str, owner: pulumi.Input[str]) -> MediumOrder:
    """Return what a driver uploads of a guest's seed, which nobody else is to read there."""
    return MediumOrder(
        name=f"{seeded.called}.{ending}",
        path=later(seeded.disc),
        size=later(seeded.size),
        sha256=later(seeded.sha256),
        store=store,
        owner=later(owner),
        private=True,
    )


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
    seed: pulumi.Input[str] = "",
    discs: Sequence[pulumi.Input[str]] = (),
) -> GuestOrder:
    """Return what a driver makes a guest of."""
    tcp = plan.ready.probe == "tcp"
    return GuestOrder(
        name=plan.called,
        memory_mib=plan.memory_mib,
        cores=plan.cores,
        disk_gib=plan.disk_gib,
        disk_bus=plan.disk_bus or "",
        firmware=spec.firmware,
        machine=spec.machine,
        video=spec.video,
        boot=list(plan.boot),
        nics=[
            Nic(
                network=later(networks[nic.network].name),
                mac=nic.mac,
                model=nic.model or "",
                address=nic.address or "",
            )
            for nic in plan.nics
        ],
        iso=later(iso),
        image=later(image),
        autostart=spec.autostart,
        console=Console(
            type=spec.console.type,
            listen=spec.console.listen,
            port=spec.console.port or 0,
            password=later(password),
        ),
        ready=Ready(
            probe="tcp" if tcp else "none",
            host=(plan.address or "") if tcp else "",
            port=(plan.ready.port or 0) if tcp else 0,
        ),
        store=store,
        owner=later(owner),
        seed=later(seed),
        nested=spec.nested is True,
        discs=[later(disc) for disc in discs],
        disks=[DataDisk(name=name, gib=gib) for name, gib in ordered(spec.disks)],
    )


def container(
    spec: ContainerSpec,
    plan: MachinePlan,
    place: PlacePlan,
    lab: Lab,
) -> ContainerOrder:
    """Return what a driver makes a container of; a template that is not the lab's is its kind's own."""
    template = lab.spec.templates.get(spec.template)
    nic = plan.nics[0] if plan.nics else None
    net = place.networks[nic.network] if nic else None
    # It sets its address itself, by what the network has whose address it is.
    of = lab.plan.place(*net.around[0]).networks[net.around[1]] if net and net.around else net
    return ContainerOrder(
        name=plan.called,
        template=spec.template if template is None else "",
        archive=str(lab.file(template.path)) if template else "",
        sha256=(template.sha256 or "") if template else "",
        memory_mib=plan.memory_mib,
        cores=plan.cores,
        command=[
            later(lab.outputs[at]) if (at := f"{plan.at}.command.{number}") in lab.outputs else word
            for number, word in enumerate(spec.command or ())
        ],
        autostart=spec.autostart,
        bridge=net.bridge if net else "",
        mac=nic.mac if nic else "",
        address=f"{nic.address}/{of.prefix}" if nic and of and of.prefix and nic.address else "",
        gateway=(of.gateway or "") if of else "",
    )
