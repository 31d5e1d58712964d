"""Which class provides a dynamic resource, told by what the state carries, without running any of it.

Pulumi keeps each dynamic provider in the state as a pickle, and a pickle is a program: a state from
somebody else would run theirs at the next refresh. Those of nestlab only name a class of its own, so
that is all that is taken: the name is read, never unpickled.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import re

IGNORED = {"PROTO", "FRAME", "MEMOIZE", "BINPUT"}
"""Operations that leave nothing: the protocol's number, lengths, what may be referred to later."""
NAMES = {"SHORT_BINUNICODE", "BINUNICODE"}
MAKING = ["STACK_GLOBAL", "EMPTY_TUPLE", "NEWOBJ", "STOP"]
"""What has to follow the two names: a class, made without arguments."""
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
LONGEST = 1000
"""Letters; nestlab's have about 90."""


class Foreign(Exception):
    """What is said to be a provider is not the name of a class."""


def named(pickled: str) -> tuple[str, str]:
    """Return module and name of the class that ``pickled`` (Base64) names.

    Raises:
        Foreign: it is anything else.
    """
    names: list[str] = []
    operations: list[str] = []
    try:
        if len(pickled) > LONGEST:
            raise Foreign
        raw = base64.b64decode(pickled, validate=True)
        for operation, argument, at in pickletools.genops(raw):
            if operation.name in NAMES and not operations:
                names.append(str(argument))
            elif operation.name not in IGNORED:
                operations.append(operation.name)
                if operation.name == "STOP" and at != len(raw) - 1:
                    raise Foreign
    except (ValueError, IndexError, KeyError, binascii.Error, EOFError):
        raise Foreign from None
    if operations != MAKING or not all(map(NAME.fullmatch, names)):
        raise Foreign
    try:
        module, name = names
    except ValueError:
        raise Foreign from None
    return module, name


def is_foreign(pickled: str) -> bool:
    """Whether ``pickled``, a provider in a state, is more than the name of a class."""
    try:
        named(pickled)
    except Foreign:
        return True
    return False
