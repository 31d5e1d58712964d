"""Networks of XCP-ng and XenServer: XAPI's private ones, and those that it had already."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.xenserver.facts import Host, changed, glanced
from components.kinds.xenserver.names import BRIDGE, mark, marks, owner, strangers, unfit
from components.kinds.xenserver.xe import Row, entry, xe
from components.reach.driver import Driver, DriverError
from components.reach.orders import NetworkOrder
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from components.reach.shell import Shell


class NetworkDriver(Driver[NetworkOrder]):
    """See `components.reach.driver.Driver`.

    Mode isolated is XAPI's internal network, a switch that only guests are on; mode bridge is one of
    those that the host had already, and nothing is made.
    """

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "mode", "owner")

    @override
    def called(self, wanted: NetworkOrder) -> str:
        name: str = wanted.name
        return f"{BRIDGE}{wanted.bridge}" if wanted.mode == "bridge" else name

    @override
    def problem(self, wanted: NetworkOrder) -> str:
        if wanted.mode not in {"bridge", "isolated"}:
            return f"XAPI makes no network of mode {wanted.mode!r}: take bridge or isolated"
        if wanted.name.startswith(BRIDGE):
            return f"a network can't be called {wanted.name!r}: rename it"
        bridge = unfit("bridge", wanted.bridge) if wanted.bridge else ""
        return unfit("name", wanted.name) or bridge or owner(wanted)

    @override
    def look(self, shell: Shell, wanted: NetworkOrder) -> Seen:
        return self._seen(Host(shell), wanted)

    @override
    def glance(self, shell: Shell, wanted: NetworkOrder) -> Seen:
        return self._seen(glanced(shell), wanted)

    def _seen(self, host: Host, wanted: NetworkOrder) -> Seen:
        name = wanted.name
        try:
            if wanted.mode == "bridge":
                uuid = host.network(self.called(wanted))
                return Seen(ok=True, text=f"network {name} is {uuid}")
            mine = self._mine(host, wanted)
            if not mine:
                return Seen(ok=False, text=f"network {name} is not there any more")
            if self._settings(mine[0], wanted):
                return Seen(ok=False, text=f"network {name} was renamed, or its mark removed")
        except DriverError as why:
            return Seen(ok=False, text=str(why))
        return Seen(ok=True, text=f"network {name} is there")

    @override
    def ensure(self, shell: Shell, wanted: NetworkOrder) -> None:
        changed(shell)
        host = Host(shell)
        if wanted.mode == "bridge":
            host.network(self.called(wanted))
            return
        mine = self._mine(host, wanted)
        if not mine:
            others = host.all("network", name_label=wanted.name)
            strangers(shell, "network", "network", wanted, others)
            made = ("network-create", f"name-label={wanted.name}")
            uuid = xe(shell, *made, f"name-description={mark(wanted)}").strip()
            mine = [{"uuid": uuid, "name-label": wanted.name, "other-config": ""}]
            mine[0]["name-description"] = mark(wanted)
        if settings := self._settings(mine[0], wanted):
            xe(shell, "network-param-set", f"uuid={mine[0]['uuid']}", *settings)

    @override
    def remove(self, shell: Shell, wanted: NetworkOrder) -> None:
        changed(shell)
        if wanted.mode == "bridge":
            return
        for row in self._mine(Host(shell), wanted):
            xe(shell, "network-destroy", f"uuid={row['uuid']}")

    def _mine(self, host: Host, wanted: NetworkOrder) -> list[Row]:
        return [row for row in host.all("network") if wanted.owner in marks(row)]

    def _settings(self, row: Row, wanted: NetworkOrder) -> list[str]:
        settings = []
        if row["name-label"] != wanted.name:
            settings.append(f"name-label={wanted.name}")
        if row["name-description"] != mark(wanted):
            settings.append(f"name-description={mark(wanted)}")
        if entry(row["other-config"], "nestlab") != wanted.owner:
            settings.append(f"other-config:nestlab={wanted.owner}")
        return settings


DRIVER = NetworkDriver()
