"""What several verbs take."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import click

from toolchain import lab
from toolchain.bootstrap import ui
from toolchain.engine import stack_file, state

if TYPE_CHECKING:
    from collections.abc import Callable

Verb = TypeVar("Verb", bound="Callable[..., object]")


def stack(verb: Verb) -> Verb:
    """Give ``verb`` the option that says which stack it is about."""
    return click.option(
        "-s",
        "--stack",
        default=ui.DEFAULT_STACK,
        show_default=True,
        metavar="NAME",
        callback=lambda _ctx, _option, name: state.named(name),
        shell_complete=lambda _ctx, _option, begun: [
            name for name in stack_file.stacks() if name.startswith(begun)
        ],
        help="Which of stacks/.",
    )(verb)


def as_json(verb: Verb) -> Verb:
    """Give ``verb`` the option that makes its standard output JSON; all else goes to standard error."""
    return click.option("--json", "as_json", is_flag=True, help="For programs.")(verb)


def machine_names(ctx: click.Context, _argument: click.Parameter, begun: str) -> list[str]:
    """Return the machines of the stack whose names have ``begun``, for a shell that completes words."""
    with contextlib.suppress(ui.Problem, OSError):
        rows = lab.outputs(ctx.params.get("stack") or ui.DEFAULT_STACK)["sheet"]
        return [row["name"] for row in rows if row["name"].startswith(begun)]
    return []
