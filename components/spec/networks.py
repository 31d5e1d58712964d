"""Networks of a place, and the NICs that machines have on them.

Left out: bridging over Wi-Fi (the access point drops frames of MACs it does not know), several
subnets on one network, and IPv6.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from components.spec.problems import Problem, refuse
from components.spec.values import Address, Bridge, Domain, Flag, Mac, SpecModel, Subnet

Mode = Literal["nat", "isolated", "route", "open", "bridge"]
NicModel = Literal[
    "virtio",
    "e1000",
    "e1000e",
    "vmxnet3",
    "rtl8139",
    "pcnet",
    "netfront",
    "synthetic",
    "legacy",
]
"""pcnet is VirtualBox's; netfront Xen's; synthetic and legacy are Hyper-V's two adapters."""


class NetworkSpec(SpecModel):
    """One network of a place; the place itself has the subnet's first address."""

    mode: Mode = Field(
        "nat",
        description="nat: machines reach outside through their host; isolated: each other and the "
        "host only; route: routed, not translated; open: routed without firewall rules; bridge: "
        "an existing bridge or uplink of the host",
    )
    subnet: Subnet | None = Field(
        None, description="IPv4 subnet, /16 to /28, such as 10.77.0.0/24; not with mode bridge"
    )
    bridge: Bridge | None = Field(
        None,
        description="Existing bridge of the host, at most 15 characters; mode bridge only. Default "
        "in a nested hypervisor that has one: its own uplink",
    )
    dhcp: Flag = Field(
        True, description="Whether the host hands out the planned addresses; never on a bridge"
    )
    domain: Domain | None = Field(None, description="DNS domain of the machines, such as lab.test")

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Self:
        wrong = self._on_a_bridge() if self.mode == "bridge" else self._with_a_subnet()
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
            rule = f"in mode {self.mode} libvirt makes the bridge itself"
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
                rule = "on a bridge the addresses are given by whoever runs that network"
                wrong.append(Problem(field, f"{shown} given", rule, "remove it"))
        return wrong

    @property
    def serves_dhcp(self) -> bool:
        """Whether machines get their planned address by DHCP from the host."""
        return self.dhcp and self.mode != "bridge"


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
