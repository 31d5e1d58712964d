"""What orders need that has a text for a name: media and networks, made by the kind's own drivers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.support.orders import medium_order, network_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from components.reach.driver import Driver
    from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder
    from tests.support.commands import Machine

    Need = Callable[[Machine, GuestOrder, str], GuestOrder | None]

OWN = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c7"
"""How owners of what is needed begin; a digit is lacking."""


def medium(
    field: str, ending: str, content: bytes, driver: Driver[MediumOrder], store: str, **other: Any
) -> Need:
    """A medium for ``field``, iso or image, whose name is the text and ``ending``."""

    def need(machine: Machine, order: GuestOrder, text: str) -> GuestOrder | None:
        file = machine.folder / f"needed{ending}"
        file.write_bytes(content)
        wanted = medium_order(file, name=f"{text}{ending}", store=store, owner=f"{OWN}{len(field)}")
        if driver.problem(wanted):
            return None
        driver.ensure(machine.shell(), wanted)
        made: dict[str, Any] = {field: driver.called(wanted)}
        return replace(order, **made, **other)

    return need


def network(driver: Driver[NetworkOrder], field: str = "name", **other: Any) -> Need:
    """A network for the first NIC, whose name, or another ``field``, is the text."""

    def need(machine: Machine, order: GuestOrder, text: str) -> GuestOrder | None:
        plain: Mapping[str, Any] = {
            "subnet": "10.90.0.0/24",
            "gateway": "10.90.0.1",
            "dhcp_start": "10.90.0.4",
            "dhcp_end": "10.90.0.200",
            "reservations": [],
            "owner": f"{OWN}9",
        }
        wanted = network_order(**{**plain, **other, field: text})
        if driver.problem(wanted):
            return None
        driver.ensure(machine.shell(), wanted)
        return replace(order, nics=[replace(order.nics[0], network=driver.called(wanted))])

    return need


def store(root: str) -> Need:
    """A folder of that name for all that is the guest's."""
    return lambda _, order, text: replace(order, store=f"{root}/{text}")
