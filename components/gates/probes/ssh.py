"""A machine's own command answers over SSH, as the machine whose host key was planned.

``{commands, steady, forward}``: ``commands`` are asked in order, each an argument vector and a text
that its output holds; ``steady`` is how many looks in a row have to go well, since installers open
and close the port while they restart the machine; ``forward`` see `forward`.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from components.remote.shell import CONNECT_S, fresh_shell
from components.remote.waiting import Seen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.gates.probes import Place, Props
    from components.remote.shell import Shell

UNIT = "nestlab-forward-{port}"
"""systemd unit on a nested host that carries a port of it to a host one layer deeper."""
PAUSE_S = 3.0
"""Between two looks that have to go well in a row, seconds."""
COMMAND_S = 60.0


def probe(props: Props, place: Place) -> Seen:
    """See `components.gates.probes.probe`."""
    forward(props, place)
    seen = Seen(ok=True, text="answers over SSH")
    for turn in range(props["probe"].get("steady", 1)):
        if turn:
            time.sleep(PAUSE_S)
        seen = _asked(fresh_shell(props["reach"]), props["probe"])
        if not seen.ok:
            break
    return seen


def glance(props: Props, place: Place) -> Seen:
    """Its SSH server takes connections: a login would cost an emulated machine half a second."""
    del place
    reach = props["reach"]
    host, port = reach["host"], reach["port"]
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as silent:
        text = silent.strerror or "no answer"
        return Seen(ok=False, text=f"{host}:{port} does not answer ({text})")
    return Seen(ok=True, text=f"{host}:{port} answers")


def _asked(shell: Shell, wanted: Mapping[str, Any]) -> Seen:
    last = "answers over SSH"
    for command in wanted["commands"]:
        argv, holds = command["argv"], command.get("holds", "")
        stdin = command.get("stdin", "").encode()
        done = shell.run(argv, stdin=stdin, timeout_s=COMMAND_S)
        if not done.ok:
            return Seen(ok=False, text=f"`{argv[0]}`: {done.said}")
        if holds not in done.out:
            return Seen(ok=False, text=f"`{argv[0]}` does not say {holds!r} yet: {done.said}")
        last = done.said
    return Seen(ok=True, text=last)


def forward(props: Props, place: Place) -> None:
    """Carry ports of the nested host above to this one, when there is one above.

    A network behind a nested host can't be entered from outside; systemd's own proxy on that host
    carries connections in, without touching libvirt's firewall rules. ``props["probe"]["forward"]``
    is a list of ``{port, host, to}``: a port of the host above, address and port behind it.
    """
    for each in props["probe"].get("forward") or ():
        unit = UNIT.format(port=each["port"])
        if place.shell.run(["systemctl", "is-active", f"{unit}.socket"]).ok:
            continue
        place.shell.run(
            [
                "systemd-run",
                "--collect",
                f"--unit={unit}",
                f"--socket-property=ListenStream={each['port']}",
                "/lib/systemd/systemd-socket-proxyd",
                f"{each['host']}:{each['to']}",
            ]
        )
