"""Say what a pull request does to labs, without a secret or a host, in one comment."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from toolchain.bootstrap import cache, paths, ui

FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group()
def command() -> None:
    """Compare another branch's stack files with this checkout's, by this checkout's code.

    The other branch is read as data, and nothing of it is run; docs/pull-requests.md has the workflow.
    """


@command.command()
@click.argument("head")
@click.option(
    "--base", default=str(paths.ROOT), show_default="this checkout", help="Folder or ref."
)
@click.option(
    "--repository",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=paths.ROOT,
    show_default="this checkout",
    help="Where refs are looked up.",
)
@click.option("--number", type=click.IntRange(0), default=0, help="Of the pull request.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="For the report."
)
def make(head: str, *, base: str, repository: Path, number: int, out: Path) -> int:
    """Write the report of HEAD, a folder or a ref: JSON without anything secret."""
    # The engine and its SDK: the second job needs neither.
    from review import making  # noqa: PLC0415

    made = making.made(base, head, repository, number)
    cache.hand_out(out, f"{made.model_dump_json(indent=1)}\n".encode())
    return 0


@command.command()
@FILE
def show(file: Path) -> int:
    """Print the report FILE as Markdown."""
    from review import markdown, report  # noqa: PLC0415

    print(markdown.comment(report.read(file)), end="")
    return 0


@command.command()
@FILE
@click.option("--repository", required=True, metavar="OWNER/NAME")
@click.option(
    "--number", type=click.IntRange(1), help="Of the pull request, by default the report's."
)
@click.option("--commit", required=True, metavar="SHA", help="What the pull request has to be at.")
@click.option(
    "--author", default="github-actions[bot]", show_default=True, help="Whose token it is."
)
def post(file: Path, *, repository: str, number: int | None, commit: str, author: str) -> int:
    """Put the report FILE on its pull request, in place of the one before; GITHUB_TOKEN says who may."""
    from review import markdown, posting, report  # noqa: PLC0415

    token = os.environ.get("GITHUB_TOKEN", "")
    if not token:
        raise ui.Problem("GITHUB_TOKEN is not set: without it no comment can be written.")
    if not re.fullmatch(r"[A-Za-z0-9-]{1,40}/[A-Za-z0-9._-]{1,100}", repository):
        raise click.UsageError(f"{repository!r} is no repository: write it as OWNER/NAME.")
    told = report.read(file)
    if not (number or told.number):
        raise click.UsageError("which pull request? Say --number.")
    api = os.environ.get("GITHUB_API_URL") or posting.API
    to = posting.GitHub(repository, token, api=api, author=author)
    done = to.post(number or told.number, markdown.comment(told), commit=commit)
    ui.say(f"the comment was {done}" if done != "as it was" else "the comment is as it was")
    return 0


@command.command()
@click.argument("job", type=click.Choice(["preview", "comment"]))
def workflow(job: str) -> int:
    """Print the GitHub Actions workflow of JOB, for .github/workflows/."""
    print((paths.ROOT / "review" / "workflows" / f"labs-{job}.yml").read_text(), end="")
    return 0
