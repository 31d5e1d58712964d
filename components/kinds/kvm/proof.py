"""How each part was proved; what the words mean says README's table (`components.stackfile.proofs`)."""

from __future__ import annotations

NESTED = {
    "unattended install": "real",
    "readiness of the product itself": "real",
    "networks": "real",
    "guest from an ISO": "real",
    "guest from an image": "real",
    "further CDs and disks of a guest": "preview",
    "container from a template": "real",
    "guest with a configuration": "real",
    "console": "real ⁴",
    "edit in place": "real",
    "switched off or removed by hand": "real",
    "nested hypervisors inside": "real",
}
