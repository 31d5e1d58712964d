"""What the verbs of `nestlab class` do: plan, bring up, take down, start anew."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroom import planning, register, roster, sheets, status, template
from classroom.sheets import Sheet
from classroom.work import Task
from components.stackfile.host import ClusterSpec
from components.stackfile.places import golden_images
from components.stackfile.problems import choose, counted, listed
from toolchain import lab, stack_check
from toolchain.bootstrap import paths, ui
from toolchain.doctor import addresses, capacity
from toolchain.engine import marker, stack_file
from toolchain.machine import host
from toolchain.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from ipaddress import IPv4Network

    from classroom.planning import Lab, Planned
    from classroom.register import Register
    from classroom.work import Crew, Outcome
    from components.stackfile.lab import LabSpec


def standing() -> set[str]:
    """Return the stacks that there is a state of, whatever it holds."""
    return lab.known() if (paths.BIN / "pulumi").exists() else set()


def called(given: str, name: str | None = None) -> tuple[str, Path | None]:
    """Return the name of the class that ``given`` means, and its roster; None: that is not there.

    ``given`` is the path of a roster, or the name of a class that was planned.

    Raises:
        Problem: it is neither.
        SpecError: the roster is refused.
    """
    file = Path(given).expanduser()
    known = register.known()
    if name is None and given in known and not file.exists():
        kept = Path(register.read(given).roster)
        return given, kept if kept.exists() else None
    if not file.exists():
        classes = f"Classes are {listed(known)}: {choose(given, known)}"
        if not known:
            classes = "Give the path of a CSV or YAML file, which docs/class.md describes."
        raise ui.Problem(f"{given} is no roster, and no class that was planned here. {classes}")
    return roster.read(file, name or _same(file)).name, file


def _same(file: Path) -> str | None:
    """Return the class that was last planned with the roster ``file``; None: as that says."""
    names = [n for n in register.known() if Path(register.read(n).roster) == file.resolve()]
    return names[0] if len(names) == 1 else None


def opened(given: str, name: str | None = None) -> Register:
    """Return what the class ``given`` has; a broken roster is no hindrance to one that was planned.

    Raises:
        Problem: there is no such class, or it was never planned.
    """
    file = Path(given).expanduser()
    known = name or (_same(file) if file.exists() else given)
    found = register.read(known if known in register.known() else called(given, name)[0])
    if not found.students:
        raise ui.Problem(f"the class {found.name} has no labs: `nestlab class plan` gives it some.")
    return found


def planned(given: str, *, name: str | None, source: str | None, anyway: bool) -> Planned:
    """Return the class of a roster, planned; hold its lock until what it says is done.

    ``source``: the template; None: as the roster says, or as it was planned before, or the usual stack.

    Raises:
        SpecError, Problem: what is wrong with it.
    """
    name, file = called(given, name)
    if file is None:
        raise ui.Problem(f"the roster of {name} is gone: give its path.")
    read = roster.read(file, name)
    before = register.read(name).template
    stack = source or read.template or before or ui.DEFAULT_STACK
    return planning.planned(
        read,
        stack,
        file=str(file.resolve()),
        standing=standing(),
        others=_others(),
        anyway=anyway,
    )


def _others() -> list[IPv4Network]:
    """Return the subnets that are routed where labs of this machine are."""
    found = addresses.in_use(System(), host.namespace() or "")
    return [subnet for _, subnet in found or []]


def at_once(made: Planned) -> int:
    """Return how many labs start at a time: all their boots together are one for each core."""
    cores = capacity.cores()
    spec = made.labs[0].spec
    if isinstance(spec.host, ClusterSpec) or not spec.host.is_here:
        return cores
    boots = min(spec.boot.concurrency or cores, len(spec.hypervisors) + len(spec.guests))
    return max(1, cores // max(1, boots))


def up(
    made: Planned,
    crew: Crew,
    only: Collection[str] = (),
    *,
    lose: bool,
    policies: bool,
    warm: bool = True,
) -> list[Outcome]:
    """Bring up the labs of a class, or those of ``only``; what the roster gives everybody is kept first.

    ``warm``: of each that is new a snapshot is taken, while nobody has done anything in it.

    Raises:
        Problem: the machine can't be set up, or a stack file of somebody's is in the way.
    """
    refuse_unknown(only, made.register.students)
    chosen = [each for each in made.labs if not only or each.student.id in only]
    _closable(chosen[0].spec, System())
    made.keep()
    lab.prepare(chosen[0].stack, golden_images(chosen[0].spec))
    tell_past(chosen)
    stand = standing()
    tasks = []
    for each in chosen:
        commands = [_up(each.stack, lose=lose, policies=policies)]
        if warm and each.stack not in stand:
            commands.append(["snapshot", "take", "--if-possible", "--stack", each.stack])
        tasks.append(_task(made.register, each.student.id, commands))
    return crew.run(tasks)


def tell_past(labs: Iterable[Lab]) -> None:
    """Warn of labs whose last day is over."""
    today = dt.datetime.now(tz=dt.UTC).date()
    for each in labs:
        if each.student.until and each.student.until < today:
            ui.warn(f"the lab of {each.student.id} ended on {each.student.until}")


def _closable(spec: LabSpec, system: System) -> None:
    """Refuse closed networks that this user can't close, which every lab would stop at half made."""
    closed = [name for name, each in spec.networks.items() if each.closed]
    if closed and spec.host.is_here and not (system.is_root() or system.can_sudo()):
        raise ui.Problem(
            f"networks of a class are closed, and that takes root here ({listed(closed)}); sudo asks for a password. "
            "Run `sudo -v` first, be root, or write `closed: false` at each network of the template: students "
            "then reach what this machine listens on."
        )


def _up(stack: str, *, lose: bool, policies: bool) -> list[str]:
    words = ["up", "--stack", stack, "--no-select"]
    return [*words, *(["--lose"] if lose else []), *([] if policies else ["--no-policies"])]


def _task(kept: Register, student: str, commands: Sequence[Sequence[str]]) -> Task:
    return Task(student, commands, kept.folder / "logs" / f"{student}.log")


def refuse_unknown(asked: Iterable[str], known: Collection[str]) -> None:
    """Refuse students that a class does not have.

    Raises:
        Problem: one is none.
    """
    for each in asked:
        if each not in known:
            raise ui.Problem(
                f"the class has no student {each!r}; it has {listed(known, 'nobody')}: {choose(each, known)}"
            )


def reset(
    made: Planned, crew: Crew, students: Sequence[str], *, policies: bool, cold: bool = False
) -> list[Outcome]:
    """Bring the labs of ``students`` back to their snapshots, or make them anew; nobody else's is touched.

    ``cold``: make them anew in any case.

    Raises:
        Problem: one is no student of the class, or has no lab yet.
    """
    refuse_unknown(students, [each.student.id for each in made.labs])
    chosen = [each for each in made.labs if each.student.id in students]
    stand = standing()
    # Of one whose reset was cut between its end and its beginning, the mark of a deployment is left.
    if absent := [
        each.student.id
        for each in chosen
        if each.stack not in stand and not marker.file(each.stack).exists()
    ]:
        raise ui.Problem(
            f"nothing was done: the lab of {listed(absent)} is not made yet; `nestlab class up {made.roster.name}` makes it."
        )
    made.keep()
    began = {each.student.id: status.since(each.stack) for each in chosen}
    more = [*(["--cold"] if cold else []), *([] if policies else ["--no-policies"])]
    results = crew.run(
        [
            _task(
                made.register,
                each.student.id,
                [["reset", "--lose", *more, "--stack", each.stack]],
            )
            for each in chosen
        ]
    )
    for each in chosen:
        # A lab that went back to its snapshot is the one that it was, and goes on to be counted.
        if status.since(each.stack) != began[each.student.id]:
            given = made.register.students[each.student.id]
            given.spent = status.used(given, began[each.student.id])
    made.register.write()
    return results


def down(
    kept: Register, crew: Crew, only: Collection[str] = (), *, left: bool = False
) -> list[Outcome]:
    """Take away the labs of a class, those of ``only``, or of who ``left`` its roster.

    Who left is forgotten once the lab is gone; the others keep their subnets.

    Raises:
        Problem: one is no student of the class.
    """
    refuse_unknown(only, kept.students)
    chosen = [
        id_
        for id_, given in kept.students.items()
        if (not only or id_ in only) and (given.left or not left)
    ]
    stand = standing()
    tasks = [
        _task(kept, id_, [["down", "--stack", kept.stack(id_)]])
        for id_ in chosen
        if kept.stack(id_) in stand
    ]
    began = {id_: status.since(kept.stack(id_)) for id_ in chosen}
    results = crew.run(tasks)
    there = standing()
    for id_ in chosen:
        if kept.stack(id_) in there:
            continue
        given = kept.students[id_]
        given.spent = status.used(given, began[id_])
        _forget(kept, id_)
        if given.left:
            del kept.students[id_]
    kept.write()
    return results


def suspend(kept: Register, crew: Crew, only: Collection[str] = ()) -> list[Outcome]:
    """Suspend the labs of a class that stand, or those of ``only``.

    Raises:
        Problem: one is no student of the class.
    """
    return crew.run(_each(kept, only, "suspend"))


def resume(kept: Register, crew: Crew, only: Collection[str] = (), *, lose: bool) -> list[Outcome]:
    """Let the labs of a class that are suspended go on, or those of ``only``.

    ``lose``: boot what does not go on from its memory.

    Raises:
        Problem: one is no student of the class.
    """
    return crew.run(_each(kept, only, "resume", *(["--lose"] if lose else [])))


def _each(kept: Register, only: Collection[str], *words: str) -> list[Task]:
    """Return the task of one command for each lab that stands, of a class or of ``only``."""
    refuse_unknown(only, kept.students)
    stand = standing()
    return [
        _task(kept, id_, [[*words, "--stack", kept.stack(id_)]])
        for id_ in kept.students
        if (not only or id_ in only) and kept.stack(id_) in stand
    ]


def _forget(kept: Register, student: str) -> None:
    """Remove what files remain of a student's lab that has no state any more, but for its log."""
    stack = kept.stack(student)
    template.remove(stack)
    sheets.remove(kept.folder / sheets.FOLDER, student)
    # Its lock stays: who waits for it would hold one that nobody else sees.
    for file in (paths.CONFIG / stack_file.of(stack).name, marker.file(stack)):
        file.unlink(missing_ok=True)


def sheet(kept: Register, student: str, told: Callable[[str], Mapping[str, Any]]) -> Sheet:
    """Return what a student is told; ``told`` has the lab's rows as ``sheet``, and its secrets once it is made.

    Raises:
        Problem: the stack file is gone or refused.
    """
    given, stack = kept.students[student], kept.stack(student)
    known = told(stack)
    return Sheet(
        student,
        given.name or student,
        kept.name,
        stack,
        known["sheet"],
        stack_check.plan_of(stack),
        given.until,
        kept.hand_in,
        made="key" in known,
        passwords=known.get("passwords") or {},
        logins=known.get("logins") or {},
        key=str(known.get("key") or ""),
    )


def summary(verb: str, results: Sequence[Outcome]) -> int:
    """Tell what came of ``verb``; return the exit status of the command."""
    good = [each for each in results if each.ok]
    stopped = [each for each in results if each.code in {None, ui.INTERRUPTED}]
    failed = [each for each in results if not each.ok and each not in stopped]
    ui.say(f"{verb}: {len(good)} of {counted(len(results), 'labs')}")
    for each in failed:
        ui.fail(f"{each.student}: {each.last} (log: {os.path.relpath(each.log)})")
    if stopped:
        ui.say(
            f"stopped; not {verb} are {listed(each.student for each in stopped)}: the same command "
            "goes on from there"
        )
        return ui.INTERRUPTED
    return 1 if failed else 0
