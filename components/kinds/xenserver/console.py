"""A guest's text console: the serial port that XAPI gives each guest, unless somebody took it.

Facts: xen-api, xapi_xenops.ml, ``builder_of_vm``: ``platform:hvm_serial`` goes before
``other-config:hvm_serial``, and without both it is a pty, which dom0 leads to; XCP-ng's own tests
(xcp-ng-tests) open it with ``xl console -t serial`` and the guest's ``dom-id``. Guests here are HVM; a
paravirtual one would have its console without ``-t serial``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kinds.xenserver.xe import entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.kinds.xenserver.xe import Row

KEY = "hvm_serial"
PTY = "pty"
MAPS = ("platform", "other-config")
"""Where the key may be; the first goes before."""
OPEN = """\
domain=$(xe vm-list name-label="$1" other-config:nestlab="$2" power-state=running params=dom-id --minimal)
[ -n "$domain" ] || { echo "$1 does not run" >&2; exit 1; }
exec xl console -t serial "$domain\""""
"""A clone that somebody made of it bears its mark too, and has another name."""


def mended(row: Row) -> list[Sequence[str]]:
    """Return what gives a guest its serial port back, nothing where it has it."""
    has = {where: entry(row[where], KEY) for where in MAPS}
    if next(filter(None, has.values()), PTY) == PTY:
        return []
    gone = ("vm-param-remove", f"uuid={row['uuid']}")
    return [
        (*gone, f"param-name={where}", f"param-key={KEY}") for where, value in has.items() if value
    ]


def command(called: str, store: str, owner: str) -> Sequence[str]:
    """Return the command in dom0 that opens the console of the guest ``called``; Ctrl-] leaves it."""
    del store
    return ["sh", "-c", OPEN, "console", called, owner]
