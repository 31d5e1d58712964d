"""Take a picture of a machine's screen."""

from __future__ import annotations

import base64
from pathlib import Path

import click

from cli import machines, options, sheet
from toolchain import lab
from toolchain.bootstrap import cache, paths, ui

FOLDER = "screens"


@click.command()
@options.stack
@click.argument("name", shell_complete=options.machine_names)
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File, PNG.  [default: .nestlab/screens/STACK.NAME.png]",
)
def command(stack: str, name: str, to: Path | None) -> int:
    """Take a picture of the screen of the machine NAME, as `show` calls it, at whatever layer.

    Only you may read it. Its hypervisor's own command takes it, so it shows what a guest shows that answers
    nobody. Outer hosts with libvirt, KVM hosts and VirtualBox have such a command; others say that they
    have none.
    """
    told = lab.found(stack)
    rows = told["sheet"] if "sheet" in told else sheet.planned(stack)
    mine = {row["name"]: row for row in rows}
    if name not in mine:
        raise ui.Problem(f"the stack {stack} has no machine {name!r}; it has {', '.join(mine)}")
    # With those around it: where one of them is off, that is why.
    wanted = [mine[each] for each in (*mine[name]["inside"], name) if each in mine]
    seen = machines.pictures(stack, wanted)[name]
    if "picture" not in seen:
        raise ui.Problem(f"no picture of {name}: {seen['said']}")
    file = to or paths.LOCAL / FOLDER / f"{stack}.{name}.png"
    if to is None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    cache.hand_out(file, base64.b64decode(seen["picture"]), 0o600)
    print(file)
    return 0
