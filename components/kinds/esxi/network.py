"""Networks of an ESXi: port groups, and switches of their own where they are isolated.

Whose a port group is says its name. The security policies of switches are left out: guests here are no
hypervisors, so every frame carries the address ESXi gave its NIC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.esxi import esxcli, vimcmd
from components.kinds.esxi.names import digest, unfit
from components.reach import vmx
from components.reach.driver import Driver, DriverError
from components.reach.orders import NetworkOrder
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from components.kinds.esxi.esxcli import Networks
    from components.kinds.esxi.vimcmd import Vm
    from components.reach.shell import Shell

UPLINK = "vSwitch0"
"""The switch that the installer makes, on the NIC that ESXi is managed by."""


class NetworkDriver(Driver[NetworkOrder]):
    """Port groups: of mode bridge on a switch that is there, of mode isolated on one without uplink."""

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "owner")

    @override
    def problem(self, wanted: NetworkOrder) -> str:
        if wrong := unfit(wanted.name):
            return wrong
        if wanted.mode not in {"bridge", "isolated"}:
            return f"mode {wanted.mode!r} is none of ESXi's: take bridge or isolated"
        if wanted.mode == "bridge" and wanted.bridge:
            return unfit(wanted.bridge)
        return ""

    @override
    def called(self, wanted: NetworkOrder) -> str:
        """Return its port group's name, which nobody else's has."""
        return f"{wanted.name}-{digest(wanted.owner)}"

    @override
    def look(self, shell: Shell, wanted: NetworkOrder) -> Seen:
        try:
            wrong = self._wrong(esxcli.networks(shell), wanted)
        except DriverError as refused:
            wrong = str(refused)
        text = wrong or f"network {wanted.name} is on {_switch(wanted)}"
        return Seen(ok=not wrong, text=text)

    @override
    def ensure(self, shell: Shell, wanted: NetworkOrder) -> None:
        found = esxcli.networks(shell)
        if not self._wrong(found, wanted):
            return
        switch, own, group = _switch(wanted), _own_switch(wanted), self.called(wanted)
        if switch not in found.uplinks:
            if switch != own:
                raise DriverError(
                    f"{shell.name} has no switch {switch}: name one of "
                    f"{', '.join(sorted(found.uplinks))} with bridge:, or make it"
                )
            esxcli.change(shell, "add", f"--vswitch-name={switch}")
        elif switch == own:
            for uplink in found.uplinks[own]:
                words = [f"--uplink-name={uplink}", f"--vswitch-name={own}"]
                esxcli.change(shell, "uplink", "remove", *words)
        have = found.groups.get(group)
        if have and have.switch != switch:
            self._unplug(shell, have.switch, group)
            have = None
        if not have:
            words = [f"--portgroup-name={group}", f"--vswitch-name={switch}"]
            esxcli.change(shell, "portgroup", "add", *words)
        elif have.vlan != "0":
            esxcli.change(shell, "portgroup", "set", f"--portgroup-name={group}", "--vlan-id=0")
        if switch != own:
            self._drop(shell, own, group)
        vimcmd.saved(shell)

    @override
    def remove(self, shell: Shell, wanted: NetworkOrder) -> None:
        group, own = self.called(wanted), _own_switch(wanted)
        found = esxcli.networks(shell)
        if group not in found.groups and own not in found.uplinks:
            return
        if group in found.groups:
            self._unplug(shell, found.groups[group].switch, group)
        self._drop(shell, own, group)
        vimcmd.saved(shell)

    def _wrong(self, found: Networks, wanted: NetworkOrder) -> str:
        name, switch = wanted.name, _switch(wanted)
        have = found.groups.get(self.called(wanted))
        if have is None:
            return f"network {name} is not there any more"
        if have.switch != switch or have.vlan != "0":
            return f"network {name} is on {have.switch}, VLAN {have.vlan}, and not on {switch}"
        if switch == _own_switch(wanted) and found.uplinks.get(switch):
            return f"network {name} is not isolated: it leads to {found.uplinks[switch][0]}"
        if switch != _own_switch(wanted) and _own_switch(wanted) in found.uplinks:
            return f"network {name} has a switch {_own_switch(wanted)} that it does not need"
        return ""

    def _unplug(self, shell: Shell, switch: str, group: str) -> None:
        """Remove a port group; the lab's guests that run in it are stopped, as ESXi asks for."""
        words = [f"--portgroup-name={group}", f"--vswitch-name={switch}"]
        try:
            esxcli.change(shell, "portgroup", "remove", *words)
        except DriverError:
            stopped = [_stop_in(shell, vm, group) for vm in vimcmd.vms(shell)[0]]
            if not any(stopped):
                raise
            esxcli.change(shell, "portgroup", "remove", *words)

    def _drop(self, shell: Shell, own: str, group: str) -> None:
        """Remove the network's own switch, unless somebody put something else onto it."""
        found = esxcli.networks(shell)
        if own not in found.uplinks:
            return
        others = [name for name, each in found.groups.items() if each.switch == own]
        if [name for name in others if name != group]:
            say(f"{shell.name}: switch {own} stays, it holds {', '.join(others)}")
            return
        esxcli.change(shell, "remove", f"--vswitch-name={own}")


def _stop_in(shell: Shell, vm: Vm, group: str) -> bool:
    """Stop a guest if it is a lab's and has a NIC in ``group``; return whether it was stopped."""
    if not vm.note.startswith("nestlab "):
        return False
    settings = vmx.parsed(shell.run(["cat", vm.path]).out)
    plugged = [value for key, value in settings.items() if key.lower().endswith(".networkname")]
    if group not in plugged or vimcmd.power_state(shell, vm.vmid) != "on":
        return False
    say(f"{shell.name}: {vm.name} is stopped, its network changes")
    vimcmd.power_off(shell, vm.vmid)
    return True


def _switch(wanted: NetworkOrder) -> str:
    if wanted.mode == "isolated":
        return _own_switch(wanted)
    return wanted.bridge or UPLINK


def _own_switch(wanted: NetworkOrder) -> str:
    return f"nestlab-{digest(wanted.owner, wanted.name)}"


DRIVER = NetworkDriver()
