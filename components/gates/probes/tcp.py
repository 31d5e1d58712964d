"""The machine takes a connection, asked from the place it lives on. ``{host, port}``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.reach.waiting import Seen

if TYPE_CHECKING:
    from components.gates.probes import Asked, Place


def probe(asked: Asked, place: Place) -> Seen:
    """See `components.gates.probes.probe`."""
    host, port = asked.probe.host, asked.probe.port
    if place.shell.connects(host, port):
        return Seen(ok=True, text=f"{host}:{port} answers")
    return Seen(ok=False, text=f"{host}:{port} takes no connection yet")
