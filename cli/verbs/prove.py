"""Try a kind on its real product, cell by cell of the table of proofs, and write a report."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import click

from cli import options, proving
from cli.proof import Proof
from components.kinds import NESTED
from toolchain.bootstrap import paths, ui


@click.command()
@click.argument("kind", type=click.Choice(sorted(NESTED)))
@click.option("-s", "--stack", metavar="NAME", help="The stack to copy, if not the kind's own.")
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    default=paths.LOCAL / "proofs",
    help="Folder for KIND.json and KIND.md.  [default: .nestlab/proofs]",
)
@options.as_json
def command(kind: str, *, stack: str | None, to: Path, as_json: bool) -> int:
    """Try KIND on its real product, and write a report.

    A copy of the kind's stack is brought up as the lab prove-KIND, each cell of README's table of
    proofs is tried, and the lab is taken down. What was not tried says so. The vendor's ISO has to
    be where the stack says. The exit status is 1 where something failed.
    """
    proof = Proof(kind, {})
    trial = proving.Trial(kind, stack or proving.STACKS.get(kind, kind), proof)
    try:
        proving.prove(trial)
    finally:
        if proof.cells:
            proof.about = proving.about(trial, _revision())
            for file in proof.keep(to):
                ui.say(f"wrote {file}")
    print(json.dumps(proof.as_json(), indent=2) if as_json else proof.markdown())
    return 0 if proof.ok else 1


def _revision() -> str:
    """Return the commit of this checkout, as far as it has one."""
    words = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(words, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "not known"
    return done.stdout.strip() or "not known"
