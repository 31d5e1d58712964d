"""The gate of a closed network: of their host its machines reach DHCP, DNS and ping at its address there, and no more.

libvirt's own rules keep machines of other networks out of a network of mode nat or isolated; they do not keep machines
from what their host listens on, at any of its addresses, other labs' gateways among them. These rules are written by
iptables on the outer host, which libvirt needs there too; a chain for each network, and one jump to it from INPUT.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates.base import BorderResource, Gate, Made, Named
from components.kinds.libvirt.uplink.host import Host, NetError
from components.reach.client import host_shell
from components.reach.shell import Unreachable
from components.reach.waiting import Seen

if TYPE_CHECKING:
    import pulumi

CHAIN = "nestlab-"
"""What the name of a network's chain begins with; the name of its bridge follows (28 characters at most: iptables(8))."""
NOTED = "/run/nestlab/closed"
"""Folder that is there where a network was closed since the host's start: elsewhere nobody needs root to look."""
# Everything that comes from a bridge passes one chain, by tables of both protocols; where the kernel has no IPv6 there
# is nothing to close. A jump is written once; the chain's rules are exchanged at once (iptables-restore(8)).
# Whoever lets something in by a rule at the top of INPUT lets it in from here too: such rules come behind.
EARLIER = r"""
earlier() { sed "/-j nestlab-$1\$/,\$d" | grep -e '-j ACCEPT' | grep -v -e ' -i lo '; }
"""
MAKE = (
    EARLIER
    + r"""
b=$1 g=$2 u=$3
mkdir -p -- "$4" || exit 1
close() { # the program, what refuses, rules of what is let in
  "$1" -w 5 -S INPUT >/dev/null || return 1
  { echo '*filter'; echo ":nestlab-$b - [0:0]"; echo "$3"
    # Not ICMP, which the kernel sends a few of in a second.
    echo "-A nestlab-$b -p tcp -j REJECT --reject-with tcp-reset"; echo "-A nestlab-$b -j REJECT --reject-with $2"; echo COMMIT
  } | "$1-restore" -w 5 --noflush || return 1
  set -- "$1" INPUT -i "$b" -m comment --comment "nestlab:$u" -j "nestlab-$b"
  t=$1; shift
  "$t" -w 5 -C "$@" 2>/dev/null && [ -z "$("$t" -w 5 -S INPUT | earlier "$b")" ] && return
  "$t" -w 5 -D "$@" 2>/dev/null
  "$t" -w 5 -I "$@"
}
a="-A nestlab-$b"
close iptables icmp-port-unreachable "$a -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
$a -d 255.255.255.255 -p udp -m udp --dport 67 -j RETURN
$a -d $g -p udp -m udp --dport 67 -j RETURN
$a -d $g -p udp -m udp --dport 53 -j RETURN
$a -d $g -p tcp -m tcp --dport 53 -j RETURN
$a -d $g -p icmp -m icmp --icmp-type 8 -j RETURN" || exit 1
[ ! -e /proc/net/if_inet6 ] || close ip6tables icmp6-port-unreachable "" || exit 1
# Else the host answers ARP there for each address that it has, other labs' gateways too.
a=/proc/sys/net/ipv4/conf/$b/arp_ignore
[ ! -e "$a" ] || echo 1 >"$a"
"""
)
ASK = (
    EARLIER
    + r"""
for t in iptables ip6tables; do
  x=$($t -w 5 -S INPUT) || continue
  printf '%s\n' "$x" | grep -e "-j nestlab-$1\$"
  printf '%s\n' "$x" | earlier "$1"
  $t -w 5 -S "nestlab-$1" 2>/dev/null
done
echo "arp_ignore $(cat "/proc/sys/net/ipv4/conf/$1/arp_ignore" 2>/dev/null)"
exit 0
"""
)
OPEN = r"""
for t in iptables ip6tables; do
  # As iptables prints a rule it takes it; xargs takes quotes as a shell does.
  $t -w 5 -S INPUT 2>/dev/null | grep -e "-j nestlab-$1\$" | sed 's/^-A/-D/' | xargs -r -L 1 "$t" -w 5
  $t -w 5 -F "nestlab-$1" 2>/dev/null && $t -w 5 -X "nestlab-$1"
done
a=/proc/sys/net/ipv4/conf/$1/arp_ignore
[ ! -e "$a" ] || echo 0 >"$a"
exit 0
"""
OURS = r"""
for t in iptables ip6tables; do $t -w 5 -S INPUT 2>/dev/null; done |
  grep -e "--comment \"*nestlab:$1\"* -j nestlab-" | sed 's/.*-j nestlab-//' | sort -u
"""


@dataclass(frozen=True, kw_only=True)
class Closed(Named):
    """Properties of a closed network's gate."""

    uri: str
    """Of the outer host's libvirt, which says how the host is reached."""
    bridge: str
    gateway: str
    """Address of the host on the network, dotted IPv4."""
    user: str
    """The lab's identity."""
    rules: Made[str] = None
    """What iptables printed of them once they were written, and whose addresses the host answers ARP for."""


class ClosedGateProvider(Gate[Closed]):
    """Writes the rules of one network, and looks whether they are in force."""

    shape = Closed

    @override
    def look(self, props: Closed) -> Seen:
        there = _rules(props) == props.rules
        word = (
            "closed"
            if there
            else "not closed any more: its machines may reach what the host listens on"
        )
        return Seen(ok=there, text=f"the network on {props.bridge} is {word}")

    @override
    def mend(self, olds: Closed | None, news: Closed) -> Closed:
        host = Host(host_shell(news.uri))
        try:
            host.must(MAKE, news.bridge, news.gateway, news.user, NOTED)
        except (NetError, Unreachable) as refused:
            raise NetError(
                f"{refused}\n  network on {news.bridge}: closed: true is held by rules of iptables there; "
                "closed: false does without"
            ) from None
        if olds and olds.bridge != news.bridge:
            # A lab of another name has bridges of other names.
            self.retire(olds)
        return replace(news, rules=_rules(news))

    @override
    def retire(self, props: Closed) -> None:
        Host(host_shell(props.uri)).must(OPEN, props.bridge)

    @override
    def end(self, props: Closed) -> None:
        # Nobody else takes them back: a host that does not answer is a failure, and is asked again.
        self.retire(props)


def _rules(props: Closed) -> str:
    return Host(host_shell(props.uri)).must(ASK, props.bridge)


def opened(host: Host, identity: str) -> list[str]:
    """Take back the rules of every network of the lab ``identity``; return the names of their bridges.

    Raises:
        Unreachable, NetError: the host does not answer, or root's rights can't be had.
    """
    if not identity or not host.shell.run(["test", "-d", NOTED]).ok:
        return []
    bridges = host.run(OURS, identity).out.split()
    for bridge in bridges:
        host.must(OPEN, bridge)
    return bridges


class ClosedGate(BorderResource, module="nestlab", name="ClosedGate"):
    """A network whose machines reach nothing of their host but what they need."""

    bridge: pulumi.Output[str]

    def __init__(
        self, name: str, props: Closed, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(ClosedGateProvider(), name, props, opts)
