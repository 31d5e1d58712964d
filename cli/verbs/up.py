"""Bring the lab up: install what is missing, then make what is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cli import options, records, sheet
from toolchain import lab


@click.command()
@options.stack
@click.option("--lose", is_flag=True, help="Go on although machines or disks are lost.")
@click.option(
    "--policies/--no-policies",
    default=True,
    show_default=True,
    help="Whether the policy pack judges the lab (docs/policies.md).",
)
@click.option(
    "--select/--no-select",
    default=True,
    hidden=True,
    help="Whether plain `pulumi` is about a new stack from then on.",
)
@click.option(
    "--save-plan",
    "keep",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Change nothing of the lab; keep the plan of what would be done.",
)
@click.option(
    "--plan",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Do no more than the plan in FILE, which --save-plan kept.",
)
@options.as_json
@click.option(
    "--timings",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the seconds of each phase, as JSON.",
)
def command(
    stack: str,
    *,
    lose: bool,
    policies: bool,
    select: bool,
    plan: Path | None,
    keep: Path | None,
    as_json: bool,
    timings: Path | None,
) -> int:
    """Bring the lab up.

    What is missing is installed first: Pulumi, its plugins, libvirt, images. The stack is checked as
    a whole before any of that. Nothing of yours is lost unasked; without a terminal it takes --lose.
    """
    if keep and (plan or as_json):
        raise click.UsageError("--save-plan goes with neither --plan nor --json.")
    with lab.alone(stack):
        _go_on(stack, keep=keep)
        did = lab.up(
            stack,
            lose=lose,
            aside=as_json,
            policies=policies,
            select=select,
            plan=plan,
            keep=keep,
        )
        # What it needs around it may have been missing before: networks after a restart of this machine.
        if did.ok:
            _go_on(stack, keep=keep)
    if timings:
        timings.write_text(json.dumps(did.seconds))
    if keep:
        return 0
    told = lab.outputs(stack) if did.ok else {"sheet": []}
    if as_json:
        summary = {"stack": stack, "up": did.ok, "changed": did.changed, "seconds": did.seconds}
        print(json.dumps(summary | {"sheet": told["sheet"]}, indent=2))
    elif did.ok:
        sheet.show(told, stack)
    return 0 if did.ok else 1


def _go_on(stack: str, *, keep: Path | None) -> None:
    """End a reset or a snapshot that did not, and let a suspended lab go on; a look (``keep``) leaves both."""
    known = records.read(stack)
    # What it takes is imported where somebody was on the way.
    if (known.resetting or known.going) and not keep:
        from cli import snapshots  # noqa: PLC0415

        snapshots.carry_on(stack)
    if known.suspended and not keep:
        from cli import suspension  # noqa: PLC0415

        suspension.carry_on(stack)
