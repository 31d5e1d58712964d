"""A guest that is told who it is: its keys and password, the disc with them, and the way in.

What stands on the disc says `components.media.guest`, of Windows `components.media.cloudbase_init`. cloud-init acts once on an instance, so what tells two
configurations apart is in the instance's name, and in the disc's: a guest whose configuration changes gets
another disc, is started anew with it, keeps its own disk, and cloud-init acts again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pulumi

from components.gates.codec import later
from components.gates.probes import Command, Probe
from components.gates.secrets import Password, SshKey
from components.gates.seed import Seed, SeedDisc
from components.media import cloudbase_init, guest
from components.media.cloud_init import LABEL
from components.place.contract import Awaited
from components.place.machine import fingerprint
from components.reach.shell import SSH_PORT, Target

if TYPE_CHECKING:
    from components.place.contract import Lab
    from components.stackfile import GuestSpec, MachinePlan, NetworkPlan, PlacePlan
    from components.stackfile.cloud_init import CloudInitSpec

PASSWORD_LENGTH = 12
MARK = 8
"""Characters of the fingerprint that names a disc."""
CHANGED = (
    "its configuration changed: it is stopped and started with another seed, its disk stays, and cloud-init "
    "acts once more (user, keys, packages, commands; what it did before it does not take back)"
)


@dataclass(frozen=True)
class Seeded:
    """What belongs to a guest with a configuration."""

    user: str
    windows: bool
    """Whether it has drivers of Windows' own alone, for all that its image may tell."""
    password: pulumi.Input[str]
    """Secret; empty for none."""
    called: str
    """Name of its disc, without an ending: another configuration has another."""
    disc: pulumi.Output[str]
    """The disc, a file of this machine."""
    size: pulumi.Output[int]
    """Of it, bytes."""
    sha256: pulumi.Output[str]
    """Of it."""
    probe: Probe
    """How it is asked whether it is itself."""
    reach: pulumi.Output[Target]
    """Secret."""
    folder: str
    """Where files with its keys go that other programs read."""
    opened: bool
    """Whether it is entered by its address; otherwise nobody knows where it answers."""

    @property
    def mark(self) -> str:
        """What the name of its disc ends in."""
        return self.called.rpartition("-")[2]

    def awaited(self, otherwise: Awaited) -> Awaited:
        """Return how the guest is waited for; ``otherwise`` where it is not by logging in."""
        if not self.opened:
            return otherwise
        return Awaited(probe=self.probe, reach=self.reach, key_folder=self.folder)


@dataclass(frozen=True)
class Seeds:
    """Makes the seeds of one place's guests."""

    lab: Lab
    plan: PlacePlan
    target: pulumi.Input[Target]
    """How the place is entered, through which its guests are."""

    def make(
        self, name: str, spec: GuestSpec, plan: MachinePlan, opts: pulumi.ResourceOptions
    ) -> Seeded | None:
        """Return the seed of a guest; None for one that is told nothing. ``opts`` as all its resources have."""
        told = spec.cloud_init
        if told is None:
            return None
        nics = nics_of(plan, self.plan)
        # Not what is left as it is: a field that a later nestlab has changes nothing here.
        said = told.model_dump(exclude_defaults=True)
        mark = fingerprint(said, plan.name, nics)[:MARK]
        host_key = SshKey(f"{name}-hostkey", opts=opts)
        password: pulumi.Input[str] = ""
        if told.password:
            made = Password(f"{name}-login", length=PASSWORD_LENGTH, opts=opts).value
            fits = partial(cloudbase_init.acceptable, user=told.user)
            password = made.apply(fits) if told.windows else made
        folder = str(self.lab.private / plan.name)
        instance = self.lab.identity.value.apply(lambda own: f"{own}-{plan.name}-{mark}")
        files = cloudbase_init.files if told.windows else guest.files
        content: pulumi.Output[dict[str, str]] = pulumi.Output.all(
            instance=instance,
            private=host_key.private,
            public=host_key.public,
            key=self.lab.key.public,
            password=password,
        ).apply(lambda live: files(_configuration(told, plan, nics, mark, **live)))
        disc = SeedDisc(
            f"{name}-seed-disc",
            Seed(label=LABEL, files=later(content), private=folder, mark=mark, changed=CHANGED),
            opts,
        )
        if told.windows:
            argv, holds = cloudbase_init.asked(mark)
        else:
            finishes = bool(told.packages or told.commands)
            argv, holds = guest.asked(told.user, mark, finishes=finishes)
        return Seeded(
            user=told.user,
            windows=told.windows,
            password=password,
            called=f"{plan.called}-seed-{mark}",
            disc=disc.disc,
            size=disc.size,
            sha256=disc.sha256,
            probe=Probe(kind="ssh", commands=[Command(argv, holds)]),
            reach=self._reach(plan, told.user, host_key),
            folder=folder,
            opened=plan.ready.probe == "ssh",
        )

    def _reach(self, plan: MachinePlan, user: str, host_key: SshKey) -> pulumi.Output[Target]:
        straight = Target(
            kind="ssh", name=plan.name, host=plan.address or "", port=SSH_PORT, user=user
        )
        through = self.target if self.plan.path else None
        return pulumi.Output.all(self.lab.key.private, host_key.public, through).apply(
            lambda live: replace(straight, private_key=live[0], host_key=live[1], via=live[2])
        )


def nics_of(plan: MachinePlan, place: PlacePlan) -> list[guest.Nic]:
    """Return how each NIC of a guest gets its address: by the DHCP that keeps it, or as it is told."""
    found = []
    for nic in plan.nics:
        network = place.networks[nic.network]
        fixed = nic.address and not network.dhcp and network.subnet
        found.append(
            guest.Nic(
                mac=nic.mac,
                address=f"{nic.address}/{network.prefix}" if fixed else "",
                gateway=_way_out(network) if fixed else "",
                domain=network.domain or "",
            )
        )
    return found


def _way_out(network: NetworkPlan) -> str:
    return (network.gateway or "") if network.mode != "isolated" else ""


def _configuration(
    told: CloudInitSpec,
    plan: MachinePlan,
    nics: list[guest.Nic],
    mark: str,
    *,
    instance: str,
    private: str,
    public: str,
    key: str,
    password: str,
) -> guest.Configuration:
    return guest.Configuration(
        user=told.user,
        hostname=told.hostname or plan.name,
        keys=[key, *told.keys],
        nics=nics,
        instance=instance,
        mark=mark,
        host_private=private,
        host_public=public,
        password=password,
        packages=told.packages,
        commands=told.commands,
    )
