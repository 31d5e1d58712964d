"""Networks of a place, and the NICs that machines have on them.

Left out: several subnets on one network, and IPv6.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.stackfile.offered import Offered
from components.stackfile.problems import Problem, refuse
from components.stackfile.values import (
    Address,
    Bridge,
    Domain,
    Flag,
    Mac,
    SpecModel,
    Subnet,
    Whole,
)

Mode = Literal["nat", "isolated", "route", "open", "bridge", "macvtap"]
OUTER: tuple[Mode, ...] = ("bridge", "macvtap")
"""Modes of networks that are the outer network itself, whose addresses others give."""
CLOSABLE: tuple[Mode, ...] = ("nat", "isolated", "route")
"""Modes of networks that libvirt writes rules for, and that can be closed."""
NicModel = Annotated[str, Offered("nic_models")]


class UplinkSpec(SpecModel):
    """How a network of the outer host reaches outside."""

    nic: Bridge = Field(description="NIC of the host, as `ip link` shows it, such as enp3s0")
    vlan: Annotated[Whole, Field(ge=1, le=4094)] | None = Field(
        None,
        description="VLAN of the NIC that the bridge is made on; default: what goes without a tag",
    )
    proxy_arp: Flag = Field(
        False,
        description="Mode route: the host answers ARP on the NIC for the planned addresses, and the subnet is a "
        "free part of the network there; for Wi-Fi",
    )
    confirm_s: Annotated[Whole, Field(ge=10, le=600)] = Field(
        30,
        description="Time after which a bridge on the NIC is taken back if the host was not reached, seconds",
    )


class NetworkSpec(SpecModel):
    """One network of a place; the place itself has the subnet's first address."""

    mode: Mode = Field(
        "nat",
        description="nat: machines reach outside through their host; isolated: each other and the "
        "host only; route: without NAT, so that others need a route to it; open: the same without firewall rules; bridge: "
        "an existing bridge of the host, or one made on the NIC of uplink; macvtap: the NIC of uplink, without a "
        "bridge: machines and their host do not reach each other",
    )
    subnet: Subnet | None = Field(
        None,
        description="IPv4 subnet, /16 to /28, such as 10.77.0.0/24; not with modes bridge and macvtap",
    )
    bridge: Bridge | None = Field(
        None,
        description="Existing bridge of the host, at most 15 characters; mode bridge only. Default "
        "in a nested hypervisor that has one: its own uplink",
    )
    uplink: UplinkSpec | None = Field(
        None,
        description="What it reaches outside by, on the outer host; modes bridge, macvtap and route",
    )
    dhcp: Flag = Field(
        True, description="Whether the host hands out the planned addresses; never on a bridge"
    )
    closed: Flag = Field(
        False,
        description="Whether machines reach nothing of the outer host but DHCP, DNS and ping; modes nat, isolated and "
        "route",
    )
    domain: Domain | None = Field(None, description="DNS domain of the machines, such as lab.test")

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Self:
        wrong = self._on_a_bridge() if self.mode in OUTER else self._with_a_subnet()
        wrong += [*self._uplinked(), *self._closed()]
        if wrong:
            refuse(*wrong)
        return self

    def _with_a_subnet(self) -> list[Problem]:
        wrong = []
        if self.subnet is None:
            rule = f"a network of mode {self.mode} needs the subnet its machines live in"
            wrong.append(
                Problem("subnet", "nothing given", rule, "add one, such as subnet: 10.77.0.0/24")
            )
        if self.bridge is not None:
            rule = f"in mode {self.mode} the bridge is made with the network"
            wrong.append(
                Problem("bridge", f"{self.bridge!r} given", rule, "remove it or set mode: bridge")
            )
        return wrong

    def _on_a_bridge(self) -> list[Problem]:
        wrong = []
        for field in ("subnet", "domain", "dhcp"):
            value = getattr(self, field)
            if value and field in self.model_fields_set:
                shown = "true" if value is True else repr(str(value))
                where = "on a bridge" if self.mode == "bridge" else f"in mode {self.mode}"
                rule = f"{where} the addresses are given by whoever runs that network"
                wrong.append(Problem(field, f"{shown} given", rule, "remove it"))
        return wrong

    def _closed(self) -> list[Problem]:
        if not self.closed or self.mode in CLOSABLE:
            return []
        rule = f"nothing is written into the host's firewall for mode {self.mode}"
        remedy = "remove it, or set mode: nat, isolated or route"
        return [Problem("closed", "true given", rule, remedy)]

    def _uplinked(self) -> list[Problem]:
        wrong, uplink = [], self.uplink
        if uplink is None:
            if self.mode == "macvtap":
                rule = "macvtap is a NIC of the host's, shared"
                remedy = "add it, such as uplink: {nic: enp3s0}"
                wrong.append(Problem("uplink", "nothing given", rule, remedy))
            return wrong
        if self.mode not in {*OUTER, "route"}:
            rule = f"a network of mode {self.mode} leaves by whatever way its host takes"
            remedy = "remove it, or set mode: bridge, macvtap or route"
            return [Problem("uplink", "an uplink given", rule, remedy)]
        if self.mode == "route" and not uplink.proxy_arp:
            rule = "a routed network is on no NIC, unless its host answers ARP for it there"
            remedy = "add proxy_arp: true, or remove the uplink"
            wrong.append(Problem("uplink.proxy_arp", "false given", rule, remedy))
        if self.mode != "route" and uplink.proxy_arp:
            rule = f"in mode {self.mode} machines answer for themselves"
            remedy = "remove it, or set mode: route"
            wrong.append(Problem("uplink.proxy_arp", "true given", rule, remedy))
        if self.mode != "bridge" and uplink.vlan is not None:
            rule = "it is the bridge that is made on a VLAN"
            remedy = "set mode: bridge"
            wrong.append(Problem("uplink.vlan", f"{uplink.vlan} given", rule, remedy))
        if self.mode != "route" and self.bridge is not None:
            rule = "a bridge that is there has its own way out, and one that is made gets its name"
            wrong.append(
                Problem("bridge", f"{self.bridge!r} given", rule, "remove it, or the uplink")
            )
        return wrong

    @property
    def serves_dhcp(self) -> bool:
        """Whether machines get their planned address by DHCP from the host."""
        return self.dhcp and self.mode not in OUTER


class NicSpec(SpecModel):
    """One NIC of a machine, in the list form of ``network``."""

    network: str = Field(description="Name of a network of the same place")
    model: NicModel | None = Field(
        None, description="What the NIC looks like to the machine; default: its nic_model"
    )
    address: Address | None = Field(
        None, description="Fixed IPv4 address of the network's subnet; default: a planned one"
    )
    mac: Mac | None = Field(None, description="Fixed MAC, in quotes; default: a planned one")
