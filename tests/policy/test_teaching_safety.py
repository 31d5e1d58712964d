"""teaching-safety and spoofing-need: who may pretend to be others is stated, and needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.policy.judging import (
    CONTAINER,
    PORT_GROUP,
    UNKNOWN,
    VSPHERE,
    Res,
    judge,
    lab,
    machine,
    sheet,
    stack_config,
)

SWITCH = "vsphere:index/hostVirtualSwitch:HostVirtualSwitch"
GATE = "pulumi-python:dynamic/nestlab:VsphereNetworkGate"
FIREWALL = "proxmoxve:firewall/optionsLegacy:OptionsLegacy"
TRUSTED = sheet(
    '<xsl:template match="/domain/devices/interface"><xsl:copy>'
    '<xsl:attribute name="trustGuestRxFilters">yes</xsl:attribute>'
    '<xsl:apply-templates select="@*|node()"/></xsl:copy></xsl:template>'
)
STATED = {"teaching-safety": {"spoofing": ["net", "vm", "Lab Net"]}}


def group(**props: Any) -> Res:
    return Res(PORT_GROUP, "net", {"name": "Lab Net"} | props)


def esxi(on: Res, guest: str = "vmkernel8Guest") -> Res:
    props = {
        "guestId": guest,
        "numCpus": 4,
        "memory": 8192,
        "nestedHvEnabled": True,
        "networkInterfaces": [{"networkId": UNKNOWN}],
    }
    return Res(VSPHERE, "esxi", props, needs={"networkInterfaces": [on]})


def driven(**wanted: Any) -> Res:
    return Res(CONTAINER, "vm", {"driver": "hyperv.guest", "wanted": wanted})


PROMISCUOUS = group(allowPromiscuous=True)
FORGED = group(allowForgedTransmits=True, allowPromiscuous=False)
OURS = Res(GATE, "net-gate", {"name": "net-gate", "own": True, "allowMacChanges": True})
MACS = Res(SWITCH, "net", {"name": "x", "activeNics": [], "allowMacChanges": True})


@pytest.mark.parametrize(
    "stack",
    [
        (PROMISCUOUS, esxi(PROMISCUOUS)),
        (FORGED, esxi(FORGED)),
        (MACS, esxi(MACS)),
        (OURS, esxi(OURS)),
        lab(machine(kind="kvm", xml=TRUSTED)),
    ],
)
def test_what_is_not_stated_is_refused_and_passes_when_it_is(stack: tuple[Res, ...]) -> None:
    assert set(judge(*stack)) == {"teaching-safety"}
    assert judge(*stack, config=STATED) == {}
    with stack_config(spoofing=["net", "vm"]):
        assert judge(*stack) == {}


@pytest.mark.parametrize(
    "stack",
    [
        (PROMISCUOUS,),
        (FORGED, esxi(FORGED, "debian12_64Guest")),
        (MACS, esxi(FORGED), FORGED),
        lab(machine(xml=TRUSTED)),
        (Res(FIREWALL, "net", {"vmId": 100, "macfilter": False}),),
        (OURS, replace(esxi(FORGED), after=(OURS,)), FORGED),
        (driven(nics=[{"mac_spoofing": True}]),),
        (driven(MacAddressSpoofing=True),),
    ],
)
def test_what_is_stated_but_not_needed_is_refused(stack: tuple[Res, ...]) -> None:
    assert set(judge(*stack, config=STATED)) == {"spoofing-need"}


@pytest.mark.parametrize(
    "stack",
    [
        (group(), esxi(group())),
        (group(allowPromiscuous=False, allowForgedTransmits=False, allowMacChanges=False),),
        (group(allowPromiscuous=UNKNOWN),),
        (Res(FIREWALL, "net", {"macfilter": True}),),
        lab(machine(xml=sheet())),
        (driven(nics=[{"mac_spoofing": False}], autostart=True),),
        (Res("other:index/portGroup:PortGroup", "x", {"allowPromiscuous": True}),),
    ],
)
def test_what_allows_nothing_passes(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}
