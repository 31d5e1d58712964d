"""Take, list or drop the snapshot that `reset` goes back to."""

from __future__ import annotations

import json

import click

from cli import options, records, snapshots
from components.refused import Refused
from toolchain import lab
from toolchain.bootstrap import ui


@click.group()
def command() -> None:
    """A lab's own snapshot: memory and disks of its machines at one moment, with all that is in them.

    A lab has one, which `reset` goes back to in seconds. It lies in the disks of the machines, takes as much
    as their memory holds, and goes with the lab. docs/reset.md has the rest.
    """


@command.command()
@options.stack
@click.option("--if-possible", is_flag=True, help="Where none can be taken: say why, and end well.")
def take(stack: str, *, if_possible: bool) -> int:
    """Take one of a lab that is up, in place of the one that it has."""
    with lab.alone(stack):
        if if_possible:
            snapshots.take_if_possible(stack)
            return 0
        try:
            snapshots.told(snapshots.take(stack))
        except Refused as wrong:
            raise ui.Problem(str(wrong)) from None
    return 0


@command.command(name="list")
@options.stack
@options.as_json
def shown(stack: str, *, as_json: bool) -> int:
    """Say which snapshot the lab has, and whether it can go back to it."""
    record = records.read(stack)
    taken, why = record.taken, "it has no snapshot"
    if taken:
        try:
            why = snapshots.unusable(snapshots.of(stack), record)
        except ui.Problem as wrong:
            why = str(wrong)
    elif none := lab.absent(stack) and lab.without_file(stack):
        raise ui.Problem(none)
    if as_json:
        found = {"name": taken.name, "taken": taken.at, "bytes": taken.bytes} if taken else None
        print(json.dumps({"stack": stack, "snapshot": found, "usable": not why, "why": why}))
    elif taken:
        print(f"{taken.name}  {snapshots.age(taken)}  {taken.bytes >> 20} MiB  {why or 'usable'}")
    else:
        ui.say(f"the lab of {stack} has no snapshot")
    return 0


@command.command()
@options.stack
def drop(stack: str) -> int:
    """Remove the lab's snapshot; the lab itself stays as it is."""
    with lab.alone(stack):
        if none := lab.absent(stack) and lab.without_file(stack):
            raise ui.Problem(none)
        try:
            there = snapshots.drop(stack)
        except Refused as wrong:
            raise ui.Problem(str(wrong)) from None
    ui.say("the snapshot is gone" if there else f"the lab of {stack} has no snapshot")
    return 0
