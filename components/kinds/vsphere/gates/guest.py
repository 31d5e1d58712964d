"""The gate of a guest: it is there, runs, and what it is for answers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from components.gates.api import ask, glance
from components.gates.base import Made
from components.gates.keys import remove_keys, write_keys
from components.gates.machine import Machine, MachineResource
from components.kinds.vsphere import hardware
from components.kinds.vsphere.api import Vsphere, VsphereError
from components.kinds.vsphere.gates.base import AtVsphere, VsphereGate
from components.reach.shell import Unreachable
from components.reach.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    import pulumi


@dataclass(frozen=True, kw_only=True)
class Guest(AtVsphere, Machine):
    """Properties of a guest's gate."""

    host: str
    pool: str
    store: str
    uuid: str
    """By which the provider knows it."""
    called: str
    layer: int
    wanted: hardware.Wanted
    definition: Made[str] = None


class VsphereGuestProvider(VsphereGate[Guest]):
    """Sets what the provider can't, starts a guest, and waits until it is up."""

    shape = Guest

    @override
    def seen(self, vcenter: Vsphere, props: Guest) -> Seen:
        seen = self._runs(vcenter, props)
        return glance(props, seen)

    def _runs(self, vcenter: Vsphere, props: Guest) -> Seen:
        called = f"guest {props.called}"
        machine = vcenter.by_uuid(props.uuid)
        if machine is None:
            text = f"{called} is not there any more, and what was on its disk is lost"
            return Seen(ok=False, text=text)
        config, state = _told(vcenter, machine)
        if state != "poweredOn":
            return Seen(ok=False, text=f"{called} is {STATES.get(state, state)}")
        wrong = hardware.differences(config, props.wanted)
        return Seen(ok=not wrong, text=f"{called} {', '.join(wrong) or 'runs'}")

    @override
    def mend(self, olds: Guest | None, news: Guest) -> Guest:
        with Vsphere(news.api) as vcenter:
            machine = vcenter.by_uuid(news.uuid)
            if machine is None:
                if olds is None or not olds.definition or olds.uuid != news.uuid:
                    raise VsphereError(f"guest {news.called} was removed while it was being made")
                again = hardware.again(olds.definition)
                machine = vcenter.create(news.datacenter, again, news.pool, news.host)
                say(f"{news.name}: made again, with an empty disk")
            config, state = _told(vcenter, machine)
            if hardware.differences(config, news.wanted):
                hot = hardware.while_it_runs(config, news.wanted)
                if state != "poweredOff" and not (hot and state == "poweredOn"):
                    vcenter.power_off(machine)
                    state = "poweredOff"
                store = vcenter.store(news.store)
                vcenter.reconfigure(machine, hardware.correction(config, news.wanted, store))
                config, _ = _told(vcenter, machine)
            if state != "poweredOn":
                vcenter.power_on(machine, news.deadline_s)
            definition = hardware.definition(config)
        write_keys(news.key_folder, news.reach)
        return replace(news, answers=self._wait(news).text, definition=definition)

    def _wait(self, props: Guest) -> Seen:
        with ExitStack() as sessions:
            open_: list[Vsphere] = []

            def up() -> Seen:
                try:
                    if not open_:
                        open_.append(sessions.enter_context(Vsphere(props.api)))
                    seen = self._runs(open_[0], props)
                    return ask(props) if seen.ok else seen
                except (Unreachable, VsphereError) as silent:
                    # The next look logs in anew: a vCenter that was restarted knows no session.
                    open_.clear()
                    return Seen(ok=False, text=str(silent))

            try:
                return wait_for(props.name, up, deadline_s=props.deadline_s)
            except NotReady as late:
                where = f"layer {props.layer}, guest {props.called}"
                look = f"https://{props.api.server}/ui, Launch Web Console"
                raise NotReady(f"{late}\n  look at it ({where}): {look}") from None

    @override
    def retire(self, props: Guest) -> None:
        # First: they must not stay when the place does not answer.
        remove_keys(props.key_folder)
        with Vsphere(props.api) as vcenter:
            if props.definition and vcenter.by_uuid(props.uuid) is None:
                # The provider refuses to delete what is not there.
                shell = hardware.shell(props.definition)
                vcenter.create(props.datacenter, shell, props.pool, props.host)


STATES = {"poweredOff": "off", "suspended": "suspended"}


def _told(vcenter: Vsphere, machine: Any) -> tuple[Any, str]:
    """Return a machine's configuration and power state.

    Raises:
        VsphereError: it is there, but its host can't say.
    """
    told = vcenter.read(machine, "name", "config", "runtime.powerState", "runtime.connectionState")
    if "config" not in told:
        raise VsphereError(f"{told['name']} is {told['runtime.connectionState']}")
    return told["config"], str(told["runtime.powerState"])


class VsphereGuestGate(MachineResource, module="nestlab", name="VsphereGuestGate"):
    """A guest that is up."""

    def __init__(self, name: str, props: Guest, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(VsphereGuestProvider(), name, props, opts)
