"""Networks of a Hyper-V host: virtual switches (R157), the host's own part in them, and Windows' NAT."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.hyperv.cmdlets import NOTHING_TAKEN, ask, through_a_cut
from components.kinds.hyperv.facts import Switches, switches
from components.kinds.hyperv.names import mark, nat_of, problem_of_name, problem_of_owner
from components.kinds.hyperv.objects import Item, Plugged, objects, properties
from components.kinds.hyperv.powershell import Script
from components.reach.driver import Driver, DriverError, foreign
from components.reach.orders import NetworkOrder
from components.reach.waiting import Seen, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from components.kinds.hyperv.objects import Address, Switch
    from components.reach.shell import Shell

TRIES = 4
STILL_S = 120.0
"""How long a guest may take to end what it is in the middle of: starting, saving."""


class NetworkDriver(Driver[NetworkOrder]):
    """Virtual switches (R157): External over the adapter the host is managed by, or Internal.

    Mode isolated is Internal with the host's address; nat has Windows' NAT behind it. Neither has DHCP.
    """

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "mode", "bridge", "owner")

    @override
    def called(self, wanted: NetworkOrder) -> str:
        """Return the switch's name."""
        return wanted.bridge if _joins(wanted) else wanted.name

    @override
    def problem(self, wanted: NetworkOrder) -> str:
        if wanted.mode not in {"bridge", "isolated", "nat"}:
            return f"mode {wanted.mode} given: Hyper-V has bridge, isolated and nat"
        return problem_of_name("network", self.called(wanted)) or problem_of_owner(wanted)

    @override
    def look(self, shell: Shell, wanted: NetworkOrder) -> Seen:
        seen = switches(shell, wanted)
        wrong = next(self._wrong(seen, wanted), "")
        return Seen(ok=not wrong, text=wrong or f"switch {self.called(wanted)} is there")

    def _wrong(self, seen: Switches, wanted: NetworkOrder) -> Iterator[str]:
        name, mode = self.called(wanted), wanted.mode
        if _joins(wanted):
            if not seen.named(name):
                yield f"the host has no virtual switch {name}"
            return
        ours = seen.ours
        if ours is None:
            yield f"switch {name} is not there any more"
            return
        if ours.name != name:
            yield f"switch {name} is called {ours.name} now"
        kind = "External" if mode == "bridge" else "Internal"
        if ours.type != kind:
            yield f"switch {name} is {ours.type.lower()}, not {kind.lower()}"
        if mode != "bridge":
            yield from _wrong_inside(seen, ours, wanted)
        elif not ours.shared:
            yield f"switch {name} keeps its adapter from the host itself"

    @override
    def ensure(self, shell: Shell, wanted: NetworkOrder) -> None:
        name, mode = self.called(wanted), wanted.mode
        if _joins(wanted):
            if not switches(shell, wanted).named(name):
                raise DriverError(
                    f"{shell.name} has no virtual switch {name}: make it there, or remove bridge: and "
                    "have one made over the adapter that it is managed by"
                )
            return
        seen = self._switch(shell, wanted)
        if mode != "bridge":
            self._inside(shell, wanted, seen)

    @override
    def remove(self, shell: Shell, wanted: NetworkOrder) -> None:
        for _ in range(TRIES):
            seen = switches(shell, wanted)
            script = Script()
            if any(each.name == nat_of(wanted) for each in seen.nats):
                script.add("Remove-NetNat", Name=nat_of(wanted), Confirm=False)
            if ours := seen.ours:
                _unplug(shell, script, ours.name)
                switch = script.add("Get-VMSwitch", Id=ours.id)
                script.add("Remove-VMSwitch", take={"VMSwitch": [switch]}, Force=True)
            if not script.calls:
                return
            through_a_cut(shell, script, f"removing switch {self.called(wanted)}")
        if switches(shell, wanted).ours:
            raise DriverError(f"switch {self.called(wanted)} on {shell.name} is still there")

    def _switch(self, shell: Shell, wanted: NetworkOrder) -> Switches:
        """Make the switch, or make it what it was; return what there is then."""
        name, mode = wanted.name, wanted.mode
        for _ in range(TRIES):
            seen = switches(shell, wanted)
            ours, script = seen.ours, Script()
            if ours is None:
                _nobodys(shell, seen, name)
                if mode == "bridge":
                    adapter = _uplink(shell, seen)
                    script.add(
                        "New-VMSwitch",
                        Name=name,
                        NetAdapterName=adapter,
                        AllowManagementOS=True,
                        Notes=mark(wanted),
                    )
                else:
                    script.add("New-VMSwitch", Name=name, SwitchType="Internal", Notes=mark(wanted))
                through_a_cut(shell, script, f"making switch {name}")
                continue
            if ours.type != "External" if mode == "bridge" else ours.type == "External":
                # Converting it would leave the host without the address it is managed by.
                self.remove(shell, wanted)
                continue
            switch = script.add("Get-VMSwitch", Id=ours.id)
            if ours.name != name:
                _nobodys(shell, seen, name)
                script.add("Rename-VMSwitch", take={"VMSwitch": [switch]}, NewName=name)
            if mode == "bridge" and not ours.shared:
                script.add("Set-VMSwitch", take={"VMSwitch": [switch]}, AllowManagementOS=True)
            if mode != "bridge" and ours.type != "Internal":
                script.add("Set-VMSwitch", take={"VMSwitch": [switch]}, SwitchType="Internal")
            if len(script.calls) == 1:
                return seen
            through_a_cut(shell, script, f"changing switch {name}")
        raise DriverError(f"switch {name} on {shell.name} does not become what it is to be")

    def _inside(self, shell: Shell, wanted: NetworkOrder, seen: Switches) -> None:
        """Give the host its own address on the switch and no other, and NAT where it is wanted."""
        name = wanted.name
        interface = seen.interface(name)
        if interface is None:
            seen = _plugged(shell, wanted)
            interface = seen.interface(name)
        script = Script()
        has = seen.on(interface) if interface is not None else []
        stray = _stray(has, wanted)
        for each in stray:
            script.add(
                "Remove-NetIPAddress",
                InterfaceIndex=interface,
                IPAddress=each.address,
                Confirm=False,
            )
        if len(stray) == len(has):
            script.add(
                "New-NetIPAddress",
                InterfaceIndex=interface,
                IPAddress=wanted.gateway,
                PrefixLength=wanted.prefix,
            )
        _translate(shell, script, wanted, seen)
        if script.calls:
            ask(shell, script)


def _plugged(shell: Shell, wanted: NetworkOrder) -> Switches:
    """Wait until Windows has found the host's adapter on a switch that was made just now."""
    name = wanted.name
    last: list[Switches] = []

    def there() -> Seen:
        last[:] = [switches(shell, wanted)]
        found = last[0].interface(name) is not None
        return Seen(ok=found, text=f"the host has no adapter on switch {name} yet")

    wait_for(f"switch {name}", there, deadline_s=STILL_S)
    return last[0]


def _translate(shell: Shell, script: Script, wanted: NetworkOrder, seen: Switches) -> None:
    """Add to ``script`` what puts Windows' NAT behind the network, or takes it away."""
    name, has = nat_of(wanted), seen.translates(nat_of(wanted))
    prefix = wanted.subnet if wanted.mode == "nat" else ""
    if has == prefix:
        return
    if has:
        script.add("Remove-NetNat", Name=name, Confirm=False)
    others = sorted(each.name for each in seen.nats if each.name != name)
    if prefix and others:
        raise DriverError(
            f"{shell.name} has the NAT {others[0]} already, and Windows gives a host one: "
            "make this network mode isolated or bridge, or remove that one with Remove-NetNat"
        )
    if prefix:
        script.add("New-NetNat", Name=name, InternalIPInterfaceAddressPrefix=prefix)


def _wrong_inside(seen: Switches, ours: Switch, wanted: NetworkOrder) -> Iterator[str]:
    """Say what is wrong with the host's own part in an internal network."""
    name = wanted.name
    interface = seen.interface(ours.name)
    if interface is None:
        yield f"the host has no adapter on switch {name}"
    elif _stray(seen.on(interface), wanted):
        yield f"the host has another address on switch {name}"
    elif not seen.on(interface):
        yield f"the host has no address on switch {name}"
    if seen.translates(nat_of(wanted)) != (wanted.subnet if wanted.mode == "nat" else ""):
        yield f"network {name} has no NAT, or another one"


def _joins(wanted: NetworkOrder) -> bool:
    """Whether it is a switch of somebody else's that is joined."""
    return bool(wanted.mode == "bridge" and wanted.bridge)


def _stray(has: Sequence[Address], wanted: NetworkOrder) -> list[Address]:
    right = (wanted.gateway, wanted.prefix)
    return [each for each in has if (each.address, each.prefix) != right]


def _nobodys(shell: Shell, seen: Switches, name: str) -> None:
    """Refuse a name that a switch of somebody else's has."""
    if seen.named(name):
        raise foreign(
            shell,
            f"virtual switch {name}",
            f"rename this network, join that one with mode: bridge and bridge: {name}, or remove it",
        )


def _uplink(shell: Shell, seen: Switches) -> str:
    """Return the name of the adapter that this connection came in by."""
    script = Script()
    script.add("Get-Item", *properties(Item), LiteralPath="Env:SSH_CONNECTION")
    came = objects(Item, ask(shell, script)[0])[0].value.split()
    # CLIENT PORT SERVER PORT (ssh(1), ENVIRONMENT)
    own = came[2] if len(came) == 4 else ""  # noqa: PLR2004
    index = next((each.interface for each in seen.addresses if each.address == own), None)
    adapter = next((each for each in seen.adapters if each.interface == index), None)
    if adapter is None:
        raise DriverError(
            f"{shell.name} has no adapter with the address {own or came} it is managed by"
        )
    plugs = {each.device.lower(): each.switch for each in seen.plugs}
    taken = plugs.get(adapter.device.lower()) or next(
        (each.name for each in seen.all if each.over == adapter.description), None
    )
    if taken:
        raise DriverError(
            f"the adapter that {shell.name} is managed by belongs to the virtual switch {taken} already: "
            f"join that one with bridge: {taken}, or remove it"
        )
    return adapter.name


def _unplug(shell: Shell, script: Script, switch: str) -> None:
    """Add to ``script`` what takes guests off ``switch``; Hyper-V removes none that is in use."""
    asked = Script()
    guests = asked.add("Get-VM")
    asked.add(
        "Get-VMNetworkAdapter",
        *properties(Plugged),
        take={"VM": [guests]},
        may_fail=NOTHING_TAKEN,
    )
    nics = objects(Plugged, ask(shell, asked)[1])
    for one in nics:
        same = [each for each in nics if (each.vm, each.name) == (one.vm, one.name)]
        # By name: two of one name could not be told apart, and one may be on another switch.
        if one.switch == switch and len(same) == 1:
            guest = script.add("Get-VM", Id=one.vm)
            nic = script.add("Get-VMNetworkAdapter", take={"VM": [guest]}, Name=one.name)
            script.add("Disconnect-VMNetworkAdapter", take={"VMNetworkAdapter": [nic]})


DRIVER = NetworkDriver()
