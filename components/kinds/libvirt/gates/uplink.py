"""The gate of an uplink: what a network of the outer host reaches outside by is there, and as it was made.

What can't be is said at preview, since the host's NICs are looked at whenever the inputs are checked.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pulumi.dynamic import DiffResult
from typing_extensions import override

from components.gates.base import BorderResource, Gate, Made, Mark, Moves, Named, Unasked
from components.gates.codec import has_unknown
from components.kinds.libvirt.uplink import checks, trial
from components.kinds.libvirt.uplink.host import Host, NetError
from components.kinds.libvirt.uplink.steps import Wanted, steps
from components.kinds.libvirt.uplink.trial import CONFIRMED, Taken, Trial
from components.kinds.libvirt.virsh import Virsh, VirshError
from components.reach.client import host_shell
from components.reach.shell import LocalShell, Unreachable
from components.reach.waiting import Seen, say
from components.stackfile.addresses import digest
from components.stackfile.problems import listed

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pulumi

    from components.kinds.libvirt.uplink.host import Facts

LOCAL_URI = "qemu:///system"
TURNS = 3
"""How often another lab may be the first to make the same bridge."""


@dataclass(frozen=True, kw_only=True)
class Uplink(Named):
    """Properties of an uplink's gate."""

    uri: str
    """Of the outer host's libvirt, which says how the host is reached."""
    mode: Moves[Literal["bridge", "macvtap", "proxy_arp"]]
    nic: Moves[str]
    vlan: Moves[int]
    bridge: Moves[str]
    """Name of the bridge that is made on the NIC; empty in the other modes."""
    user: str
    """Whose it is: the lab's identity, a dot, the network."""
    network: str
    """The network in its libvirt."""
    subnet: str
    addresses: list[str]
    """What is answered for by proxy ARP."""
    confirm_s: Unasked[int]
    program: Made[str] = None
    """What made it and takes it back, kept here too: the host has it in its memory only."""

    @property
    def wanted(self) -> Wanted:
        """What is asked for."""
        return Wanted(self.mode, self.nic, self.vlan, self.bridge, self.subnet, self.addresses)

    @property
    def record(self) -> str:
        """Name of the host's record of it."""
        return self.bridge or f"nla{digest(self.user, digits=10)}"


class UplinkGateProvider(Gate[Uplink]):
    """Makes an uplink, tried first, and takes it back."""

    shape = Uplink

    @override
    def problems(self, news: Uplink) -> Iterable[tuple[str, str]]:
        if has_unknown((news.nic, news.vlan, news.bridge, news.subnet, news.addresses)):
            return
        host = _host(news)
        try:
            facts = host.look(news.nic)
        except Unreachable as silent:
            say(f"{news.name}: {silent}")
            return
        except NetError as odd:
            yield "nic", str(odd)
            return
        for wrong in checks.problems(facts, news.wanted):
            yield "nic", f"{host.shell.name}: {wrong}"
        for risk in checks.warnings(facts, news.wanted):
            say(f"{news.name}: {host.shell.name}: {risk}")

    @override
    def compare(self, olds: Uplink, news: Uplink) -> DiffResult:
        moves = [key for key in olds.marked(Mark.MOVES) if getattr(olds, key) != getattr(news, key)]
        if moves:
            return DiffResult(changes=True, replaces=moves)
        return super().compare(olds, news)

    @override
    def look(self, props: Uplink) -> Seen:
        amiss = _drift(_host(props), props)
        return Seen(ok=not amiss, text=amiss or "the uplink is as it was made")

    @override
    def mend(self, olds: Uplink | None, news: Uplink) -> Uplink:
        host = _host(news)
        wrong = list(checks.problems(host.look(news.nic), news.wanted))
        if wrong:
            raise NetError(f"{host.shell.name}: {'; '.join(wrong)}")
        if news.mode == "macvtap":
            return news
        if news.mode == "proxy_arp":
            return replace(news, program=_proxied(host, news))
        text = _bridged(host, news, (olds and olds.program) or "")
        made = replace(news, program=text)
        if amiss := _drift(host, made):
            raise NetError(f"{host.shell.name}: {amiss}")
        if olds:
            # Guests that ran on keep loose taps.
            local = isinstance(host.shell, LocalShell)
            virsh = Virsh(host.shell, news.uri if local else LOCAL_URI)
            # The network itself may be gone too: its own gate mends that, and plugs them in.
            with contextlib.suppress(VirshError, Unreachable):
                virsh.plug(news.network)
        return made

    @override
    def retire(self, props: Uplink) -> None:
        if props.mode == "macvtap":
            return
        host, record = _host(props), _trial(props)
        record.settle(props.confirm_s)
        facts = host.look(props.nic)
        there = props.mode == "proxy_arp" or checks.stands(facts, props.wanted)
        if props.program and there and props.record not in facts.records:
            record.put(props.program)
        if not facts.users.get(props.record, frozenset()) - {props.user}:
            _nothing_of_others(host, facts, props)
        record.leave()

    @override
    def end(self, props: Uplink) -> None:
        # Nobody else takes it back: a host that does not answer is a failure, and is asked again.
        self.retire(props)


def _host(props: Uplink) -> Host:
    return Host(host_shell(props.uri))


def _nothing_of_others(host: Host, facts: Facts, props: Uplink) -> None:
    """Take away no bridge that somebody gave something of the host's meanwhile.

    Raises:
        NetError: somebody did.
    """
    more = checks.added(facts, props.wanted, *trial.moved(props.program or ""))
    if more:
        raise NetError(
            f"{host.shell.name}: {listed(more)} was set on {props.bridge} since the lab made it, and would be gone "
            f"with it: set it on {props.nic} too if it is to stay, take it off {props.bridge} (`ip addr del`, "
            "`ip route del`), and repeat"
        )


def _trial(props: Uplink) -> Trial:
    return Trial(_host(props), props.record, props.user)


def _drift(host: Host, props: Uplink) -> str:
    addresses, routes = trial.moved(props.program or "")
    return checks.drift(host.look(props.nic), props.wanted, props.user, addresses, routes)


def _bridged(host: Host, props: Uplink, known: str) -> str:
    """Make the bridge, or join the one that is there; return the program of it."""
    record = Trial(host, props.record, props.user)
    for _ in range(TURNS):
        state = record.settle(props.confirm_s)
        facts = host.look(props.nic)
        stands = checks.stands(facts, props.wanted)
        if not state and stands:
            if not known:
                raise NetError(
                    f"{host.shell.name}: {props.bridge} was made by nestlab, and nothing there says any more what "
                    f"was before: give {props.nic} its addresses again (or reboot) and `ip link del {props.bridge}`"
                )
            record.put(known)
            state = CONFIRMED
        nic = facts.links[props.nic]
        if (
            state == CONFIRMED
            and not stands
            and any(each.scope != "link" for each in nic.addresses)
        ):
            # Somebody took the bridge away and set the NIC up again: that is what was before, now, but for
            # IPv6, which was switched off by us, and which nobody would find.
            record.freed()
            facts, state = host.look(props.nic), ""
        if state == CONFIRMED:
            if not (text := record.join()):
                # The last lab that used it has just left: what was seen of the NIC, without its addresses, is
                # so no more, and a bridge made by that would have none.
                continue
            if _drift(host, replace(props, program=text)):
                record.repair()
            return text
        made = steps(facts, props.wanted)
        text = trial.program(props.bridge, props.wanted.port, made, props.confirm_s)
        try:
            record.make(text, props.bridge, props.nic, made.gateways, props.confirm_s)
        except Taken:
            continue
        return text
    raise NetError(f"{host.shell.name}: {props.bridge} is being changed by other labs: repeat it")


def _proxied(host: Host, props: Uplink) -> str:
    """Answer ARP for the planned addresses; return the program of it."""
    record = Trial(host, props.record, props.user)
    # Before anything of an earlier one is taken back, which goes on where this is refused.
    taken = trial.answering(host, props.nic, props.addresses)
    if taken:
        raise NetError(
            f"{host.shell.name}: somebody on the network of {props.nic} has {', '.join(taken)} already: pin others "
            f"for the machines, or take another part of the network than {props.subnet}"
        )
    record.leave()
    made = steps(host.look(props.nic), props.wanted)
    text = trial.program(props.record, "", made, props.confirm_s)
    record.put(text)
    record.repair()
    return text


class UplinkGate(BorderResource, module="nestlab", name="UplinkGate"):
    """An uplink that is there. ``bridge`` is the bridge's name, known once it is."""

    bridge: pulumi.Output[str]

    def __init__(
        self, name: str, props: Uplink, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(UplinkGateProvider(), name, props, opts)
