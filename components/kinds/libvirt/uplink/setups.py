"""How a manager was told to set a NIC up, in its own words: asked of the host here, decided by `managed`.

Sources: networkd's state files have NETWORK_FILE and its leases CLIENTID (src/network/networkd-state-file.c,
sd-dhcp-lease.c; `networkctl` needs a bus for the same); nmcli(1) and nm-settings-keyfile(5) for NetworkManager;
interfaces(5) and ifup(8) for ifupdown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

OURS = frozenset({"match", "link"})
"""Sections of networkd's that are about the device itself, and stay with the NIC."""
CARRIED = frozenset(
    ("network", "address", "route", "neighbor", "nexthop", "routingpolicyrule",
     "dhcp", "dhcpv4", "dhcpv6", "ipv6acceptra")
)  # fmt: skip
"""Sections of networkd's that a bridge takes as a NIC does."""
PROFILE = frozenset({"connection", "ethernet", "ipv4", "ipv6", "proxy", "user", ".nmmeta"})
"""Sections of a NetworkManager profile that are read; others (802-1x, pppoe) are about that very NIC."""

# Of a profile with secrets (802.1X, PPPoE) the sections' names are read alone. $i is the NIC's number.
LOOK = r"""
plain() {
  awk -v n="$1" '/^[[:space:]]*([#;]|$)/ { next }
    /^[[:space:]]*\[/ { open = tolower($0) ~ /\[(@SECTIONS@)\]/
      print n " line " $0; next }
    open { print n " line " $0 }'
}
s setups
for n in "$@"; do
  i=$(ip -o link show dev "$n" 2>/dev/null) || continue
  i=${i%%:*}
  x=$(sed -n 's/^NETWORK_FILE=//p' "/run/systemd/netif/links/$i" 2>/dev/null)
  if [ -n "$x" ]; then
    echo "$n file $x"
    for f in /etc /run /usr/local/lib /usr/lib /lib; do
      for y in "$f/systemd/network/${x##*/}.d"/*.conf; do [ -e "$y" ] && echo "$n beside $y"; done
    done
    sed -n "s/^CLIENTID=/$n client /p" "/run/systemd/netif/leases/$i" 2>/dev/null
    $SUDO cat "$x" 2>/dev/null | plain "$n"
  elif command -v nmcli >/dev/null; then
    nmcli -g DEVICE,UUID,FILENAME connection show --active 2>/dev/null | while IFS=: read -r x u y; do
      [ "$x" = "$n" ] || continue
      echo "$n profile $u"; echo "$n file $y"; $SUDO cat "$y" 2>/dev/null | plain "$n"
    done
  fi
done
""".replace("@SECTIONS@", "|".join(sorted(map(re.escape, OURS | CARRIED | PROFILE))))


@dataclass(frozen=True)
class Setup:
    """What a manager was told of one NIC."""

    file: str = ""
    """Where that stands; empty where it can't be told."""
    profile: str = ""
    """NetworkManager's: its UUID."""
    client: str = ""
    """networkd's: who the DHCP server takes it for, in hex (RFC 2132, 9.14)."""
    beside: tuple[str, ...] = ()
    """Other files that add to that one."""
    parts: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())
    """Sections of the file and their lines, in its order."""

    def names(self) -> list[str]:
        """Return the sections' names."""
        return list(dict.fromkeys(name for name, _ in self.parts))

    def lines(self, *names: str) -> list[tuple[str, str]]:
        """Return key and value of each line in sections of these names, without regard to case."""
        return [
            (key.strip(), value.strip())
            for name, rows in self.parts
            if name.lower() in names
            for key, _, value in (row.partition("=") for row in rows)
        ]


def read(text: str) -> dict[str, Setup]:
    """Return what `LOOK` printed of each NIC that has a manager with a file."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in text.split("\n"):
        nic, _, rest = row.partition(" ")
        what, _, words = rest.partition(" ")
        if what:
            found.setdefault(nic, {}).setdefault(what, []).append(words.strip())
    return {nic: _setup(told) for nic, told in found.items()}


def _setup(told: dict[str, list[str]]) -> Setup:
    parts: list[tuple[str, list[str]]] = []
    for row in told.get("line", []):
        if row.startswith("["):
            parts.append((row.strip("[]"), []))
        elif parts:
            parts[-1][1].append(row)
    first = {key: rows[0] for key, rows in told.items()}
    return Setup(
        file=first.get("file", ""),
        profile=first.get("profile", ""),
        client=first.get("client", ""),
        beside=tuple(told.get("beside", ())),
        parts=tuple((name, tuple(rows)) for name, rows in parts),
    )
