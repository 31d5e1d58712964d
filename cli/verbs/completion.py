"""Print what makes a shell complete this command's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from toolchain.bootstrap import ui

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> int:
    """Print a script for SHELL that completes verbs, options, stacks and machines.

    \b
    bash, zsh:  eval "$(nestlab completion bash)"
    fish:       nestlab completion fish | source
    """  # noqa: D301 - click reads it
    script = get_completion_class(shell)
    context = click.get_current_context().find_root()
    if script is None:
        raise ui.Problem(f"click has no completion for {shell}.")
    name = context.info_name or "nestlab"
    print(script(context.command, {}, name, f"_{name.upper()}_COMPLETE").source())
    return 0
