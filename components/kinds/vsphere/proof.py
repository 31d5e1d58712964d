"""How each part was proved; what the words mean says README's table (`components.stackfile.proofs`)."""

from __future__ import annotations

OUTER = {
    "unattended install": "no ³",
    "readiness of the product itself": "double",
    "networks": "double",
    "guest from an ISO": "double",
    "guest with a configuration": "double",
    "further CDs and disks of a guest": "double",
    "console": "preview",
    "edit in place": "double",
    "switched off or removed by hand": "double",
    "nested hypervisors inside": "double ⁶",
}
