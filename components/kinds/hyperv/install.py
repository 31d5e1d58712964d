"""Windows Server with the Hyper-V role: installed from its ISO, then driven by PowerShell over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import Command, Probe
from components.kinds.hyperv.powershell import ARGV, Script
from components.place.driven import Commands, Screen, kind
from components.place.installation import Installation

if TYPE_CHECKING:
    from components.kinds.hyperv.model import HypervSpec
    from components.stackfile import GuestSpec, MachinePlan

STORE = "C:/nestlab"
STEADY = 3
"""The role restarts Windows twice, and SSH answers in between (domain facts 2.3)."""


def probe() -> Probe:
    """Return what is asked until it takes orders: is it virtual, does the service run, does it answer.

    Being virtual says only that something is above it; the two others, that its own hypervisor is in.
    """
    script = Script()
    script.add("Get-VMHost", "LogicalProcessorCount")
    script.add("Get-CimInstance", "HypervisorPresent", ClassName="Win32_ComputerSystem")
    script.add("Get-Service", "Status", Name="vmms")
    holds = '[{"HypervisorPresent":true}],[{"Status":"Running"}]'
    command = Command(list(ARGV), holds, script.document())
    return Probe(kind="ssh", commands=[command], steady=STEADY)


def recipe(spec: HypervSpec) -> Installation:
    """Return how one is made."""
    options = {"image": spec.edition, "locale": spec.locale}
    if spec.time_zone:
        options["windows_timezone"] = spec.time_zone
    return Installation(
        media="hyperv",
        probe=probe(),
        options=options,
        discs=[spec.openssh] if spec.openssh else [],
    )


def screen(spec: GuestSpec, plan: MachinePlan) -> Screen:
    """Return the screen of a guest: no server for it, only a program on the host's own desktop."""
    del spec
    return Screen(console=f"vmconnect.exe localhost {plan.called}")


PLACE = Commands(driver="hyperv", store=STORE, screen=screen)
INSTALLER = kind(recipe, PLACE)
