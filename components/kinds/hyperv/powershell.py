"""PowerShell's cmdlets over SSH, without a word of it being code.

Windows' OpenSSH hands a command line to cmd.exe, which no quoting survives. So the command line is
always the same (`ARGV`: Windows PowerShell with the constant program of ``powershell.ps1``), and what is
to be done comes on standard input: a list of cmdlets with typed parameters, as JSON. The JSON is plain
ASCII, so that the console's code page does not matter; the answer is UTF-8.

Light on purpose, and free of this product's errors: stub machines of the tests load it for each command.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST = 8191
"""What cmd.exe takes as one command line, characters (Microsoft's article 830473)."""

Parameter = str | int | bool | list[str] | None
"""What a cmdlet is told by one of its parameters."""
Row = dict[str, object]
"""The properties of one object that were asked for."""


class Call(TypedDict):
    """One cmdlet; ``take`` are parameters whose values are what earlier calls gave back."""

    cmdlet: str
    parameters: dict[str, Parameter]
    take: dict[str, list[int]]
    select: list[str]
    may_fail: str


class Failure(TypedDict):
    """What PowerShell said of a cmdlet that failed."""

    call: int
    """Number of the call; -1: what was read was no such document."""
    message: str
    id: str
    """FullyQualifiedErrorId, which is English on every Windows."""


class Answer(TypedDict):
    """What came of a document: for each call that was made its objects, and the failure that ended it."""

    results: list[list[Row]]
    error: Failure | None


def program() -> str:
    """Return the constant program, without its comments and indentation."""
    lines = Path(__file__).with_suffix(".ps1").read_text(encoding="ascii").splitlines()
    return "\n".join(line.strip() for line in lines if line and not line.lstrip().startswith("#"))


def encoded(text: str) -> str:
    """Return ``text`` as -EncodedCommand takes it."""
    return base64.b64encode(text.encode("utf-16-le")).decode()


PROGRAM = program()
ARGV = ("powershell", "-NoProfile", "-NonInteractive", "-EncodedCommand", encoded(PROGRAM))
"""The one command line that is ever sent."""


class Script:
    """A document that grows: cmdlets in the order in which they are carried out."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def add(
        self,
        cmdlet: str,
        *select: str,
        take: Mapping[str, Sequence[int]] | None = None,
        may_fail: str = "",
        given: Mapping[str, Parameter] | None = None,
        **parameters: Parameter,
    ) -> int:
        """Add a cmdlet, and say which properties of what it gives back are wanted; return its number.

        ``given`` are further parameters; ``may_fail``: a failure whose FullyQualifiedErrorId is like it (``*`` for any) is as good as no
        objects, and does not end the document. The id, since messages are in the host's language.
        """
        self.calls.append(
            {
                "cmdlet": cmdlet,
                "parameters": {**parameters, **(given or {})},
                "take": {key: list(numbers) for key, numbers in (take or {}).items()},
                "select": list(select),
                "may_fail": may_fail,
            }
        )
        return len(self.calls) - 1

    def document(self) -> str:
        """Return what is sent on standard input, ASCII."""
        return json.dumps({"calls": self.calls}) + "\n"


def answer(out: str) -> Answer | None:
    """Return what the program wrote; None where it did not come to that."""
    # A line of somebody else's (a logon message) may come before.
    for line in reversed(out.splitlines()):
        if line.startswith('{"results":'):
            try:
                told: Answer = json.loads(line)
            except ValueError:
                return None
            return told
    return None


def shown(call: Call) -> str:
    """Return a call as people would write it, for messages only."""
    words = [call["cmdlet"]]
    for key, value in call["parameters"].items():
        if value is True:
            words.append(f"-{key}")
        elif isinstance(value, list):
            words.append(f"-{key} {','.join(map(str, value))}")
        else:
            words.append(f"-{key} {'$' if isinstance(value, bool | None) else ''}{_text(value)}")
    return " ".join(words)


def _text(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def error_text(err: str) -> str:
    """Return the words in what Windows PowerShell writes to standard error: XML, when it is encoded."""
    if not err.startswith("#< CLIXML"):
        return err.strip()
    words = re.findall(r'<S S="Error">(.*?)</S>', err, re.DOTALL)
    plain = "".join(words).replace("_x000D__x000A_", "\n")
    for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        plain = plain.replace(entity, letter)
    return " ".join(plain.split())
