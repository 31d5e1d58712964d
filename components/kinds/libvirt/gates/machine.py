"""The gate of a machine: its domain is defined and runs, and what it is for answers.

For a nested hypervisor that is the joint between two layers: its ``uri`` and ``reach`` are what the
inner layer is made with, and they are unknown until it has answered.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates import probes
from components.gates.base import Gate, Made, Secret, Unasked
from components.gates.keys import remove_keys, write_keys
from components.gates.machine import Machine, MachineResource
from components.kinds.libvirt.census import census, changed
from components.kinds.libvirt.ownership import defined
from components.kinds.libvirt.virsh import DomainFacts, Virsh, VirshError, libvirt_of
from components.reach import picture
from components.reach.shell import Unreachable, keep
from components.reach.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    import pulumi

ACTIVE = {"running", "idle", "paused", "in shutdown", "pmsuspended"}
"""States of a domain that has a QEMU and need not be started."""
WAKING = {"paused": "resume", "pmsuspended": "dompmwakeup", "crashed": "destroy"}
"""What gets a domain out of a state in which starting it is refused."""


@dataclass(frozen=True, kw_only=True)
class Domain(Machine):
    """Properties of a machine's gate."""

    uri: str
    domain: str
    console_log: str = ""
    reset_s: Unasked[float] = 0.0
    """After how long it is reset while it is not up, again and again; 0: never."""
    stuck_s: Unasked[float] = 0.0
    """After how long it is reset once if it has been up before, runs and does not answer; 0: never."""
    definition: Secret[Made[str]] = None
    """Its XML, from which it is defined again when somebody removes it."""
    console: Made[str] = None
    """Its screen as a URI, such as vnc://127.0.0.1:0; empty without one."""


class MachineGateProvider(Gate[Domain]):
    """Looks at one domain and at what runs in it; starts and defines it again."""

    shape = Domain

    @override
    def look(self, props: Domain) -> Seen:
        virsh = libvirt_of(props)
        state = census(virsh).domains.get(props.domain)
        if state is None:
            return Seen(ok=False, text=f"domain {props.domain} is not defined any more")
        if state != "running":
            return Seen(ok=False, text=f"domain {props.domain} is {state}")
        return probes.glance(props, virsh)

    @override
    def picture(self, props: Domain) -> bytes:
        virsh = libvirt_of(props)
        words = ("virsh", "-q", "-c", virsh.uri, "screenshot", props.domain)
        return picture.taken(virsh.shell, lambda file: [*words, file])

    @override
    def mend(self, olds: Domain | None, news: Domain) -> Domain:
        virsh = libvirt_of(news)
        domain = news.domain
        changed(virsh)
        facts = virsh.domain(domain)
        there = facts.definition if facts else None
        defined(virsh, "domain", domain, there, (olds and olds.definition) or "")
        if facts is None:
            say(f"{news.name}: defined again; its disk is the one it had")
        stuck = facts is not None and facts.state == "running" and facts.has_stood
        if facts is None or facts.state != "running":
            facts = _running(news, virsh, facts.state if facts else None)
        write_keys(news.key_folder, news.reach)
        try:
            seen = wait_for(
                news.name,
                _Patience(news, virsh, stuck=stuck).look,
                deadline_s=news.deadline_s,
            )
        except NotReady as late:
            raise NotReady(f"{late}\n{how_to_look(news, virsh)}") from None
        keep(virsh.shell)
        if not facts.has_stood:
            virsh.note_stood(domain)
        return replace(news, definition=facts.definition, answers=seen.text, console=facts.console)

    @override
    def retire(self, props: Domain) -> None:
        # First: they must not stay when the place does not answer.
        remove_keys(props.key_folder)
        virsh = libvirt_of(props)
        if virsh.domain_state(props.domain) is None and props.definition:
            # The provider refuses to delete what is not there.
            virsh.define("domain", props.definition)
        if props.console_log:
            virsh.log_away(props.console_log)


def _patiently(props: Domain, virsh: Virsh) -> Seen:
    """Look once in a wait: an answer that does not come is a thing seen, not a failure."""
    try:
        changed(virsh)
        state = census(virsh).domains.get(props.domain)
        if state != "running":
            text = "stopped running" if state in {None, "shut off"} else f"is {state}"
            return Seen(ok=False, text=f"domain {props.domain} {text}")
        return probes.probe(props, virsh)
    except (Unreachable, VirshError) as silent:
        return Seen(ok=False, text=str(silent))


class _Patience:
    """Looks at a machine while it boots, and resets one that takes longer than it ever should."""

    def __init__(self, props: Domain, virsh: Virsh, *, stuck: bool) -> None:
        self._props, self._virsh = props, virsh
        self._every = props.reset_s
        self._once = props.stuck_s if stuck and not self._every else 0.0
        self._since = time.monotonic()

    def look(self) -> Seen:
        seen = _patiently(self._props, self._virsh)
        after = self._every or self._once
        if after and not seen.ok and time.monotonic() - self._since > after:
            try:
                self._virsh.run("reset", self._props.domain)
            except (Unreachable, VirshError) as silent:
                # Its place may start again by itself, and then it is for the guest to come up there.
                return Seen(ok=False, text=str(silent))
            say(f"{self._props.name}: not up after {after:.0f} s, {seen.text}; it was reset")
            self._since, self._once = time.monotonic(), 0.0
        return seen


def _running(props: Domain, virsh: Virsh, before: str | None) -> DomainFacts:
    """Get a domain going that was seen in the state ``before``; None: it has just been defined."""
    domain = props.domain
    if before == "in shutdown":
        _wait_till_off(props, virsh)
    if before in WAKING:
        virsh.run(WAKING[before], domain)
    if virsh.domain_state(domain) not in ACTIVE:
        if before is not None:
            say(f"{props.name}: starting it, it was {before}")
        virsh.must("start", domain)
    facts = virsh.domain(domain)
    if facts is None:
        raise VirshError(f"domain {domain} was removed while it was being started")
    return facts


def _wait_till_off(props: Domain, virsh: Virsh) -> None:
    """Wait for the end of a shutdown that is under way: the domain can be started after it."""

    def look() -> Seen:
        state = virsh.domain_state(props.domain)
        return Seen(ok=state != "in shutdown", text=f"domain {props.domain} is {state}")

    wait_for(props.name, look, deadline_s=props.deadline_s)


def how_to_look(props: Domain, virsh: Virsh) -> str:
    """What a person can do next: the console's last lines and the commands to see more."""
    console = f"virsh -c {virsh.uri} console {props.domain}"
    lines = [f"  look at it on {virsh.host.name}: {console}   (Ctrl-] leaves)"]
    try:
        facts = virsh.domain(props.domain)
        if facts and facts.console:
            lines.append(f"  screen: {facts.console}")
        if tail := virsh.tail(props.console_log):
            lines.append(f"  last lines of {props.console_log}:")
            lines += [f"    | {line}" for line in tail]
    except (Unreachable, VirshError):
        lines = [
            f"  {virsh.host.name}, which it runs on, does not answer itself: run the same command again,",
            "  which waits for that machine first and says how to look at it",
        ]
    return "\n".join(lines)


class MachineGate(MachineResource, module="nestlab", name="MachineGate"):
    """A machine that is up."""

    domain: pulumi.Output[str]
    """Name of the domain, known once the machine is up."""
    console: pulumi.Output[str]
    """Its screen as a URI, such as vnc://127.0.0.1:0; empty without one."""

    def __init__(
        self, name: str, props: Domain, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(MachineGateProvider(), name, props, opts)
