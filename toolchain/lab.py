"""`make up`, `make down`, `make show`, `make enter`: a lab from nothing, away again, and into it.

Each is the set-up steps that are still missing, then one plain `pulumi` command. What stands between
is only what people would otherwise have to know: which stack, and that it may not exist yet.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from toolchain import build, cache, changes, foreign, host, image, paths, stack_file, state, ui
from toolchain.doctor import verdict
from toolchain.environment import BACKEND, environment
from toolchain.system import System

if TYPE_CHECKING:
    from pathlib import Path

CLONES = re.compile(rf"""\bkind: *['"]?({"|".join(image.VARIANTS)})\b""")
"""Names a kind whose machines are clones of a golden image of the same name (the spec is not at hand before the
Python environment is; a stack that writes it otherwise is told to run `make image`)."""


def main(argv: list[str]) -> int:
    """Run ``up``, ``down``, ``show`` or ``enter``, which is the first word of ``argv``."""
    parser = argparse.ArgumentParser(prog=f"python3 -m toolchain {argv[0]}")
    parser.add_argument(
        "--stack", default=ui.DEFAULT_STACK, help="which of stacks/ (default: %(default)s)"
    )
    if argv[0] == "show":
        parser.add_argument("--secrets", action="store_true", help="passwords in clear")
        parser.add_argument("--json", action="store_true", help="for programs")
    if argv[0] == "up":
        parser.add_argument(
            "--lose", action="store_true", help="go on although machines or disks are lost"
        )
        parser.add_argument("--timings", help="file for the seconds of each phase, as JSON")
    if argv[0] == "enter":
        parser.add_argument("name", nargs="?", help="machine of the lab, as `make show` calls it")
        parser.add_argument("command", nargs=argparse.REMAINDER, help="default: a shell")
    wanted = parser.parse_args(argv[1:])
    state.named(wanted.stack)
    if argv[0] in {"show", "enter"}:
        return {"show": show, "enter": enter}[argv[0]](wanted)
    # One at a time: the second of two finds what the first did.
    with cache.locked(f"stack {wanted.stack}", paths.LOCAL / "locks"):
        return {"up": up, "down": down}[argv[0]](wanted)


def up(wanted: argparse.Namespace) -> int:
    """Set the machine up as far as it is not, and bring the lab up.

    Raises:
        Problem: a set-up step failed, or there is no such stack.
    """
    timings: dict[str, float] = {}
    began = time.monotonic()

    def done(phase: str) -> None:
        nonlocal began
        timings[phase], began = time.monotonic() - began, time.monotonic()

    settings = paths.ROOT / "stacks" / f"Pulumi.{wanted.stack}.yaml"
    try:
        told = stack_file.content(settings)
    except FileNotFoundError:
        known = ", ".join(sorted(_stacks()))
        raise ui.Problem(f"there is no stacks/{settings.name}. Known stacks: {known}.") from None
    build.main(["--stack", wanted.stack])
    done("toolchain")
    host.main([])
    done("host")
    for variant in sorted(set(CLONES.findall(told.decode(errors="replace")))):
        image.main([variant])
    done("image")
    verdict.ensure(System())
    done("doctor")
    fresh = not _exists(wanted.stack)
    if fresh:
        # Selected too: plain `pulumi up` in a shell with env.sh is then about this lab.
        _capture("stack", "init", wanted.stack)
    done("stack")
    status = _deploy(wanted, fresh=fresh)
    done("deployment")
    if wanted.timings:
        with open(wanted.timings, "w", encoding="utf-8") as handle:  # noqa: PTH123
            json.dump(timings, handle)
    if status:
        _mend(wanted.stack)
        again, away = (ui.make(each, wanted.stack) for each in ("up", "down"))
        ui.say(f"the lab is not up; {again} carries on from here, {away} takes it away")
        return 1
    return show(argparse.Namespace(stack=wanted.stack, secrets=False, json=False))


def _deploy(wanted: argparse.Namespace, *, fresh: bool) -> int:
    """Bring the lab to what its stack says; ask before anything of it is lost (``fresh``: there is none).

    Raises:
        Problem: something would be lost, and nobody said that it may be.
    """
    marker, now = paths.LOCAL / "deployed" / wanted.stack, _fingerprint(wanted.stack)
    if not fresh:
        preview = _previewed(wanted.stack)
        for each in preview.warnings:
            ui.warn(each)
        if preview.losses and not wanted.lose:
            _ask(wanted.stack, preview.losses)
        if preview.clean and marker.is_file() and marker.read_text() == now:
            return 0
    marker.unlink(missing_ok=True)
    status = _pulumi("up", "--yes", "--skip-preview", "--suppress-progress", stack=wanted.stack)
    if not status:
        cache.write(marker, now)
    return status


def _previewed(stack: str) -> changes.Preview:
    words = [str(paths.BIN / "pulumi"), "preview", "--json", "--stack", stack]
    with ui.step("what would change"):
        done = subprocess.run(
            words, cwd=paths.ROOT, env=environment(), capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise ui.Problem(changes.refused(done.stdout, done.stderr))
    try:
        return changes.read(done.stdout)
    except changes.Unreadable as strange:
        raise ui.Problem(
            f"`pulumi preview --json` can't be read ({strange}), so nobody knows what would be lost."
            f"\nLook at `pulumi preview --stack {stack}`, and run `pulumi up --stack {stack}` in a shell with"
            " .nestlab/env.sh."
        ) from None


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


def _fingerprint(stack: str) -> str:
    """Return a text that changes with everything that the sheet is made from but the world's state."""
    told = hashlib.sha256()
    sources = [paths.ROOT / "__main__.py", *sorted((paths.ROOT / "components").rglob("*.py"))]
    for file in (paths.ROOT / "stacks" / f"Pulumi.{stack}.yaml", *sources):
        told.update(f"{file.relative_to(paths.ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return told.hexdigest()


def down(wanted: argparse.Namespace) -> int:
    """Take the lab away; nothing happens when there is none."""
    if not (paths.BIN / "pulumi").exists() or not _exists(wanted.stack):
        ui.say(f"the stack {wanted.stack} is not up")
        return 0
    if paths.NETNS.exists():
        host.main([])  # after a restart of the machine libvirt has to be there to be asked
    arguments = ("destroy", "--yes", "--skip-preview", "--suppress-progress")
    if _pulumi(*arguments, stack=wanted.stack):
        _mend(wanted.stack)
        ui.say(f"the lab is not down; see above, and repeat {ui.make('down', wanted.stack)}")
        return 1
    _capture("stack", "rm", "--yes", "--preserve-config", "--stack", wanted.stack)
    return 0


def show(wanted: argparse.Namespace) -> int:
    """Print the connection sheet: every machine, its layer, address, and how to get in.

    Raises:
        Problem: the lab is not up.
    """
    told = _outputs(wanted.stack, secrets=wanted.secrets)
    if wanted.json:
        print(json.dumps(told, indent=2))
        return 0
    for line in _lines(told, wanted.stack):
        print(line)
    return 0


def enter(wanted: argparse.Namespace) -> int:
    """Become a shell (or the given command) on a machine of the lab.

    Raises:
        Problem: the lab is not up, or the machine is not one that can be entered.
    """
    rows = {row["name"]: row for row in _outputs(wanted.stack)["sheet"]}
    if wanted.name is None:
        word = ui.make("enter", wanted.stack, f"NAME={next(iter(rows), 'MACHINE')}")
        raise ui.Problem(f"which machine? The lab has: {', '.join(rows)}. Say it: {word}")
    row = rows.get(wanted.name)
    if row is None:
        raise ui.Problem(f"the lab has no {wanted.name!r}. It has: {', '.join(rows)}.")
    if not row["enter"] and not row["user"]:
        screen = row["console"] or "there is none that is known"
        raise ui.Problem(f"{row['name']} has no known login. Its screen: {screen}")
    inside = row["inside"][-1] if row["inside"] else ""
    command = [word for word in wanted.command if word != "--"]
    if row["enter"]:
        if command and not row["run"]:
            raise ui.Problem(
                f"{row['name']} is a guest without a known login: only its console opens."
            )
        command = [*row["run"], *command] if command else row["enter"]
    entered = rows.get(inside) if row["enter"] else row
    if entered is None:
        foreign.refuse_command(row)
    argv, folder = _ssh(entered, wanted.stack, command) if entered else (command, None)
    # The guests' namespace is where libvirt lives; the wrapper of pulumi goes the same way.
    namespace = host.namespace()
    if namespace:
        argv = ["ip", "netns", "exec", namespace, *argv]
        if os.geteuid():
            argv = ["sudo", "-n", *argv]
    # What would change how virsh or its libvirt connects, and what it prints.
    strange = ("VIRSH_", "LIBVIRT_")
    given = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return subprocess.run(argv, check=False, cwd=folder, env=given).returncode


def _ssh(host: dict[str, Any], stack: str, command: list[str]) -> tuple[list[str], Path]:
    """Return the command that runs ``command`` on ``host``, and the folder to run it in.

    No configuration is read, no agent asked, and the files are named from their own folder: ssh takes
    blanks, ``%`` and ``${`` in a path for words of its own (ssh_config(5), "TOKENS").
    """
    folder = paths.KEYS / stack / host["name"]
    try:
        known, algorithm = (folder / "known_hosts").read_text().split()[:2]
    except (OSError, ValueError):
        raise ui.Problem(
            f"the keys of {host['name']} are not there. Run {ui.make('up', stack)} again."
        ) from None
    address, _, port = known.strip("[").partition("]:")
    settings = {
        "IdentityFile": "id_ed25519",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": "known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        # The planned key's own: ESXi's is ECDSA, since FIPS mode takes no Ed25519.
        "HostKeyAlgorithms": algorithm,
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        # A machine that stops or crashes says no goodbye: without this the shell would wait for hours.
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
    }
    argv = [
        *("ssh", "-F", "none"),
        *(["-t"] if sys.stdin.isatty() else []),
        *(word for name, value in settings.items() for word in ("-o", f"{name}={value}")),
        *("-p", port or "22", "--", f"{host['user']}@{address}"),
        *([shlex.join(command)] if command else []),
    ]
    return argv, folder


def _outputs(stack: str, *, secrets: bool = False) -> dict[str, Any]:
    if not (paths.BIN / "pulumi").exists() or not _exists(stack):
        raise ui.Problem(f"the stack {stack} is not up. {ui.make('up', stack)} brings it up.")
    asked = ("stack", "output", "--json", "--stack", stack)
    told: dict[str, Any] = json.loads(_capture(*asked, *(["--show-secrets"] if secrets else [])))
    if "sheet" not in told:
        raise ui.Problem(
            f"the stack {stack} is not up as a whole. Run {ui.make('up', stack)} again."
        )
    return told if secrets else {"sheet": told["sheet"]}


def _lines(told: dict[str, Any], stack: str) -> list[str]:
    sheet = told["sheet"]
    columns = {
        "LAYER": [str(row["layer"]) for row in sheet],
        "NAME": ["  " * (row["layer"] - 1) + row["name"] for row in sheet],
        "KIND": [row["kind"] for row in sheet],
        "ADDRESS": [row["address"] for row in sheet],
        "USER": [row["user"] for row in sheet],
        "WEB": [row["url"] for row in sheet],
        "SCREEN": [_screen(row) for row in sheet],
        "GET IN": [ui.make("enter", stack, f"NAME={row['name']}").strip("`") for row in sheet],
    }
    secret = {"SCREEN'S PASSWORD": "passwords", "USER'S PASSWORD": "logins"}
    for title, output in secret.items():
        if known := told.get(output):
            columns[title] = [known.get(row["name"], "") for row in sheet]
    for title in ("WEB", *secret):
        if not any(columns.get(title, ())):
            columns.pop(title, None)
    table = [[title, *(cell or "-" for cell in cells)] for title, cells in columns.items()]
    widths = [max(map(len, column)) for column in table]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*table, strict=True)
    ]
    return (
        lines
        if "passwords" in told
        else [
            *lines,
            "",
            f"Passwords: {ui.make('show', stack, 'SECRETS=1').strip('`')}",
        ]
    )


def _screen(row: dict[str, Any]) -> str:
    screen = str(row["console"]) if ":" in row["console"] else ""
    return f"{screen} on {row['inside'][-1]}" if screen and row["inside"] else screen


def _exists(stack: str) -> bool:
    folder = state.folder(environment()[BACKEND])
    if folder and not os.environ.get("PULUMI_DIY_BACKEND_LEGACY_LAYOUT"):
        return state.file_of(stack, folder) is not None
    return any(
        each["name"].rpartition("/")[2] == stack
        for each in json.loads(_capture("stack", "ls", "--json"))
    )


def _stacks() -> list[str]:
    found = (paths.ROOT / "stacks").glob("Pulumi.*.yaml")
    return [path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in found]


def _pulumi(*words: str, stack: str) -> int:
    command = [str(paths.BIN / "pulumi"), *words, "--stack", stack]
    with subprocess.Popen(command, cwd=paths.ROOT, env=environment()) as engine:
        # A terminal tells the engine, too; `make` and a service manager tell their own child alone.
        passed_on = signal.signal(signal.SIGTERM, lambda *_: engine.send_signal(signal.SIGINT))
        try:
            while True:
                # It is ending its steps; its exit is what matters.
                with contextlib.suppress(KeyboardInterrupt):
                    return engine.wait()
        finally:
            signal.signal(signal.SIGTERM, passed_on)


def _capture(*words: str) -> str:
    done = subprocess.run(
        [str(paths.BIN / "pulumi"), *words],
        cwd=paths.ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        _mend()
        how = f" (signal {-done.returncode})" if done.returncode < 0 else ""
        raise ui.Problem(f"`pulumi {' '.join(words)}` failed{how}:\n{done.stderr.strip()}")
    return done.stdout


def _mend(stack: str = ui.DEFAULT_STACK) -> None:
    """After a failure: have what is damaged in the cache made again, which a look at its size has missed."""
    build.main(["--verify", "--stack", stack])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
