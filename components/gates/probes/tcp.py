"""The machine takes a connection, asked from the place it lives on. ``{host, port}``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.remote.waiting import Seen

if TYPE_CHECKING:
    from components.gates.probes import Place, Props


def probe(props: Props, place: Place) -> Seen:
    """See `components.gates.probes.probe`."""
    host, port = props["probe"]["host"], props["probe"]["port"]
    if place.shell.connects(host, port):
        return Seen(ok=True, text=f"{host}:{port} answers")
    return Seen(ok=False, text=f"{host}:{port} takes no connection yet")
