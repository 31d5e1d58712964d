"""A lab from nothing, away again, and into it: what the verbs of the command `nestlab` do.

Each is the set-up steps that are still missing, then one plain `pulumi` command. What stands between
is only what people would otherwise have to know: which stack, and that it may not exist yet.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from components.gates.marks import ASSET, SIGNATURE
from toolchain import ssh
from toolchain.bootstrap import cache, paths, ui
from toolchain.doctor import verdict
from toolchain.engine import before, build, changes, child, foreign, plans, stack_file, state
from toolchain.engine.environment import BACKEND, EVENTS, environment
from toolchain.engine.marker import POLICIES, Marker
from toolchain.image import image
from toolchain.machine import host
from toolchain.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    HalfUp = Callable[[str, str | None], list[dict[str, Any]]]
    """Returns the sheet of a stack as far as there is one, with the way into a machine of it."""

CLONES = re.compile(rf"""\bkind: *['"]?({"|".join(image.VARIANTS)})\b""")
"""Names a kind whose machines are clones of a golden image of the same name, in a stack that was read whole
before and is not read whole again."""
STACK = "pulumi:pulumi:Stack"
"""Type of the resource of a state that has the stack's outputs."""


@contextlib.contextmanager
def alone(stack: str) -> Iterator[None]:
    """Let one command at a time change ``stack``: the second of two finds what the first did."""
    before.refuse_pipes(environment())
    with cache.locked(f"stack {stack}", paths.LOCAL / "locks"):
        yield


@dataclass
class Up:
    """What `up` did."""

    ok: bool
    """Whether the lab is up."""
    changed: bool
    """Whether anything of it was made, changed or removed."""
    seconds: dict[str, float]
    """By phase: how long it took."""


def up(
    stack: str,
    *,
    lose: bool = False,
    aside: bool = False,
    policies: bool = True,
    select: bool = True,
    plan: Path | None = None,
    keep: Path | None = None,
) -> Up:
    """Set the machine up as far as it is not, and bring the lab up.

    ``lose``: also what loses disks. ``aside``: what the engine prints goes to standard error.
    ``policies``: the policy pack judges it. ``select``: a new stack is what plain `pulumi` is about then. ``plan``: does no more than the plan in that file.
    ``keep``: changes nothing of the lab, and keeps the plan of what would be done in that file.

    Raises:
        Problem: a set-up step failed, there is no such stack, it is refused, or the plan is not for it.
    """
    seconds: dict[str, float] = {}
    began = time.monotonic()

    def done(phase: str) -> None:
        nonlocal began
        seconds[phase], began = time.monotonic() - began, time.monotonic()

    told = _told(stack)
    marker = Marker(stack, policies=policies)
    if not policies:
        ui.warn(f"the policy pack is off: nothing judges the lab ({POLICIES}/, docs/policies.md)")
    approved = plans.read(plan, stack, marker.now) if plan else None
    # Before minutes are spent on it. What was deployed as it stands is checked by the preview.
    variants = _clones(told) if marker.holds else _checked(stack)
    done("stack file")
    prepare(stack, variants, done)
    fresh = not exists(stack)
    if fresh:
        # Selected too, but for a look: plain `pulumi up` in a shell with env.sh is then about this lab.
        capture("stack", "init", stack, *([] if select and not keep else ["--no-select"]))
    done("stack")
    if keep:
        _keep(stack, marker, keep)
        return Up(ok=True, changed=False, seconds=seconds)
    made = _deploy(stack, marker, lose=lose, fresh=fresh, aside=aside, approved=approved)
    done("deployment")
    if made is None:
        mend(stack)
        again, away = (ui.make(each, stack) for each in ("up", "down"))
        ui.say(f"the lab is not up; {again} carries on from here, {away} takes it away")
    return Up(ok=made is not None, changed=made is not False, seconds=seconds)


def prepare(
    stack: str, variants: Sequence[str], done: Callable[[str], None] = lambda _: None
) -> None:
    """Set the machine up as far as it is not, for ``stack`` and the golden images that it asks for.

    ``done`` is told of each phase that ended.

    Raises:
        Problem: a step failed.
    """
    build.main(["--stack", stack])
    done("toolchain")
    host.main([])
    done("host")
    for variant in variants:
        image.main([variant])
    done("image")
    verdict.ensure(System())
    done("doctor")


def without_file(stack: str) -> str:
    """Return that ``stack`` has no file, and which have; nothing where it has one."""
    file = stack_file.of(stack)
    if file.exists():
        return ""
    return f"there is no stacks/{file.name}. Known stacks: {', '.join(stack_file.stacks())}."


def absent(stack: str) -> str:
    """Return what to say of a stack that is not up, and perhaps is none; nothing where it has a state."""
    if (paths.BIN / "pulumi").exists() and exists(stack):
        return ""
    return (
        without_file(stack) or f"the stack {stack} is not up. {ui.make('up', stack)} brings it up."
    )


def _told(stack: str) -> bytes:
    settings = stack_file.of(stack)
    try:
        return stack_file.content(settings)
    except FileNotFoundError:
        raise ui.Problem(without_file(stack)) from None


def _clones(told: bytes) -> list[str]:
    return sorted(set(CLONES.findall(told.decode(errors="replace"))))


def _checked(stack: str) -> list[str]:
    """Have the whole stack checked; return the golden images that it asks for.

    Raises:
        Problem: it is refused, in the words of a preview.
    """
    # What it imports takes a second, which an `up` with nothing to do need not pay.
    from toolchain import stack_check  # noqa: PLC0415

    return stack_check.checked(stack)


def _deploy(
    stack: str,
    marker: Marker,
    *,
    lose: bool,
    fresh: bool,
    aside: bool,
    approved: dict[str, Any] | None = None,
) -> bool | None:
    """Bring the lab to what its stack says; ask before anything of it is lost (``fresh``: there is none).

    ``approved``: an engine's plan, which is all that may be done. Returns whether anything was done; None: it failed.

    Raises:
        Problem: something would be lost, and nobody said that it may be; or more would be done than is planned.
    """
    if approved is not None or not fresh:
        # What was deployed as it stands was judged then; what has drifted since is judged below.
        judges = () if marker.holds else marker.judges
        if approved is None:
            preview = previewed(stack, *judges)
        else:
            preview, now = _planned(stack, *judges)
            plans.refuse_more(stack, approved, now)
        for each in preview.warnings:
            ui.warn(each)
        if preview.losses and not lose:
            _ask(stack, preview.losses)
        if preview.clean and marker.holds:
            return False
    marker.file.unlink(missing_ok=True)
    words = ("up", "--yes", "--skip-preview", "--suppress-progress", *marker.judges)
    with tempfile.TemporaryDirectory(prefix="nestlab-plan-") as folder:
        more: dict[str, str] = {}
        if approved is not None:
            held_to = Path(folder) / "plan.json"
            cache.write(held_to, json.dumps(plans.eased(approved)), 0o600)
            words, more = (*words, "--plan", str(held_to)), plans.CONSTRAINED
        if run(*words, stack=stack, aside=aside, more=more):
            return None
    cache.write(marker.file, marker.now)
    return True


def _planned(stack: str, *more: str) -> tuple[changes.Preview, dict[str, Any]]:
    """Return what the engine would do, for us and as its own plan."""
    with tempfile.TemporaryDirectory(prefix="nestlab-plan-") as folder:
        file = Path(folder) / "plan.json"
        preview = previewed(stack, *more, "--save-plan", str(file))
        told: dict[str, Any] = json.loads(file.read_text())
    return preview, told


def _keep(stack: str, marker: Marker, file: Path) -> None:
    """Keep the plan of what `up` would do in ``file``, and say what that is."""
    preview, plan = _planned(stack, *marker.judges)
    plans.keep(file, plan, stack, marker.now)
    for each in preview.warnings:
        ui.warn(each)
    if preview.losses:
        ui.say(f"it would take from the lab {stack}:\n{changes.listed(preview.losses)}")
    ui.say(f"nothing was changed; the plan is in {file}: {plans.counted(plan)}")
    ui.say(f"`{plans.command(stack, '--plan', file)}` does that and no more")


def previewed(stack: str, *more: str) -> changes.Preview:
    """Return what the engine would do; ``more`` are words of `pulumi preview`.

    Raises:
        Problem: the stack is refused, or the engine's answer can't be read.
    """
    with ui.step("what would change"):
        done = _preview(stack, *more)
    if done.returncode:
        # The answer names no policy; the events do.
        stopped = changes.violations(_preview(stack, *more, events=True).stdout) if more else []
        raise ui.Problem("\n".join(stopped) or changes.refused(done.stdout, done.stderr))
    try:
        return changes.read(done.stdout)
    except changes.Unreadable as strange:
        raise ui.Problem(
            f"`pulumi preview --json` can't be read ({strange}), so nobody knows what would be lost."
            f"\nLook at `pulumi preview --stack {stack}`, and run `pulumi up --stack {stack}` in a shell with"
            " .nestlab/env.sh."
        ) from None


def _preview(stack: str, *more: str, events: bool = False) -> subprocess.CompletedProcess[str]:
    words = [str(paths.BIN / "pulumi"), "preview", "--json", "--stack", stack, *more]
    # It waits for an engine that a killed `make` has left at work, as what follows would.
    given = {**environment(), child.ATTENDED: "yes"} | ({EVENTS: "true"} if events else {})
    return subprocess.run(
        words, cwd=paths.ROOT, env=given, capture_output=True, text=True, check=False
    )


def _ask(stack: str, losses: tuple[str, ...]) -> None:
    """Show what would be lost, and go on only when somebody says so.

    Raises:
        Problem: nobody is there to be asked, or the answer is no.
    """
    ui.say(f"{ui.make('up', stack)} would take from the lab {stack}:\n{changes.listed(losses)}")
    word = ui.make("up", stack, "LOSE=1")
    if not sys.stdin.isatty():
        raise ui.Problem(f"nothing was changed. {word} does it, and loses that.")
    try:
        answer = input("Go on? Only 'yes' does. ")
    except EOFError:
        answer = ""
    if answer.strip() != "yes":
        raise ui.Problem("nothing was changed.")


def down(stack: str, *, aside: bool = False) -> bool:
    """Take the lab away; nothing happens when there is none. Returns whether it is gone.

    ``aside``: what the engine prints goes to standard error.
    """
    if not (paths.BIN / "pulumi").exists() or not exists(stack):
        none = without_file(stack)
        ui.say(f"the stack {stack} is not up{f': {none}' if none else ''}")
        return True
    if paths.NETNS.exists():
        host.main([])  # after a restart of the machine libvirt has to be there to be asked
    words = ("destroy", "--yes", "--skip-preview", "--suppress-progress")
    if run(*words, stack=stack, aside=aside):
        mend(stack)
        ui.say(f"the lab is not down; see above, and repeat {ui.make('down', stack)}")
        return False
    capture("stack", "rm", "--yes", "--preserve-config", "--stack", stack)
    return True


def enter(
    stack: str,
    name: str | None,
    words: Sequence[str] = (),
    half_up: HalfUp | None = None,
    *,
    console: bool = False,
) -> int:
    """Become a shell (or the command ``words``) on a machine of the lab; return its exit status.

    ``half_up``: says what is of a lab without a sheet; ``console``: by its text console, whatever else opens it.

    Raises:
        Problem: the lab is not up, or the machine is not one that can be entered.
    """
    argv, folder = way_in(stack, name, words, half_up, console=console)
    # What would change how virsh or its libvirt connects, and what it prints.
    strange = ("VIRSH_", "LIBVIRT_")
    given = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return subprocess.run(argv, check=False, cwd=folder, env=given).returncode


def way_in(
    stack: str,
    name: str | None,
    words: Sequence[str],
    half_up: HalfUp | None = None,
    *,
    console: bool = False,
) -> tuple[list[str], Path | None]:
    """Return the command that opens a machine, or runs ``words`` there, and the folder to run it in.

    Raises:
        Problem: the lab is not up, or the machine is not one that can be entered.
    """
    told = found(stack) if half_up else outputs(stack)
    sheet = told["sheet"] if "sheet" in told or half_up is None else half_up(stack, name)
    rows = {row["name"]: row for row in sheet}
    if name is None:
        word = ui.make("enter", stack, f"NAME={next(iter(rows), 'MACHINE')}")
        raise ui.Problem(f"which machine? The lab has: {', '.join(rows)}. Say it: {word}")
    row = rows.get(name)
    if row is None:
        raise ui.Problem(f"the lab has no {name!r}. It has: {', '.join(rows)}.")
    row, command = ssh.opened(row, words, console=console)
    outer = rows.get(row["inside"][-1] if row["inside"] else "")
    entered = outer if row["enter"] else row
    if entered is None:
        foreign.refuse_command(name, command)
        command = ssh.by_virsh(command)
    around = outer if not row["enter"] and row["kind"] == ssh.GUEST else None
    argv, folder = ssh.words(entered, stack, command, around) if entered else (command, None)
    return [*in_namespace(), *argv], folder


def in_namespace() -> list[str]:
    """Return what comes before a command that is to run where guests are reached: libvirt's network."""
    # The wrapper of pulumi goes the same way.
    namespace = host.namespace()
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    return ["sudo", "-n", *inside] if inside and os.geteuid() else inside


def outputs(stack: str, *, secrets: bool = False) -> dict[str, Any]:
    """Return the lab's outputs: the sheet, and with ``secrets`` passwords and key.

    Raises:
        Problem: it is not up, or not as a whole.
    """
    told = found(stack, secrets=secrets)
    if "sheet" not in told:
        raise ui.Problem(
            f"the stack {stack} is not up as a whole. Run {ui.make('up', stack)} again."
        )
    return told if secrets else {"sheet": told["sheet"]}


def found(stack: str, *, secrets: bool = False) -> dict[str, Any]:
    """Return what of `outputs` there is: a lab that is not up as a whole may have no sheet yet.

    Raises:
        Problem: it is not up.
    """
    before.refuse_pipes(environment())
    if why := absent(stack):
        raise ui.Problem(why)
    told = None if secrets else _in_state(stack)
    if told is None:
        asked = ("stack", "output", "--json", "--stack", stack)
        told = json.loads(capture(*asked, *(["--show-secrets"] if secrets else [])))
    return {**told, "sheet": _rows(told["sheet"])} if "sheet" in told else told


def _rows(sheet: Any) -> list[dict[str, Any]]:
    """Return the sheet of an output: a text of JSON, or the list that it once was."""
    found: list[dict[str, Any]] = json.loads(sheet["text"]) if isinstance(sheet, dict) else sheet
    return found


def _in_state(stack: str) -> dict[str, Any] | None:
    """Return the sheet as the state has it; None where it takes the engine to tell.

    The engine reads the same file, and makes the key of its secrets first, which takes longer than all
    else that shows a sheet.
    """
    folder = _files()
    file = state.file_of(stack, folder) if folder else None
    if file is None or file.suffix != ".json":
        return None
    try:
        resources = state.read(file).latest.get("resources") or []
    except state.Unreadable:
        return None
    outputs: dict[str, Any] = next(
        (one.get("outputs") or {} for one in resources if one.get("type") == STACK), {}
    )
    if "sheet" not in outputs:
        return {}
    sheet = outputs["sheet"]
    plain = isinstance(sheet, dict) and sheet.get(SIGNATURE) == ASSET and "text" in sheet
    # Secrets, and what else the engine marks, are its own to read.
    return {"sheet": sheet} if plain or SIGNATURE not in json.dumps(sheet) else None


def exists(stack: str) -> bool:
    """Whether there is a state of ``stack``, whatever it holds."""
    if folder := _files():
        return state.file_of(stack, folder) is not None
    return any(
        each["name"].rpartition("/")[2] == stack
        for each in json.loads(capture("stack", "ls", "--json"))
    )


def known() -> set[str]:
    """Return the names of all stacks that there is a state of, whatever it holds."""
    if folder := _files():
        return {state.stack_in(file) for file in state.files(folder)}
    told = json.loads(capture("stack", "ls", "--json"))
    return {each["name"].rpartition("/")[2] for each in told}


def _files() -> Path | None:
    """Return the folder of a backend whose files we know; None: it is to be asked through the engine."""
    legacy = os.environ.get("PULUMI_DIY_BACKEND_LEGACY_LAYOUT")
    return None if legacy else state.folder(environment()[BACKEND])


def run(
    *words: str, stack: str, aside: bool = False, more: Mapping[str, str] = MappingProxyType({})
) -> int:
    """Run the engine, which prints for itself; return its exit status. Told to end, it is a KeyboardInterrupt.

    ``aside``: all of that goes to standard error. ``more``: variables of its environment.
    """
    words, given = (*words, "--stack", stack), {**environment(), **more}
    to = sys.stderr if aside else None
    status = child.run([str(paths.BIN / "pulumi"), *words], env=given, cwd=paths.ROOT, stdout=to)
    if status and child.was_cut():
        raise KeyboardInterrupt
    return status


def capture(*words: str) -> str:
    """Return what the engine prints.

    Raises:
        Problem: it failed, with its own words.
    """
    done = subprocess.run(
        [str(paths.BIN / "pulumi"), *words],
        cwd=paths.ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        mend()
        how = f" (signal {-done.returncode})" if done.returncode < 0 else ""
        raise ui.Problem(f"`pulumi {' '.join(words)}` failed{how}:\n{done.stderr.strip()}")
    return done.stdout


def mend(stack: str = ui.DEFAULT_STACK) -> None:
    """After a failure: have what is damaged in the cache made again, which a look at its size has missed."""
    build.main(["--verify", "--stack", stack])
