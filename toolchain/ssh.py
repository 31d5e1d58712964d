"""The command that opens a machine of a lab by SSH, with the lab's own keys and nothing of the user's."""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

from components.reach import client
from toolchain.bootstrap import paths, regular, ui

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

USER = re.compile(r"\w[\w.-]*", re.ASCII)
"""Of a machine. What else a state from somebody else says would be words of a shell's where ssh starts another ssh."""
GUEST = "guest"
"""Kind in a sheet of what is entered through the hypervisor around it; of a hypervisor in another one a port
of the one around it leads in."""


def words(
    host: dict[str, Any], stack: str, command: list[str], around: dict[str, Any] | None = None
) -> tuple[list[str], Path]:
    """Return the command that runs ``command`` on ``host``, and the folder to run it in.

    ``around`` is the hypervisor through which it is reached. No configuration is read, no agent asked, and
    the files are named from their own folder: ssh takes blanks, ``%`` and ``${`` in a path for words of its
    own (ssh_config(5), "TOKENS").

    Raises:
        Problem: the keys are not there, or the state names a user who can't be one.
    """
    for each in filter(None, (host, around)):
        if not USER.fullmatch(each["user"]):
            raise ui.Problem(
                f"the state says that {each['name']} is entered as a user who can't be one. Get it from whom you trust."
            )
    folder = paths.KEYS / stack / host["name"]
    address, port, settings = _known(host["name"], stack, "")
    through = []
    if around:
        at, by, others = _known(around["name"], stack, f"../{around['name']}/")
        leads = [
            *("ssh", "-F", "none", *_options(others), "-p", by, "-W", f"{address}:{port}"),
            *("--", f"{around['user']}@{at}"),
        ]
        through = ["-o", f"ProxyCommand={shlex.join(leads)}"]
    argv = [
        *("ssh", "-F", "none"),
        *(["-t"] if sys.stdin.isatty() else []),
        *_options(settings),
        *through,
        *("-p", port, "--", f"{host['user']}@{address}"),
        *([shlex.join(command)] if command else []),
    ]
    return argv, folder


def _options(settings: Mapping[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _known(name: str, stack: str, folder: str) -> tuple[str, str, dict[str, str]]:
    """Return address, port and ssh's settings of the machine ``name``, whose files are in ``folder`` as ssh sees it.

    Raises:
        Problem: its keys are not there.
    """
    try:
        file = paths.KEYS / stack / name / "known_hosts"
        known, algorithm = regular.text(file).split()[:2]
    except (OSError, ValueError):
        raise ui.Problem(
            f"the keys of {name} are not there. Run {ui.make('up', stack)} again."
        ) from None
    address, _, port = known.strip("[").partition("]:")
    settings = {
        "IdentityFile": f"{folder}id_ed25519",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": f"{folder}known_hosts",
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
    return address, port or "22", settings


def opened(
    row: dict[str, Any], words: Sequence[str], *, console: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return ``row`` of a machine with what opens it, and the command to run there or on its hypervisor.

    ``console``: by its text console, whatever else opens it.

    Raises:
        Problem: nothing that is known does, or no command of ours gets in.
    """
    command = list(words[1:] if words[:1] == ("--",) else words)
    if console:
        # A lab that was made by an older nestlab says nothing of them.
        if not row.get("serial"):
            why = f"no command that nestlab knows opens a text console of {row['name']}."
            raise ui.Problem(why)
        if command:
            why = f"the console of {row['name']} runs no command: leave {command[0]!r} out."
            raise ui.Problem(why)
        return {**row, "enter": row["serial"]}, list(row["serial"])
    if not row["enter"] and not row["user"]:
        screen = row["console"] or "there is none that is known"
        raise ui.Problem(f"{row['name']} has no known login. Its screen: {screen}")
    if row["enter"]:
        if command and not row["run"]:
            raise ui.Problem(console_alone(row))
        command = [*row["run"], *command] if command else row["enter"]
    return row, command


def console_alone(row: Mapping[str, Any]) -> str:
    """Return why no command of ours gets into a guest whose console opens."""
    if not row["user"]:
        why = "is a guest without a known login: only its console opens. With cloud_init its image gets one."
        return f"{row['name']} {why}"
    where = row["address"] or "ADDRESS"
    return (
        f"nothing leads from here to {row['name']}: only its console opens. From the network that it is on: "
        f"ssh {row['user']}@{where}, with a key of cloud_init.keys or its password."
    )


def by_virsh(command: list[str]) -> list[str]:
    """Return ``command`` with the way to another machine's libvirt that gates take, where it is one of virsh's."""
    if command[:2] != ["virsh", "-c"]:
        return command
    words = [word for word in client.virsh(command[2]) if word != "-q"]
    return [*words, *command[3:]]
