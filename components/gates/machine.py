"""The gate of a machine: its domain is defined and runs, and what it is for answers.

For a nested hypervisor that is the joint between two layers: its ``uri`` and ``reach`` are what the
inner layer is made with, and they are unknown until it has answered.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pulumi
from typing_extensions import override

from components.gates import probes
from components.gates.base import BorderResource, Gate, Props, libvirt_of
from components.gates.keys import remove_keys, write_keys
from components.remote.census import census, changed
from components.remote.ownership import insist
from components.remote.shell import Target, Unreachable, keep
from components.remote.virsh import DomainFacts, Virsh, VirshError
from components.remote.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

ACTIVE = {"running", "idle", "paused", "in shutdown", "pmsuspended"}
"""States of a domain that has a QEMU and need not be started."""
WAKING = {"paused": "resume", "pmsuspended": "dompmwakeup", "crashed": "destroy"}
"""What gets a domain out of a state in which starting it is refused."""


class Machine(TypedDict):
    """Properties of a machine's gate."""

    name: str
    target: Target
    uri: str
    domain: str
    instance: str
    probe: probes.Probe
    reach: Target
    key_folder: str
    console_log: str
    deadline_s: float
    reset_s: float
    """0: never."""
    definition: str | None
    answers: str | None
    console: str | None


class MachineGateProvider(Gate):
    """Looks at one domain and at what runs in it; starts and defines it again."""

    shape = Machine

    inputs = (
        "name",
        "target",
        "uri",
        "domain",
        "instance",
        "probe",
        "reach",
        "key_folder",
        "console_log",
        "deadline_s",
        "reset_s",
    )
    unasked = ("deadline_s", "reset_s")

    @override
    def look(self, props: Props) -> Seen:
        virsh = libvirt_of(props)
        state = census(virsh).domains.get(props["domain"])
        if state is None:
            return Seen(ok=False, text=f"domain {props['domain']} is not defined any more")
        if state != "running":
            return Seen(ok=False, text=f"domain {props['domain']} is {state}")
        return probes.glance(props, virsh)

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        virsh = libvirt_of(news)
        domain = news["domain"]
        changed(virsh)
        facts = virsh.domain(domain)
        if facts is None:
            if not olds.get("definition"):
                raise VirshError(f"domain {domain} is not defined at {virsh.shell.name}")
            virsh.define("domain", olds["definition"])
            virsh.must("autostart", domain)
            say(f"{news['name']}: defined again; its disk is the one it had")
        else:
            insist("domain", domain, facts.definition, olds.get("definition") or "")
        if facts is None or facts.state != "running":
            facts = _running(news, virsh, facts.state if facts else None)
        write_keys(news)
        try:
            seen = wait_for(
                news["name"],
                _Patience(news, virsh).look,
                deadline_s=news["deadline_s"],
            )
        except NotReady as late:
            raise NotReady(f"{late}\n{how_to_look(news, virsh)}") from None
        keep(virsh.shell)
        return {
            **news,
            "definition": facts.definition,
            "answers": seen.text,
            "console": facts.console,
        }

    @override
    def retire(self, props: Props) -> None:
        # First: they must not stay when the place does not answer.
        remove_keys(props)
        virsh = libvirt_of(props)
        if virsh.domain_state(props["domain"]) is None and props.get("definition"):
            # The provider refuses to delete what is not there.
            virsh.define("domain", props["definition"])
        if props.get("console_log") and virsh.is_local:
            with contextlib.suppress(OSError):
                Path(props["console_log"]).unlink(missing_ok=True)


def _patiently(props: Props, virsh: Virsh) -> Seen:
    """Look once in a wait: an answer that does not come is a thing seen, not a failure."""
    try:
        changed(virsh)
        state = census(virsh).domains.get(props["domain"])
        if state != "running":
            text = "stopped running" if state in {None, "shut off"} else f"is {state}"
            return Seen(ok=False, text=f"domain {props['domain']} {text}")
        return probes.probe(props, virsh)
    except (Unreachable, VirshError) as silent:
        return Seen(ok=False, text=str(silent))


class _Patience:
    """Looks at a machine while it boots, and resets one that takes longer than it ever should."""

    def __init__(self, props: Props, virsh: Virsh) -> None:
        self._props, self._virsh = props, virsh
        self._every = props["reset_s"]
        self._since = time.monotonic()

    def look(self) -> Seen:
        seen = _patiently(self._props, self._virsh)
        if self._every and not seen.ok and time.monotonic() - self._since > self._every:
            say(
                f"{self._props['name']}: not up after {self._every:.0f} s, {seen.text}; resetting it"
            )
            self._virsh.run("reset", self._props["domain"])
            self._since = time.monotonic()
        return seen


def _running(props: Props, virsh: Virsh, before: str | None) -> DomainFacts:
    """Get a domain going that was seen in the state ``before``; None: it has just been defined."""
    domain = props["domain"]
    if before == "in shutdown":
        _wait_till_off(props, virsh)
    if before in WAKING:
        virsh.run(WAKING[before], domain)
    if virsh.domain_state(domain) not in ACTIVE:
        if before is not None:
            say(f"{props['name']}: starting it, it was {before}")
        virsh.must("start", domain)
    facts = virsh.domain(domain)
    if facts is None:
        raise VirshError(f"domain {domain} was removed while it was being started")
    return facts


def _wait_till_off(props: Props, virsh: Virsh) -> None:
    """Wait for the end of a shutdown that is under way: the domain can be started after it."""

    def look() -> Seen:
        state = virsh.domain_state(props["domain"])
        return Seen(ok=state != "in shutdown", text=f"domain {props['domain']} is {state}")

    wait_for(props["name"], look, deadline_s=props["deadline_s"])


def how_to_look(props: Props, virsh: Virsh) -> str:
    """What a person can do next: the console's last lines and the commands to see more."""
    console = f"virsh -c {virsh.uri} console {props['domain']}"
    lines = [f"  look at it on {virsh.shell.name}: {console}   (Ctrl-] leaves)"]
    # The place may be what does not answer.
    with contextlib.suppress(Unreachable, VirshError):
        facts = virsh.domain(props["domain"])
        if facts and facts.console:
            lines.append(f"  screen: {facts.console}")
        if tail := virsh.tail(props.get("console_log") or ""):
            lines.append(f"  last lines of {props['console_log']}:")
            lines += [f"    | {line}" for line in tail]
    return "\n".join(lines)


class MachineGate(BorderResource, module="nestlab", name="MachineGate"):
    """A machine that is up.

    ``probe`` says when it is; ``reach`` how its inside is reached (nested hypervisors only).
    """

    domain: pulumi.Output[str]
    """Name of the domain, known once the machine is up."""
    reach: pulumi.Output[dict[str, Any]]
    """`Target` of the machine's inside, secret; empty for a guest nobody enters."""
    answers: pulumi.Output[str]
    """What it answered when it was last waited for."""
    console: pulumi.Output[str]
    """Its screen as a URI, such as vnc://127.0.0.1:0; empty without one."""

    def __init__(
        self,
        name: str,
        *,
        target: pulumi.Input[Mapping[str, Any]],
        uri: pulumi.Input[str],
        domain: pulumi.Input[str],
        instance: str,
        probe: Mapping[str, Any],
        deadline_s: float,
        reset_s: float = 0.0,
        reach: pulumi.Input[Mapping[str, Any]] | None = None,
        key_folder: str = "",
        console_log: str = "",
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "target": target,
            "uri": uri,
            "domain": domain,
            "instance": instance,
            "probe": dict(probe),
            "reach": reach if reach is not None else {},
            "key_folder": key_folder,
            "console_log": console_log,
            "deadline_s": deadline_s,
            "reset_s": reset_s,
            "definition": None,
            "answers": None,
            "console": None,
        }
        opts = pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(additional_secret_outputs=["reach", "definition"])
        )
        super().__init__(MachineGateProvider(), name, props, opts)
