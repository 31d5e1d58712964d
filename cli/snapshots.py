"""A lab's snapshot: taken while it runs, and what `reset` goes back to in seconds.

It holds the memory and disks of the machines on the outer host, and with them all that is inside. A file notes
what it belongs to: the lab's identity, what the state said of it, QEMU and the CPU. Where one of them is
another now it is not used. The file also has the names of what is being taken or removed, so that whoever
comes after a kill finds it: nothing is looked for by what it is called.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli import renewal
from cli.records import Record, Taken, forget, read, write
from components import kinds
from components.gates.marks import SECRET, SIGNATURE
from components.reach.shell import LocalShell
from components.refused import Refused
from toolchain import lab
from toolchain.bootstrap import ui
from toolchain.engine import foreign, state, strays
from toolchain.engine.environment import BACKEND, environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PART = "snapshots"
"""The module of a kind of outer host that takes them."""
POSIX = frozenset({"kvm", "xen"})
"""Kinds whose machines take the time and randomness from us (`cli.renewal`): our own golden images'."""
PLAIN = frozenset({"guest", "container"})
"""What a sheet calls machines that hold no others: nobody may be able to log in."""
DOMAIN = "libvirt:index/domain:Domain"


@dataclass(frozen=True)
class Lab:
    """What the state of a lab says of its outer host."""

    stack: str
    kind: str
    uri: str
    pool: str
    identity: str
    domains: dict[str, str]
    digest: str

    @property
    def libvirt(self) -> Any:
        """Its libvirt.

        Raises:
            Problem: the outer host is no libvirt.
        """
        return self.part.at(LocalShell(), self.uri)

    @property
    def part(self) -> Any:
        """What takes snapshots of its outer host's kind.

        Raises:
            Problem: nothing does.
        """
        try:
            return kinds.part(self.kind, PART)
        except ModuleNotFoundError:
            raise ui.Problem(
                f"a lab on {self.kind} has no snapshot that nestlab takes, and is not suspended by it: "
                "only one on a libvirt is."
            ) from None


def of(stack: str) -> Lab:
    """Return what the state of ``stack`` says of its outer host.

    Raises:
        Problem: there is none, it can't be read, or its last command did not end.
    """
    if why := lab.absent(stack):
        raise ui.Problem(why)
    latest = _deployment(stack)
    resources = [one for one in latest.get("resources") or [] if not one.get("delete")]
    if latest.get("pending_operations"):
        again = ui.make("up", stack)
        raise ui.Problem(f"the last command of {stack} did not end. {again} puts it right.")
    outs: Mapping[str, Any] = next(
        (one.get("outputs") or {} for one in resources if one["type"] == strays.IDENTITY), {}
    )
    domains = {
        str(one["inputs"]["name"]): str(one["id"])
        for one in resources
        if one["type"] == DOMAIN and _place(one) == "host" and strays.stands(one)
    }
    if not resources:
        raise ui.Problem(f"the stack {stack} is not up. {ui.make('up', stack)} brings it up.")
    if not outs.get("value") or not domains:
        raise ui.Problem(f"the lab of {stack} has no machine on a libvirt.")
    kind = str(outs.get("kind") or "libvirt")
    return Lab(stack, kind, outs["uri"], outs["pool"], outs["value"], domains, _digest(resources))


def _deployment(stack: str) -> Mapping[str, Any]:
    folder = state.folder(environment()[BACKEND])
    if folder and (at := state.file_of(stack, folder)):
        foreign.refuse(at)  # what it names is reverted
        with contextlib.suppress(state.Unreadable):
            return state.read(at).latest
    told: Mapping[str, Any] = json.loads(lab.capture("stack", "export", "--stack", stack))
    latest: Mapping[str, Any] = told["deployment"]
    return latest


def _place(resource: Mapping[str, Any]) -> str:
    """Return the place whose libvirt a resource is in."""
    urn = str(resource.get("provider") or "").rpartition("::")[0]
    return urn.rpartition("::")[2].removesuffix(strays.LIBVIRT)


def _digest(resources: Iterable[Mapping[str, Any]]) -> str:
    """Return a text that changes with whatever of the lab is made, removed, or wanted otherwise.

    Secrets don't count, whose ciphers change; what the lab was last seen to be does not either.
    """
    told = sorted(
        (str(one["urn"]), str(one.get("id")), json.dumps(_open(one.get("inputs")), sort_keys=True))
        for one in resources
        if one.get("custom") and not str(one["type"]).startswith("pulumi:providers:")
    )
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _open(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return SECRET
        return {key: _open(each) for key, each in value.items() if key != "__provider"}
    return [_open(each) for each in value] if isinstance(value, list) else value


def rows(stack: str) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Return the machines of the outer host, and the addresses inside those that are entered."""
    every = lab.outputs(stack)["sheet"]
    outer = [row for row in every if not row["inside"]]
    asked = {
        row["name"]: [
            each["address"]
            for each in every
            if each["inside"][:1] == [row["name"]] and each["address"]
        ]
        for row in outer
        if row["kind"] in POSIX
    }
    return outer, asked


def settle(found: Lab, record: Record) -> None:
    """Remove what a command that did not end has left of another snapshot.

    Raises:
        Refused: libvirt does not let go of it.
    """
    if record.going:
        found.part.drop(found.libvirt, found.domains, record.going)
        record.going = []
        write(found.stack, record)


def unusable(found: Lab, record: Record) -> str:
    """Return why the lab can't go back to its snapshot; empty: it can."""
    taken = record.taken
    if taken is None:
        return "it has no snapshot"
    if taken.identity != found.identity:
        return "its snapshot is of a lab that is gone"
    if taken.domains != found.domains or taken.state != found.digest:
        return "the lab was changed since its snapshot was taken"
    try:
        for what, value in found.part.host_facts(found.libvirt).items():
            if taken.host.get(what) != value:
                return f"its snapshot was taken with another {what}"
        why: str = found.part.changed(found.libvirt, found.domains, taken.name)
    except Refused as silent:
        return str(silent)
    return why


def hindrance(found: Lab, outer: Sequence[Mapping[str, Any]]) -> str:
    """Return why no snapshot of the lab can be taken; empty: nothing is known to be in the way."""
    for row in outer:
        if row["kind"] not in PLAIN | POSIX:
            return (
                f"{row['name']} is of the kind {row['kind']}, which nobody tells the time after it"
            )
    why: str = found.part.hindrance(found.libvirt, found.domains)
    return why


def take(stack: str) -> Taken:
    """Take the snapshot of a lab that runs; the one that it had goes when this one is whole.

    Raises:
        Problem, Refused: it can't be; the one that it had is still there.
    """
    carry_on(stack)
    found = of(stack)
    record = read(stack)
    if record.resetting:
        raise ui.Problem(f"no snapshot: a reset did not end. {ui.make('reset', stack)} does.")
    if record.suspended:
        raise ui.Problem(f"no snapshot: it is suspended. {ui.make('resume', stack)} first.")
    outer, asked = rows(stack)
    settle(found, record)
    if why := hindrance(found, outer):
        raise ui.Problem(f"no snapshot: {why}")
    libvirt, domains = found.libvirt, list(found.domains)
    before, most = found.part.size(libvirt, domains)
    room = found.part.free(libvirt, found.pool)
    if room is not None and room < most:
        raise ui.Problem(
            f"no snapshot: it takes up to {most >> 20} MiB where the lab's disks are, and {room >> 20} MiB"
            " are free there."
        )
    name = f"nestlab-{secrets.token_hex(8)}"
    facts = found.part.host_facts(libvirt)
    old = [record.taken.name] if record.taken else []
    # Noted first: whoever comes after a kill lets go on what stands still.
    write(stack, Record(record.taken, [name]))
    with ui.step("who answers inside"):
        answered = renewal.stand_still(stack, asked)
    try:
        with ui.step("memory and disks"):
            found.part.take(libvirt, found.domains, name, f"of the lab {stack}, by nestlab")
    finally:
        renewal.go_on(stack, asked)
    grown = max(0, found.part.size(libvirt, domains)[0] - before)
    made = Taken(
        name,
        time.time(),
        found.identity,
        found.digest,
        facts,
        dict(found.domains),
        answered,
        grown,
    )
    record = Record(made, old)
    write(stack, record)
    settle(found, record)
    return made


def drop(stack: str) -> bool:
    """Remove the snapshot of a lab; return whether there was one.

    Raises:
        Problem, Refused: it can't be removed.
    """
    carry_on(stack)
    record = read(stack)
    names = [*record.going, *([record.taken.name] if record.taken else [])]
    if names:
        found = of(stack)
        left = Record(None, names, suspended=record.suspended)
        write(stack, left)
        settle(found, left)
    if record.suspended:
        write(stack, Record(suspended=record.suspended))
    else:
        forget(stack)
    return bool(names)


def back(found: Lab, record: Record) -> None:
    """Bring a lab back to its snapshot, with the time of now and randomness of its own, and see it answer.

    Raises:
        Problem, Refused: it does not go back, or does not answer.
    """
    taken = record.taken
    if taken is None:
        raise ui.Problem("it has no snapshot")
    settle(found, record)
    write(found.stack, Record(taken, record.going, resetting=True))
    with ui.step("memory and disks"):
        found.part.revert(found.libvirt, found.domains, taken.name)
    tell_the_time(found, taken.answered, rows(found.stack)[0])
    write(found.stack, Record(taken, record.going))


def tell_the_time(
    found: Lab, answered: Mapping[str, Sequence[str]], machines: Iterable[Mapping[str, Any]]
) -> None:
    """Give the machines of ``answered`` the time and new randomness, and see one of who answered inside again.

    The others of ``machines``, rows of the sheet, get the time alone, where QEMU's guest agent is in them.

    Raises:
        Problem: one does not take it, or nobody in it answers.
    """
    with ui.step("time, randomness, and who answers inside"):
        renewal.renew(found.stack, answered)
    for row in machines:
        if row["name"] not in answered and not found.part.set_clock(found.libvirt, row["domain"]):
            ui.warn(f"{row['name']}: nobody tells it the time, its clock goes on from then")


def carry_on(stack: str) -> None:
    """End what was killed: what is on its way back has the wrong time until then, what is taken stands still."""
    record = read(stack)
    if not record.resetting and not record.going:
        return
    try:
        found = of(stack)
        if not record.resetting:
            renewal.go_on(stack, rows(stack)[1])
            settle(found, record)
            return
        if why := unusable(found, record):
            ui.warn(f"a reset did not end, and can't be gone on with: {why}")
            write(stack, Record(record.taken, record.going))
            return
        ui.say("a reset did not end: it is gone on with")
        back(found, record)
    except (ui.Problem, Refused, OSError, subprocess.SubprocessError) as wrong:
        ui.warn(f"a {'reset' if record.resetting else 'snapshot'} did not end: {wrong}")


def reset(stack: str, *, policies: bool = True, cold: bool = False) -> bool:
    """Bring a lab back to its snapshot; where it can't go, take it down and bring it up. Return whether it is up.

    Raises:
        Problem: it can't be taken down, or brought up.
    """
    why = "as asked" if cold else _warm(stack)
    if not why:
        return True
    ui.say(f"from the beginning: {why}")
    selected = state.is_selected(stack, environment()[BACKEND])
    if not lab.down(stack):
        return False
    forget(stack)
    if not lab.up(stack, lose=True, policies=policies, select=selected).ok:
        return False
    take_if_possible(stack)
    return True


def _warm(stack: str) -> str:
    """Bring a lab back to its snapshot; return why it could not be, empty for done."""
    try:
        found, record = of(stack), read(stack)
        if why := unusable(found, record):
            return why
        back(found, record)
    except (ui.Problem, Refused) as wrong:
        return str(wrong).partition("\n")[0]
    return ""


def take_if_possible(stack: str) -> None:
    """Take a snapshot, or say why there is none: the lab is as good without."""
    try:
        told(take(stack))
    except (ui.Problem, Refused) as wrong:
        ui.say(
            f"the next reset will be from the beginning: {str(wrong).removeprefix('no snapshot: ')}"
        )


def told(taken: Taken) -> None:
    """Tell what was taken."""
    inside = sum(map(len, taken.answered.values()))
    ui.say(
        f"a snapshot of {len(taken.domains)} machines ({taken.bytes >> 20} MiB on their disks, {inside} answer"
        " inside)"
    )


def age(taken: Taken) -> str:
    """Return when it was taken, in the local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(taken.at))
