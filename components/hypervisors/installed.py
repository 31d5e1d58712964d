"""What all nested hypervisors share that are installed or set up by what they read at their first boot.

A kind says in a `Recipe` what its discs are made by, who logs in and how it is known to take orders;
what is the same for all of them is here: keys, discs, the way in, the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pulumi

from components.gates.medium import InstallMedium
from components.gates.secrets import Password
from components.hypervisors.access import access
from components.hypervisors.handle import Build, Disc
from components.remote.shell import SSH_PORT
from components.spec.facts import FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.gates.secrets import SshAlgorithm
    from components.hypervisors.access import Access
    from components.hypervisors.handle import Host, JsonMap, Lab, NetworkMade, Opened
    from components.spec import HypervisorSpec, MachinePlan

PASSWORD_LENGTH = 16
DOMAIN = "nestlab.internal"
"""DNS domain of a machine whose network has none; "internal" is reserved for that."""
MEDIA = "media"
"""Folder of the project's private one for discs without secrets."""


@dataclass(frozen=True)
class Recipe:
    """How one kind comes to be."""

    media: str
    """Module of `components.media` that makes its discs."""
    user: str
    """Who logs in over SSH, with the lab's key, or one of its own where ``key`` is of another kind."""
    probe: JsonMap
    """What `components.gates.probes` asks of it; where it is reached is added."""
    api: int = 0
    """Port of its HTTPS API, which is reached from the machine that deploys too; 0: none. Its address is
    added to the probe as ``url``."""
    disk: str = "sda"
    """What its installer calls the system disk."""
    stick: bool = False
    """Whether its answers go onto a USB stick wherever the host has such."""
    key: SshAlgorithm = "ed25519"
    """Of both SSH keys, its own and the one that opens it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """`Answers.options`: what the stack says of this kind alone."""
    discs: Sequence[str] = ()
    """Further media in its drives, by their names in the lab."""
    tools: Mapping[str, str] = field(default_factory=dict)
    """Files on one more CD, media of the lab by their names there: what its maker hands out as no ISO.
    Then ``media`` has `TOOLS_LABEL`, the CD's label, and ``check_tool``, which refuses another file."""


@dataclass(frozen=True)
class Installed:
    """A nested hypervisor that has answered."""

    opened: Opened
    url: str
    """Its API, as the machine that deploys reaches it; empty without one."""
    password: pulumi.Output[str]
    """Of the recipe's user, secret."""


def install(
    name: str,
    recipe: Recipe,
    *,
    lab: Lab,
    host: Host,
    spec: HypervisorSpec,
    plan: MachinePlan,
    networks: Mapping[str, NetworkMade],
    opts: pulumi.ResourceOptions,
) -> Installed:
    """Make the discs and the machine, and wait until it takes orders."""
    parent = opts.parent
    ports = (SSH_PORT, recipe.api) if recipe.api else (SSH_PORT,)
    way = access(name, lab, host, plan, parent, user=recipe.user, ports=ports, key=recipe.key)
    url = f"https://{way.doors.address}:{way.doors.ports[recipe.api]}" if recipe.api else ""
    password = Password(f"{name}-login", length=PASSWORD_LENGTH, opts=host.bound(parent)).value
    media = spec.media()
    stick = recipe.stick and host.sticks
    medium = InstallMedium(
        f"{name}-discs",
        kind=f"{spec.kind}-usb" if stick else spec.kind,
        recipe=recipe.media,
        iso=str(lab.medium(media["iso"])) if "iso" in media else "",
        answers=_answers(lab, plan, recipe, way, password),
        media=str(lab.root / FOLDER / MEDIA),
        private=way.folder,
        tools={name: str(lab.medium(each)) for name, each in recipe.tools.items()},
        opts=host.bound(parent),
    )
    discs = [Disc(f"{plan.name}-answers", medium.disc, stick=stick)]
    if "iso" in media:
        discs.insert(0, Disc(f"installer-{media['iso']}", medium.installer, shared=True))
    discs += [Disc(f"medium-{each}", str(lab.medium(each)), shared=True) for each in recipe.discs]
    if recipe.tools:
        named = "-".join(sorted(recipe.tools.values()))
        discs.append(Disc(f"tools-{spec.kind}-{named}", medium.tools_disc, shared=True))
    opened = host.hypervisor(
        name,
        spec,
        plan,
        networks,
        Build(
            discs=discs,
            image=media.get("image", ""),
            probe={**recipe.probe, "forward": list(way.doors.forward), "url": url},
            # Some probes log in to an API.
            reach=pulumi.Output.all(way.reach, password).apply(
                lambda known: {**known[0], "password": known[1]}
            ),
            key_folder=way.folder,
        ),
        opts,
    )
    return Installed(opened, url, password)


def _answers(
    lab: Lab, plan: MachinePlan, recipe: Recipe, way: Access, password: pulumi.Output[str]
) -> pulumi.Output[dict[str, Any]]:
    nic = plan.nics[0]
    network = lab.plan.place(*plan.place).networks[nic.network]
    # On a bridge the network is somebody else's, and a lone address would leave the rest unsaid.
    static = network.subnet is not None and nic.address is not None
    plain = {
        "name": plan.name,
        "fqdn": f"{plan.name}.{network.domain or DOMAIN}",
        "mac": nic.mac,
        "address": nic.address if static else None,
        "prefix": network.prefix if static else None,
        "gateway": network.gateway if static else None,
        "nameserver": network.gateway if static else None,
        "disk": recipe.disk,
        "options": dict(recipe.options),
    }

    def told(known: Mapping[str, str]) -> dict[str, Any]:
        return plain | dict(known)

    return pulumi.Output.all(
        password=password,
        authorized_key=way.login.public,
        host_private=way.host_key.private,
        host_public=way.host_key.public,
    ).apply(told)
