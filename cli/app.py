"""The command `nestlab`: verbs found by the names of their files, errors printed in one way.

A verb's module is imported when it is run: what only one of them needs costs the others nothing.
"""

from __future__ import annotations

import ast
import difflib
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolchain.__main__ import PRIVATE
from toolchain.bootstrap import paths, ui

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import override
else:
    # typing has it from Python 3.12 on, and that package takes as long to import as click.
    def override(method):  # noqa: ANN001, ANN201
        return method


NAME = "nestlab"
VERBS = Path(__file__).with_name("verbs")
USAGE = 2
"""Exit status where the words of a command are wrong."""
PLAIN = frozenset({"test", "enter"})
"""Verbs whose children get the mode of new files that people are used to."""
ELSEWHERE = {
    "preview": "`nestlab doctor` checks the stack file; `nestlab up --save-plan FILE` tells what would be done",
    "plan": "`nestlab up --save-plan FILE` tells what would be done; for a class, `nestlab class plan`",
    "validate": "`nestlab doctor` checks the stack file",
    "check": "`nestlab doctor` checks the stack file",
    "status": "`nestlab show` says what is of each machine; for a class, `nestlab class status`",
    "list": "`nestlab show` says what is of each machine",
    "destroy": "it is `nestlab down`",
    "ssh": "it is `nestlab enter`",
    "console": "it is `nestlab enter`, or `nestlab screen` for a picture",
}
"""What people call it who know other such commands; none of these is near to the verb that they mean."""
CODES = """\b
Exit status: 0 done, 1 not done (what is in the way was printed), 2 wrong words,
130 stopped by Ctrl-C. `enter` and `test` end as what they run."""


class Verbs(click.Group):
    """Finds its verbs by the names of their files, and imports the one that is asked for."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(file.stem for file in VERBS.glob("[a-z]*.py"))

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        found: click.Command = import_module(f"cli.verbs.{cmd_name}").command
        found.name = cmd_name
        return found

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], known, n=1)
            meant = ELSEWHERE.get(args[0]) or (
                f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}."
            )
            raise click.UsageError(f"there is no verb {args[0]!r}: {meant}", ctx)
        return super().resolve_command(ctx, args)

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, _first_line(name)) for name in self.list_commands(ctx)])


def _first_line(name: str) -> str:
    """Return what a verb's file says of it, without running it."""
    text = (VERBS / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


@click.command(
    cls=Verbs,
    name=NAME,
    epilog=CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
)
def group() -> None:
    """Nested-virtualization labs as code: from nothing, into it, and away again.

    A stack is a file stacks/Pulumi.NAME.yaml; without -s it is the stack `local`.
    """


def main(argv: Sequence[str]) -> int:
    """Run the command with ``argv``; return its exit status."""
    if not os.environ.get("MAKELEVEL"):
        ui.speak(NAME)
    return ui.ended(lambda: _run(list(argv)))


def _run(argv: list[str]) -> int:
    if not (argv and argv[0] in PLAIN):
        os.umask(PRIVATE)
    paths.check()
    try:
        # Without its own way to end: what a verb could not do is printed by `ui.ended`.
        status = group.main(args=argv or ["--help"], prog_name=NAME, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as bare:
        click.echo(bare.format_message(), err=True)
        return USAGE
    except click.UsageError as wrong:
        where = wrong.ctx.command_path if wrong.ctx else NAME
        ui.fail(f"{_sentence(wrong.format_message())}\nSee {where} --help.")
        return USAGE
    except click.Abort:
        raise KeyboardInterrupt from None
    if not argv:
        return USAGE
    return status if isinstance(status, int) else 0


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
