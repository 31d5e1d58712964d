"""What all nested hypervisors share that are installed or set up by what they read at their first boot.

A kind says in an `Installation` what its discs are made by and how it is known to take orders;
what is the same for all of them is here: keys, discs, the way in, the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pulumi

from components.findings import FOLDER
from components.gates.codec import later
from components.gates.medium import Discs, InstallMedium
from components.gates.secrets import Password
from components.media.answers import Told
from components.media.unattended import ON_STICK
from components.place.contract import Build, Disc
from components.place.login import planned_login
from components.reach.shell import SSH_PORT
from components.stackfile.registry import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.gates.probes import Probe
    from components.gates.secrets import SshAlgorithm
    from components.place.contract import Lab, NestingPlace, NetworkMade, Opened
    from components.place.login import Login
    from components.stackfile import HypervisorSpec, MachinePlan

PASSWORD_LENGTH = 16
DOMAIN = "nestlab.internal"
"""DNS domain of a machine whose network has none; "internal" is reserved for that."""
MEDIA = "media"
"""Folder of the project's private one for discs without secrets."""


@dataclass(frozen=True)
class Installation:
    """How one kind comes to be."""

    media: str
    """Module of `components.media` that makes its discs."""
    probe: Probe
    """Where it is reached is added."""
    api: int = 0
    """Port of its HTTPS API, which is reached from the machine that deploys too; 0: none. Its address is
    added to the probe as ``url``."""
    disk: str = "sda"
    """What its installer calls the system disk."""
    key: SshAlgorithm = "ed25519"
    """Of both SSH keys, its own and the one that opens it; of another kind than the lab's, that is one apart."""
    options: Mapping[str, str] = field(default_factory=dict)
    """`Answers.options`: what the stack says of this kind alone, by the names of its fields."""
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
    """Of its user, secret."""


def install(
    name: str,
    recipe: Installation,
    *,
    lab: Lab,
    host: NestingPlace,
    spec: HypervisorSpec,
    plan: MachinePlan,
    networks: Mapping[str, NetworkMade],
    opts: pulumi.ResourceOptions,
) -> Installed:
    """Make the discs and the machine, and wait until it takes orders."""
    parent, kind = opts.parent, KINDS[spec.kind]
    ports = (SSH_PORT, recipe.api) if recipe.api else (SSH_PORT,)
    login = planned_login(
        name, lab, host, plan, parent, user=kind.user, ports=ports, key=recipe.key
    )
    url = f"https://{login.route.address}:{login.route.ports[recipe.api]}" if recipe.api else ""
    password = Password(f"{name}-login", length=PASSWORD_LENGTH, opts=host.bound(parent)).value
    media = spec.media()
    stick = kind.stick and host.sticks
    made_of = Discs(
        kind=f"{spec.kind}{ON_STICK}" if stick else spec.kind,
        recipe=recipe.media,
        iso=str(lab.medium(media["iso"])) if "iso" in media else "",
        answers=later(_answers(lab, plan, recipe, login, password)),
        media=str((lab.home or lab.root) / FOLDER / MEDIA),
        private=login.folder,
        tools={name: str(lab.medium(each)) for name, each in recipe.tools.items()},
    )
    medium = InstallMedium(f"{name}-discs", made_of, host.bound(parent))
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
            probe=replace(recipe.probe, forward=list(login.route.forward), url=url),
            # Some probes log in to an API.
            reach=pulumi.Output.all(login.reach, password).apply(
                lambda known: replace(known[0], password=known[1])
            ),
            key_folder=login.folder,
        ),
        opts,
    )
    return Installed(opened, url, password)


def _answers(
    lab: Lab, plan: MachinePlan, recipe: Installation, login: Login, password: pulumi.Output[str]
) -> pulumi.Output[Told]:
    nic = plan.nics[0]
    network = lab.plan.place(*plan.place).networks[nic.network]
    # On a bridge the network is somebody else's, and a lone address would leave the rest unsaid.
    static = network.subnet is not None and nic.address is not None
    options = {
        key: lab.outputs.get(f"{plan.at}.{key}", value) for key, value in recipe.options.items()
    }
    return pulumi.Output.all(
        password, login.key.public, login.host_key.private, login.host_key.public, options
    ).apply(
        lambda known: Told(
            name=plan.name,
            fqdn=f"{plan.name}.{network.domain or DOMAIN}",
            mac=nic.mac,
            password=known[0],
            authorized_key=known[1],
            host_private=known[2],
            host_public=known[3],
            address=nic.address if static else None,
            prefix=network.prefix if static else None,
            gateway=network.gateway if static else None,
            nameserver=network.gateway if static else None,
            disk=recipe.disk,
            options=known[4],
        )
    )
