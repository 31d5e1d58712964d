"""Networks of Workstation: NAT and host-only ones of a lab, and its own bridges.

An own network is one of the numbers vmnet2 to vmnet254, claimed by a link named after it. Workstation
has no commands for networks on Linux: `/etc/vmware/networking` holds what they are, and
`vmware-networks` stops and starts them, all at once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.workstation import vmrun
from components.kinds.workstation.networking import (
    NETWORKING,
    Net,
    answered,
    dhcpd_conf,
    files_of,
    nat_conf,
    net,
    numbers_used,
    replaced,
    served,
    translated,
)
from components.kinds.workstation.vmrun import CLAIMS
from components.reach.driver import COMMAND_S, Driver, DriverError, strange
from components.reach.orders import NetworkOrder
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.reach.shell import Shell

BRIDGE = "vmnet0"
"""Workstation's own bridge to the device that its host reaches the world by."""
NUMBERS = (*range(2, 8), *range(9, 255))
"""Networks that are nobody's at first: 0, 1 and 8 are Workstation's own."""


class NetworkDriver(Driver[NetworkOrder]):
    """NAT and host-only networks of Workstation, and its bridges."""

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "mode", "bridge", "owner")

    @override
    def problem(self, wanted: NetworkOrder) -> str:
        if wanted.mode == "bridge":
            bridge = wanted.bridge
            if not bridge or re.fullmatch(r"vmnet(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-4])", bridge):
                return ""
            return (
                f"bridge {bridge!r}: Workstation's are called vmnet0 to vmnet254; name one, or none"
            )
        if wanted.mode not in {"nat", "isolated"}:
            return f"Workstation has no networks of mode {wanted.mode}: nat, isolated, bridge"
        if wrong := strange(wanted.owner):
            return wrong
        try:
            net(wanted)
        except (ValueError, IndexError) as why:
            return f"network {wanted.name!r}: {why}"
        return ""

    @override
    def called(self, wanted: NetworkOrder) -> str:
        """Return a bridge's name, or who has claimed a number: which one, only its host knows."""
        if wanted.mode == "bridge":
            return wanted.bridge or BRIDGE
        return f"of {wanted.owner}"

    @override
    def look(self, shell: Shell, wanted: NetworkOrder) -> Seen:
        name = wanted.name
        if wanted.mode == "bridge":
            bridge = self.called(wanted)
            bridged = self._bridges(shell, bridge)
            text = f"network {name} is {bridge}" if bridged else f"{bridge} bridges to nothing"
            return Seen(ok=bridged, text=text)
        vmnet = vmrun.number(vmrun.listed(shell, CLAIMS), wanted.owner)
        if not vmnet:
            return Seen(ok=False, text=f"network {name} is not there any more")
        if other := self._other(net(wanted), vmnet, vmrun.read(shell, *files_of(vmnet))):
            return Seen(ok=False, text=f"network {name} is not set up as the stack says: {other}")
        if down := self._down(net(wanted), vmnet, vmrun.running(shell)):
            return Seen(ok=False, text=f"network {name} is down: {down}")
        return Seen(ok=True, text=f"network {name} is up")

    @override
    def ensure(self, shell: Shell, wanted: NetworkOrder) -> None:
        with vmrun.networks_lock:
            if wanted.mode == "bridge":
                self._bridge(shell, wanted)
                return
            made = net(wanted)
            vmnet = vmrun.number(vmrun.listed(shell, CLAIMS), wanted.owner) or self._claim(
                shell, wanted
            )
            files = vmrun.read(shell, *files_of(vmnet))
            if self._other(made, vmnet, files):
                self._change(shell, made, vmnet, files)
            elif not self._down(made, vmnet, vmrun.running(shell)):
                return
            argv = ["vmware-networks", "--start"]
            done = shell.run(argv, timeout_s=COMMAND_S)
            # Its exit code is about all networks, somebody else's too.
            if down := self._down(made, vmnet, vmrun.running(shell)):
                say(f"{wanted.name}: {down}")
                raise vmrun.refused(shell, argv, done)

    @override
    def remove(self, shell: Shell, wanted: NetworkOrder) -> None:
        if wanted.mode == "bridge":
            return
        with vmrun.networks_lock:
            vmnet = vmrun.number(vmrun.listed(shell, CLAIMS), wanted.owner)
            if not vmnet:
                return
            before = vmrun.running(shell)
            networking = vmrun.read(shell, NETWORKING).get(NETWORKING, "")
            # While it is still known, or its daemons would run on.
            vmrun.must(shell, "vmware-networks", "--stop")
            if answered(networking, vmnet):
                self._write(shell, NETWORKING, replaced(networking, vmnet, {}))
            vmrun.must(shell, "rm", "-rf", "--one-file-system", f"/etc/vmware/{vmnet}")
            argv = ["vmware-networks", "--start"]
            done = shell.run(argv, timeout_s=COMMAND_S)
            others = {line for line in before if not line.split(" is ")[0].endswith(f" {vmnet}")}
            if not done.ok and others - vmrun.running(shell):
                raise vmrun.refused(shell, argv, done)
            vmrun.must(shell, "rm", "-f", f"{CLAIMS}/{vmnet}")

    def _bridges(self, shell: Shell, bridge: str) -> bool:
        form = re.compile(rf"Bridged? networking on {bridge} is running")
        return any(form.fullmatch(line) for line in vmrun.running(shell))

    def _bridge(self, shell: Shell, wanted: NetworkOrder) -> None:
        bridge = self.called(wanted)
        if self._bridges(shell, bridge):
            return
        argv = ["vmware-networks", "--start"]
        done = shell.run(argv, timeout_s=COMMAND_S)
        if self._bridges(shell, bridge):
            return
        if not done.ok:
            raise vmrun.refused(shell, argv, done)
        raise DriverError(
            f"network {wanted.name} on {shell.name}: {bridge} bridges to nothing there: make it a "
            "bridge with Workstation's Virtual Network Editor, or take bridge: out of the stack"
        )

    def _claim(self, shell: Shell, wanted: NetworkOrder) -> str:
        """Return a number that was nobody's."""
        vmrun.must(shell, "mkdir", "-p", CLAIMS)
        claimed = {path.rpartition("/")[2] for path in vmrun.listed(shell, CLAIMS)}
        used = numbers_used(vmrun.read(shell, NETWORKING).get(NETWORKING, ""))
        for number in NUMBERS:
            vmnet = f"vmnet{number}"
            if number in used or vmnet in claimed:
                continue
            vmrun.must(shell, "ln", "-s", wanted.owner, f"{CLAIMS}/{vmnet}")
            return vmnet
        raise DriverError(
            f"network {wanted.name} on {shell.name}: all of vmnet0 to vmnet254 are used"
        )

    def _other(self, made: Net, vmnet: str, files: Mapping[str, str]) -> str:
        """Say what of it is not as wanted, empty for nothing."""
        networking, dhcpd, nat = files_of(vmnet)
        has = answered(files.get(networking, ""), vmnet)
        for key, value in made.answers.items():
            if has.get(key, "no") != value:
                return f"{key} is {has.get(key, 'not set')} and not {value}"
        if made.dhcp and served(files.get(dhcpd, "")) != served(dhcpd_conf(made, vmnet)):
            return "its DHCP server hands out other addresses"
        if made.nat and translated(files.get(nat, "")) != translated(nat_conf(made, vmnet)):
            return "its NAT device has other settings"
        return ""

    def _down(self, made: Net, vmnet: str, running: set[str]) -> str:
        """Say what of it does not run, empty for nothing."""
        needed = [f"Hostonly virtual adapter on {vmnet} is enabled"]
        if made.dhcp:
            needed.append(f"DHCP service on {vmnet} is running")
        if made.nat:
            needed.append(f"NAT service on {vmnet} is running")
        missing = [each.split(" is ")[0] for each in needed if each not in running]
        return f"{missing[0]} does not run" if missing else ""

    def _change(self, shell: Shell, made: Net, vmnet: str, files: Mapping[str, str]) -> None:
        """Stop all networks and write what this one is; nothing is started."""
        networking, dhcpd, nat = files_of(vmnet)
        if answered(files.get(networking, ""), vmnet):
            say(
                f"{vmnet}: Workstation's networks start anew; its guests are cut off for some seconds"
            )
        # First: what runs on with old settings would look as if it had the new ones.
        vmrun.must(shell, "vmware-networks", "--stop")
        if made.dhcp:
            vmrun.must(shell, "mkdir", "-p", str(Path(dhcpd).parent))
            self._write(shell, dhcpd, dhcpd_conf(made, vmnet))
            vmrun.must(shell, "touch", str(Path(dhcpd).with_name("dhcpd.leases")))
        if made.nat and translated(files.get(nat, "")) != translated(nat_conf(made, vmnet)):
            vmrun.must(shell, "mkdir", "-p", str(Path(nat).parent))
            self._write(shell, nat, nat_conf(made, vmnet))
        text = files.get(networking, "")
        kept = {
            key: value for key, value in answered(text, vmnet).items() if key not in made.answers
        }
        # Of the file that was there: VMware would take another for a change by hand, and keep that.
        kept.pop("DHCP_CFG_HASH", None)
        self._write(shell, networking, replaced(text, vmnet, made.answers | kept))

    def _write(self, shell: Shell, path: str, text: str) -> None:
        shell.put(text.encode(), path, timeout_s=COMMAND_S)


DRIVER = NetworkDriver()
