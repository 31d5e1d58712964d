"""A Linux host's own network, as iproute2 tells it in JSON: words in, typed facts out; it decides nothing.

One script asks everything at once, since each command may be a connection of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from components.kinds.libvirt.uplink import setups
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.reach.shell import Result, Shell

FOREVER = 0xFFFFFFFF
"""Lifetime of an address that does not end, seconds (rtnetlink's INFINITY_LIFE_TIME)."""
RECORDS = "/run/nestlab/uplinks"
"""Where a host keeps what was before; of its memory, as all that is made with `ip` is."""
Manager = Literal["NetworkManager", "systemd-networkd", "ifupdown", ""]
"""Who sets a NIC's addresses; empty: nobody that is known here."""

# Records of other network namespaces (a container's, a test's) are none of this one's business.
PLACE = f"d={RECORDS}/$(stat -Lc %i /proc/self/ns/net)"
# Of `networkctl` the files are read: it needs a bus. The states are those of networkctl(1).
LOOK = rf"""
{PLACE}
s() {{ printf '\n==== %s\n' "$1"; }}
s links; ip -j -d addr show
s routes; ip -j -4 -d route show table all; s routes6; ip -j -6 -d route show table all
s neighbours; ip -j neigh show; s proxies; ip -j neigh show proxy
s rules; ip -j -4 rule show; s rules6; ip -j -6 rule show
s sysctl
# One program, as a shell's own `read` takes these a byte at a time, which the kernel does not offer.
k='forwarding rp_filter arp_ignore arp_announce arp_filter accept_redirects send_redirects accept_ra
  autoconf use_tempaddr addr_gen_mode disable_ipv6'
for n in "$@"; do for f in ipv4 ipv6; do
  [ -d "/proc/sys/net/$f/conf/$n" ] && (cd "/proc/sys/net/$f/conf/$n" && grep -s . $k) |
    while IFS=: read -r x v; do echo "net/$f/conf/$n/$x $v"; done
done; done
s wireless
for n in /sys/class/net/*; do
  if [ -e "$n/wireless" ] || [ -e "$n/phy80211" ]; then echo "${{n##*/}}"; fi
done
s managers
for n in "$@"; do
  i=$(ip -o link show dev "$n" 2>/dev/null) || continue
  i=${{i%%:*}}
  if command -v nmcli >/dev/null; then
    # One that somebody else set up is shown as connected too, and left alone (nmcli(1)).
    x=$(LC_ALL=C nmcli -g GENERAL.STATE device show "$n" 2>/dev/null)
    case $x in ''|10\ *|*unmanaged*|*externally*) ;; *) echo "NetworkManager $n" ;; esac
  fi
  if [ -r "/run/systemd/netif/links/$i" ] &&
    ! grep -q '^ADMIN_STATE=\(unmanaged\|linger\|pending\|initialized\)' "/run/systemd/netif/links/$i"; then
    echo "systemd-networkd $n"
  fi
  if cat /etc/network/interfaces /etc/network/interfaces.d/* 2>/dev/null |
    grep -Eq "^[[:space:]]*iface[[:space:]]+$n[[:space:]]+inet6?[[:space:]]+(static|dhcp|auto)"; then
    echo "ifupdown $n"
  fi
  if cat /etc/network/interfaces /etc/network/interfaces.d/* 2>/dev/null |
    grep -Eq "^[[:space:]]*iface[[:space:]]+$n[[:space:]]+inet6?[[:space:]]+dhcp"; then
    echo "dhcp $n"
  fi
done
{setups.LOOK}
s resolved
if [ -d /run/systemd/resolve ] && command -v resolvectl >/dev/null; then
  for n in "$@"; do
    x=$(resolvectl dns "$n" 2>/dev/null) && echo "dns $n ${{x#*: }}"
    x=$(resolvectl domain "$n" 2>/dev/null) && echo "domain $n ${{x#*: }}"
  done
fi
s bridged; cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null
s forward; $SUDO iptables -w 5 -S FORWARD 2>/dev/null
s firewall
if [ $# -gt 0 ]; then
  for x in iptables-save ip6tables-save 'nft -s list ruleset'; do $SUDO $x; done 2>/dev/null |
    grep -E -e ' -[io] ' -e '[io]if(name)? '
fi
s records
for f in "$d"/*/state; do
  [ -e "$f" ] || continue
  r=${{f%/state}}; read -r x <"$f"; echo "${{r##*/}} $x"
done
s answering
for n in "$@"; do
  if cat "$d"/nla*/plan 2>/dev/null | grep -q "^  do_ ip neigh replace proxy .* dev $n\$"; then echo "$n"; fi
done
s users
for f in "$d"/*/users/*; do
  [ -e "$f" ] || continue
  r=${{f%/users/*}}; echo "${{r##*/}} ${{f##*/}}"
done
exit 0
"""


class NetError(Refused):
    """A command of the host's network was refused; the message is its own."""


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, told: object) -> object:
        """Leave out what is null: iproute2 says so of a tunnel's lower device, where it has none."""
        if not isinstance(told, dict):
            return told
        return {key: value for key, value in told.items() if value is not None}


Metrics = Annotated[
    dict[str, int | str | None],
    BeforeValidator(lambda told: told[0] if isinstance(told, list) and told else told or {}),
]
"""iproute2 wraps a route's metrics in a list of one."""


class Address(_Told):
    """An address of a NIC (`ip -j addr`)."""

    family: Literal["inet", "inet6"]
    local: str
    prefixlen: int
    peer: str = Field("", alias="address")
    broadcast: str = ""
    scope: str = "global"
    label: str = ""
    metric: int = 0
    noprefixroute: bool = False
    nodad: bool = False
    dynamic: bool = False
    mngtmpaddr: bool = False
    home: bool = False
    autojoin: bool = False
    stable_privacy: bool = Field(False, alias="stable-privacy")
    temporary: bool = False
    deprecated: bool = False
    valid_life_time: int = FOREVER

    @property
    def lasts(self) -> bool:
        """Whether nobody has to renew it."""
        return not self.dynamic and self.valid_life_time == FOREVER


class Bound(_Told):
    """What else a kind of device has."""

    lower: str = Field("", alias="link")
    """Of a VXLAN, the device that it sends by."""
    vlan: int | str = Field(0, alias="id")
    """Of a VLAN, its number (a VXLAN has one too)."""


class Kind(_Told):
    """What kind of device it is, and port of what kind."""

    info_kind: str = ""
    info_slave_kind: str = ""
    info_data: Bound = Bound()


class Link(_Told):
    """A network device and its addresses (`ip -j -d addr`)."""

    ifindex: int
    ifname: str
    flags: frozenset[str] = frozenset()
    mtu: int
    address: str = ""
    master: str = ""
    lower: str = Field("", alias="link")
    link_type: str = ""
    alias: str = Field("", alias="ifalias")
    linkinfo: Kind = Kind()
    addresses: tuple[Address, ...] = Field((), alias="addr_info")

    @property
    def up(self) -> bool:
        """Whether it was switched on."""
        return "UP" in self.flags

    def on(self, device: str) -> bool:
        """Whether it sends by ``device``."""
        return device in {self.lower, self.linkinfo.info_data.lower}


class Route(BaseModel):
    """A route (`ip -j -d route`); what else one has stands in ``model_extra``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = "unicast"
    dst: str
    dev: str = ""
    gateway: str = ""
    table: str = "main"
    protocol: str = "boot"
    scope: str = "global"
    prefsrc: str = ""
    metric: int = 0
    pref: str = ""
    src: str = Field("", alias="from")
    flags: frozenset[str] = frozenset()
    metrics: Metrics = Field(default_factory=dict)
    expires: int = 0
    nexthops: tuple[Nexthop, ...] = ()
    six: bool = False

    def uses(self, device: str) -> bool:
        """Whether it leads through ``device``."""
        return self.dev == device or any(hop.dev == device for hop in self.nexthops)


class Nexthop(_Told):
    """One of several ways of a route."""

    dev: str = ""


class Neighbour(_Told):
    """An entry of the neighbour table (`ip -j neigh`)."""

    dst: str
    dev: str = ""
    lladdr: str = ""
    state: frozenset[str] = frozenset()


class Rule(_Told):
    """A rule of routing (`ip -j rule`)."""

    priority: int
    iif: str = ""
    oif: str = ""


Route.model_rebuild()
_LINKS = TypeAdapter(tuple[Link, ...])
_ROUTES = TypeAdapter(tuple[Route, ...])
_NEIGHBOURS = TypeAdapter(tuple[Neighbour, ...])
_RULES = TypeAdapter(tuple[Rule, ...])


@dataclass(frozen=True)
class Facts:
    """A host's own network at one moment."""

    links: dict[str, Link]
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    proxies: frozenset[tuple[str, str]] = frozenset()
    """Addresses that the host answers ARP for, with the device."""
    rules: tuple[Rule, ...] = ()
    sysctl: dict[str, str] = field(default_factory=dict)
    """Settings of the NICs that were asked about, by their paths below /proc/sys."""
    wireless: frozenset[str] = frozenset()
    managers: dict[str, Manager] = field(default_factory=dict)
    """Who sets the addresses of the NICs that were asked about; none is not in it."""
    setup: dict[str, setups.Setup] = field(default_factory=dict)
    """What their managers were told of them, where that can be asked."""
    resolved: dict[tuple[str, str], str] = field(default_factory=dict)
    """What systemd-resolved has of these NICs, by "dns" or "domain" and the NIC; words joined by blanks."""
    bridged_calls: bool = False
    """Whether what bridges carry goes through iptables (br_netfilter)."""
    forward: str = ""
    """iptables' chain FORWARD, as `iptables -S` prints it; empty where it can't be asked, or is not there."""
    firewall: tuple[str, ...] = ()
    """Rules of iptables and nftables that name devices, as they print them; asked with NICs alone."""
    leased: frozenset[str] = frozenset()
    """NICs of which ifupdown says that a DHCP client gives them an address."""
    records: dict[str, str] = field(default_factory=dict)
    """State of each bridge that was made there, by its name (see `trial`)."""
    answering: frozenset[str] = frozenset()
    """NICs, of those that were asked about, on which ARP is answered for a network of nestlab's."""
    users: dict[str, frozenset[str]] = field(default_factory=dict)
    """Who uses each of them."""

    def ports(self, bridge: str) -> set[str]:
        """Return what is plugged into ``bridge``."""
        return {name for name, link in self.links.items() if link.master == bridge}

    @property
    def drops(self) -> bool:
        """Whether iptables drops what is forwarded, unless a rule says otherwise, as Docker has it do."""
        return "-P FORWARD DROP" in self.forward


@dataclass(frozen=True)
class Host:
    """The network of the machine at ``shell``."""

    shell: Shell

    @cached_property
    def root(self) -> tuple[str, ...]:
        """What comes before a command that needs root there: nothing for root, else sudo, which may not ask."""
        return () if self.shell.run(["id", "-u"]).out.strip() == "0" else ("sudo", "-n")

    def look(self, *nics: str) -> Facts:
        """Ask everything, with what only ``nics`` are asked about.

        Raises:
            Unreachable: the host does not answer.
            NetError: it answers something else than iproute2's JSON.
        """
        script = f"SUDO={' '.join(self.root)!r}\n{LOOK}"
        told = self.shell.run(["sh", "-c", script, "sh", *nics])
        try:
            return read(told.out)
        except (ValidationError, KeyError):
            raise NetError(
                f"{self.shell.name} can't tell its network: `ip -j addr` says {told.said[:200]!r}; "
                "it needs iproute2 4.18 or newer"
            ) from None

    def run(self, script: str, *words: str, stdin: bytes = b"", timeout_s: float = 60) -> Result:
        """Run a shell script as root, with ``words`` as its arguments, in the place of its records ($d).

        Raises:
            NetError: root's rights can't be had.
        """
        # Everybody may read what `ip` shows everybody; who runs it as root has to be the only one who writes it.
        whole = f"umask 022\n{PLACE}\n{script}"
        done = self.shell.run(
            [*self.root, "sh", "-c", whole, "sh", *words], stdin=stdin, timeout_s=timeout_s
        )
        if not done.ok and self.root and "sudo:" in done.err:
            raise NetError(
                f"{self.shell.name}: changing its network needs root, and sudo asks for a password. Run "
                "`sudo -v` there first, or be root"
            )
        return done

    def must(self, script: str, *words: str, stdin: bytes = b"", timeout_s: float = 60) -> str:
        """Like `run`, but it has to succeed; return what it printed.

        Raises:
            NetError: it did not.
        """
        done = self.run(script, *words, stdin=stdin, timeout_s=timeout_s)
        if not done.ok:
            raise NetError(f"{self.shell.name}: {done.said}")
        return done.out


def read(told: str) -> Facts:
    """Return what `LOOK` printed.

    Raises:
        ValidationError, KeyError: it is something else.
    """
    parts = {}
    for part in told.split("\n==== ")[1:]:
        name, _, text = part.partition("\n")
        parts[name] = text.strip("\n")
    links = _LINKS.validate_json(parts["links"])
    six = _ROUTES.validate_json(parts["routes6"] or "[]")
    return Facts(
        links={link.ifname: link for link in links},
        routes=(
            *_ROUTES.validate_json(parts["routes"] or "[]"),
            *(route.model_copy(update={"six": True}) for route in six),
        ),
        neighbours=_NEIGHBOURS.validate_json(parts["neighbours"] or "[]"),
        proxies=frozenset(
            (each.dst, each.dev) for each in _NEIGHBOURS.validate_json(parts["proxies"] or "[]")
        ),
        rules=(
            *_RULES.validate_json(parts["rules"] or "[]"),
            *_RULES.validate_json(parts["rules6"] or "[]"),
        ),
        sysctl=dict(_pairs(parts["sysctl"])),
        wireless=frozenset(parts["wireless"].split()),
        managers=_managers(parts["managers"]),
        setup=setups.read(parts["setups"]),
        resolved={
            (what, nic): words.strip()
            for what, rest in _pairs(parts["resolved"])
            for nic, _, words in [rest.partition(" ")]
            if words.strip()
        },
        bridged_calls=parts["bridged"].strip() == "1",
        forward=parts["forward"],
        firewall=tuple(line.strip() for line in parts["firewall"].split("\n") if line.strip()),
        leased=frozenset(nic for said, nic in _pairs(parts["managers"]) if said == "dhcp"),
        records=dict(_pairs(parts["records"])),
        answering=frozenset(parts["answering"].split()),
        users=_grouped(_pairs(parts["users"])),
    )


def _pairs(text: str) -> list[tuple[str, str]]:
    rows = (line.partition(" ") for line in text.split("\n") if line)
    return [(first, rest) for first, _, rest in rows]


def _managers(text: str) -> dict[str, Manager]:
    known: tuple[Manager, ...] = ("NetworkManager", "systemd-networkd", "ifupdown")
    told = _pairs(text)
    found: dict[str, Manager] = {}
    # The first that says so: NetworkManager leaves alone what ifupdown has (ifupdown plugin).
    for manager in known:
        for said, nic in told:
            if said == manager:
                found.setdefault(nic, manager)
    return found


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for first, rest in pairs:
        found.setdefault(first, set()).add(rest)
    return {first: frozenset(rest) for first, rest in found.items()}
