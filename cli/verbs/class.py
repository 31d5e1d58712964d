"""A class: one lab for each student of a roster."""  # noqa: N999 - a verb is called as its file

from __future__ import annotations

import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from classroom import acts, progress, register, sheets, status
from classroom.work import Crew, Outcome
from cli import machines, options, sheet
from cli.app import USAGE
from components.stackfile.problems import counted
from toolchain import lab
from toolchain.bootstrap import ui
from toolchain.doctor import capacity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from classroom.planning import Planned

CLASS = click.argument("given", metavar="CLASS")
STUDENTS = click.argument("students", metavar="[STUDENT]...", nargs=-1)
NAME = click.option("--name", metavar="NAME", help="What the class is called, if not as its file.")
AT_ONCE = click.option(
    "-n",
    "--at-once",
    type=click.IntRange(1, 100),
    metavar="N",
    help="Labs at a time; default: so many that each core boots one machine.",
)
POLICIES = click.option(
    "--policies/--no-policies",
    default=True,
    show_default=True,
    help="Whether the policy pack judges.",
)


ANYWAY = click.option("--anyway", is_flag=True, help="Although the host has too little.")


def planning(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``verb`` what says of which class it plans."""
    for option in (
        click.option(
            "-s",
            "--stack",
            "source",
            metavar="NAME",
            help="The template, one of stacks/; default: the roster's, or the plan's, or `local`.",
        ),
        NAME,
        CLASS,
    ):
        verb = option(verb)
    return verb


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """One lab for each student of a roster, from one stack file.

    CLASS is a roster, a CSV with the columns id and name or YAML (docs/class.md); or the name of a class
    that was planned here. The stack of a student is CLASS.ID, and takes every other command too.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit(USAGE)


@command.command(short_help="Check the roster, and tell what all labs take.")
@planning
@ANYWAY
@options.as_json
def plan(given: str, *, name: str | None, source: str | None, anyway: bool, as_json: bool) -> int:
    """Check the roster, tell what all labs take, and write the students' stack files."""
    with register.alone(acts.called(given, name)[0]):
        made = acts.planned(given, name=name, source=source, anyway=anyway)
        made.keep()
    if as_json:
        print(json.dumps(_plan_json(made), indent=2))
        return 0
    for line in made.bill.lines():
        print(line)
    for line in made.bill.warnings():
        ui.warn(line)
    acts.tell_past(made.labs)
    _tell_left(made)
    return 0


def _plan_json(made: Planned) -> dict[str, Any]:
    return {
        "class": made.roster.name,
        "template": made.register.template,
        "labs": [
            {
                "student": each.student.id,
                "stack": each.stack,
                "subnets": made.register.students[each.student.id].subnets,
                "node": made.bill.placed.get(each.student.id),
                "memory_mib": each.size.memory_mib,
                "disk_gib": each.size.disk_gib,
                "cores": each.size.cores,
            }
            for each in made.labs
        ],
        "left": list(made.left),
        "warnings": made.bill.warnings(),
    }


def _tell_left(made: Planned) -> None:
    if made.left:
        ui.say(
            f"no more on the roster, and their labs stand: {', '.join(made.left)}; "
            f"`nestlab class down {made.roster.name} --left` takes them away"
        )


@command.command()
@planning
@ANYWAY
@STUDENTS
@AT_ONCE
@click.option("--lose", is_flag=True, help="Go on although machines or disks are lost.")
@click.option(
    "--warm/--no-warm",
    default=True,
    show_default=True,
    help="Whether a snapshot of each new lab is taken, which `reset` goes back to (docs/reset.md).",
)
@POLICIES
@options.as_json
def up(
    given: str, students: Sequence[str], *, as_json: bool, at_once: int | None, **more: Any
) -> int:
    """Bring the labs up, N at a time; one that fails stops no other."""
    how = {word: more.pop(word) for word in ("lose", "policies", "warm")}
    with register.alone(acts.called(given, more["name"])[0]):
        made = acts.planned(given, **more)
        _judged(policies=how["policies"])
        for line in made.bill.warnings():
            ui.warn(line)
        crew = _crew(made.register, at_once or acts.at_once(made), as_json=as_json)
        results = acts.up(made, crew, students, **how)
    _tell_left(made)
    return acts.summary("up", results)


def _judged(*, policies: bool) -> None:
    if not policies:
        ui.warn("the policy pack is off: nothing judges the labs (--no-policies)")


def _crew(kept: register.Register, at_once: int, *, as_json: bool) -> Crew:
    width = max(map(len, kept.students), default=1)
    return Crew(at_once, progress.of(as_json=as_json, width=width))


@command.command(short_help="Make the lab of STUDENT anew.")
@planning
@click.argument("students", metavar="STUDENT...", nargs=-1, required=True)
@AT_ONCE
@click.option("--cold", is_flag=True, help="Not to a snapshot: down, then up.")
@POLICIES
@options.as_json
def reset(
    given: str, students: Sequence[str], *, as_json: bool, at_once: int | None, **more: Any
) -> int:
    """Bring the lab of STUDENT back to the beginning: what was done in it is lost, nobody else's is touched.

    In seconds where it has a snapshot that can be used, else by taking it down and bringing it up.
    """
    policies, cold = more.pop("policies"), more.pop("cold")
    with register.alone(acts.called(given, more["name"])[0]):
        # It takes no more than the lab does that stands.
        made = acts.planned(given, **more, anyway=True)
        _judged(policies=policies)
        crew = _crew(made.register, at_once or acts.at_once(made), as_json=as_json)
        results = acts.reset(made, crew, students, policies=policies, cold=cold)
    return acts.summary("reset", results)


def standing(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``verb`` what says of which labs of a planned class it is."""
    for option in (options.as_json, AT_ONCE, NAME, STUDENTS, CLASS):
        verb = option(verb)
    return verb


def _on_each(
    verb: str,
    given: str,
    name: str | None,
    act: Callable[[register.Register, Crew], list[Outcome]],
    *,
    at_once: int | None,
    as_json: bool,
) -> int:
    """Do ``act`` with what the class ``given`` has, as nobody else does meanwhile; return the exit status."""
    called = acts.opened(given, name).name
    with register.alone(called):
        kept = register.read(called)
        results = act(kept, _crew(kept, at_once or capacity.cores(), as_json=as_json))
    return acts.summary(verb, results)


@command.command()
@standing
def suspend(given: str, students: Sequence[str], *, name: str | None, **how: Any) -> int:
    """Save the memory of the labs to disk and switch their machines off; `resume` and `up` go on from there."""
    return _on_each(
        "suspend", given, name, lambda kept, crew: acts.suspend(kept, crew, students), **how
    )


@command.command(short_help="Let suspended labs go on, in seconds.")
@standing
@click.option(
    "--lose", is_flag=True, help="Boot from its disks what does not go on from its memory."
)
def resume(given: str, students: Sequence[str], *, name: str | None, lose: bool, **how: Any) -> int:
    """Let the suspended labs go on from where they were, with the time of now; others are left as they are."""
    return _on_each(
        "resume",
        given,
        name,
        lambda kept, crew: acts.resume(kept, crew, students, lose=lose),
        **how,
    )


@command.command()
@standing
@click.option("--left", is_flag=True, help="Of those alone who are no more on the roster.")
def down(given: str, students: Sequence[str], *, name: str | None, left: bool, **how: Any) -> int:
    """Take the labs away, also of those who are no more on the roster."""
    return _on_each(
        "down", given, name, lambda kept, crew: acts.down(kept, crew, students, left=left), **how
    )


@command.command(name="status", short_help="Say what is of each lab.")
@CLASS
@NAME
@options.as_json
def state(given: str, *, name: str | None, as_json: bool) -> int:
    """Say what is of each lab at each layer, how old it is, and what is past its end or budget."""
    kept = acts.opened(given, name)
    found = status.of(kept, look, acts.standing(), capacity.cores())
    if as_json:
        print(
            json.dumps({"class": kept.name, "labs": [each.as_json() for each in found]}, indent=2)
        )
        return 0
    for line in status.lines(found, kept.price):
        print(line)
    return 0


@command.command(name="sheet", short_help="Write a page for each student.")
@CLASS
@STUDENTS
@NAME
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the pages.  [default: .nestlab/classes/CLASS/sheets]",
)
@click.option("--screens/--no-screens", default=True, help="Pictures on the page of the class.")
def pages(
    given: str, students: Sequence[str], *, name: str | None, to: Path | None, screens: bool
) -> int:
    """Write a page for each student, with that lab's secrets, and one of the class, with none.

    HTML that opens offline, and Markdown; only you may read them. The page of the class has a picture of
    each screen that can be had: what a student sees, it shows too.
    """
    kept = acts.opened(given, name)
    acts.refuse_unknown(students, kept.students)
    folder = to or kept.folder / sheets.FOLDER
    stand = acts.standing()
    failed = 0
    for each in students or kept.students:
        try:
            made = acts.sheet(kept, each, lambda stack: told(stack, made=stack in stand))
        except (ui.Problem, OSError) as wrong:
            ui.fail(f"{each}: {ui.in_words(wrong)}")
            failed += 1
            continue
        sheets.write(folder, each, sheets.html(made), sheets.markdown(made))
    if not students:
        found = status.of(kept, look, stand, capacity.cores())
        when = dt.datetime.now().astimezone().isoformat(" ", "minutes")
        files = sheets.write(
            folder,
            sheets.CLASS_PAGE,
            sheets.class_html(kept, found, when, _screens(found) if screens else None),
            sheets.class_markdown(kept, found, when),
        )
        ui.say(f"the class: {files[0]}")
    count = counted(len(students or kept.students) - failed, "students")
    ui.say(f"pages of {count}: {folder}")
    return 1 if failed else 0


def told(stack: str, *, made: bool) -> dict[str, Any]:
    """Return the rows of ``stack`` as ``sheet``, and its secrets where it is up as a whole."""
    found = lab.found(stack, secrets=True) if made else {}
    return found if "sheet" in found else {"sheet": sheet.planned(stack)}


def _screens(found: Sequence[status.Seen]) -> dict[str, dict[str, str]]:
    """Return what the screens of each student's lab show, by machine; of none, where they can't be asked."""

    def one(seen: status.Seen) -> dict[str, str]:
        try:
            known = lab.found(seen.stack)
            told = machines.pictures(seen.stack, known.get("sheet") or sheet.planned(seen.stack))
        except (ui.Problem, OSError, ValueError, LookupError) as wrong:
            ui.warn(f"{seen.student}: no pictures of the screens: {ui.in_words(wrong)}")
            return {}
        return {name: each["picture"] for name, each in told.items() if "picture" in each}

    there = [each for each in found if each.state not in {status.NONE, status.OFF}]
    with ThreadPoolExecutor(capacity.cores()) as pool:
        return dict(zip((each.student for each in there), pool.map(one, there), strict=True))


def look(stack: str) -> list[dict[str, Any]]:
    """Return what is of each machine and network of ``stack``."""
    known = lab.found(stack)
    rows = known["sheet"] if "sheet" in known else sheet.planned(stack)
    return machines.look_at_all(stack, rows)
