"""Answers of one machine for tests, and the readers that judge what became of them."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

from components.gates.secrets import SshKeyProvider
from components.media.answers import Answers

HOST = SshKeyProvider().create({"comment": "machine-hostkey"}).outs or {}
LOGIN = SshKeyProvider().create({"comment": "lab-key"}).outs or {}
ECDSA_HOST = SshKeyProvider().create({"comment": "esxi-hostkey", "algorithm": "ecdsa"}).outs or {}
ECDSA_LOGIN = SshKeyProvider().create({"comment": "esxi-key", "algorithm": "ecdsa"}).outs or {}
ECDSA: dict[str, Any] = {
    "authorized_key": ECDSA_LOGIN["public"],
    "host_private": ECDSA_HOST["private"],
    "host_public": ECDSA_HOST["public"],
}
"""Keys of a machine of kind esxi."""
PASSWORD = "Nested-Lab-1"
STATIC: dict[str, Any] = {
    "address": "10.77.0.20",
    "prefix": 24,
    "gateway": "10.77.0.1",
    "nameserver": "10.77.0.2",
}


def answers(**changed: Any) -> Answers:
    told: dict[str, Any] = {
        "name": "machine",
        "fqdn": "machine.lab.test",
        "mac": "52:54:00:12:34:56",
        "password": PASSWORD,
        "authorized_key": LOGIN["public"],
        "host_private": HOST["private"],
        "host_public": HOST["public"],
    }
    return Answers(**{**told, **changed})


def opens(password: str, hashed: str) -> bool:
    """Whether the C library, which is what logs people in, takes the password for this hash."""
    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt.restype = ctypes.c_char_p
    found: bytes | None = library.crypt(password.encode(), hashed.encode())
    return found == hashed.encode()
