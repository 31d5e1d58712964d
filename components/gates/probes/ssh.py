"""A machine's own command answers over SSH, as the machine whose host key was planned.

``{commands, steady, forward}``: ``commands`` are asked in order, each an argument vector and a text
that its output holds; ``steady`` is how many looks in a row have to go well, since installers open
and close the port while they restart the machine; ``forward`` see `forward`.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from components.reach.shell import fresh_shell
from components.reach.stream import CONNECT_S
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from components.gates.probes import Asked, Place, Probe
    from components.reach.shell import Shell

UNIT = "nestlab-forward-{port}"
"""systemd unit on a nested host that carries a port of it to a host one layer deeper."""
PAUSE_S = 3.0
"""Between two looks that have to go well in a row, seconds."""
COMMAND_S = 60.0


def probe(asked: Asked, place: Place) -> Seen:
    """See `components.gates.probes.probe`."""
    forward(asked, place)
    seen = Seen(ok=True, text="answers over SSH")
    for turn in range(asked.probe.steady):
        if turn:
            time.sleep(PAUSE_S)
        seen = _asked(fresh_shell(asked.reach), asked.probe)
        if not seen.ok:
            break
    return seen


def glance(asked: Asked, place: Place) -> Seen:
    """Its SSH server takes connections: a login would cost an emulated machine half a second."""
    host, port = asked.reach.host, asked.reach.port
    if asked.reach.via:
        if place.shell.connects(host, port):
            return Seen(ok=True, text=f"{host}:{port} answers")
        return Seen(ok=False, text=f"{host}:{port} does not answer {place.shell.name}")
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as silent:
        text = silent.strerror or "no answer"
        return Seen(ok=False, text=f"{host}:{port} does not answer ({text})")
    return Seen(ok=True, text=f"{host}:{port} answers")


def _asked(shell: Shell, wanted: Probe) -> Seen:
    last = "answers over SSH"
    for command in wanted.commands:
        program = command.argv[0]
        done = shell.run(command.argv, stdin=command.stdin.encode(), timeout_s=COMMAND_S)
        if not done.ok:
            return Seen(ok=False, text=f"`{program}`: {done.said}")
        if command.holds not in done.out:
            said = f"does not say {command.holds!r} yet: {done.said}"
            return Seen(ok=False, text=f"`{program}` {said}")
        last = done.said
    return Seen(ok=True, text=last)


def forward(asked: Asked, place: Place) -> None:
    """Carry ports of the nested host above to this one, when there is one above.

    A network behind a nested host can't be entered from outside; systemd's own proxy on that host
    carries connections in, without touching libvirt's firewall rules.
    """
    for each in asked.probe.forward:
        unit = UNIT.format(port=each.port)
        if place.shell.run(["systemctl", "is-active", f"{unit}.socket"]).ok:
            continue
        place.shell.run(
            [
                "systemd-run",
                "--collect",
                f"--unit={unit}",
                f"--socket-property=ListenStream={each.port}",
                "/lib/systemd/systemd-socket-proxyd",
                f"{each.host}:{each.to}",
            ]
        )
