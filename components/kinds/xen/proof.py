"""How each part was proved; what the words mean says README's table (`components.stackfile.proofs`)."""

from __future__ import annotations

NESTED = {
    "unattended install": "real",
    "readiness of the product itself": "real",
    "networks": "real",
    "guest from an ISO": "real",
    "guest from an image": "double, copied",
    "guest with a configuration": "double",
    "further CDs and disks of a guest": "double",
    "console": "real ⁴",
    "edit in place": "double",
    "switched off or removed by hand": "real",
}
