"""The smallest hypervisor: one command ``box``, to prove the stub machine with and to copy from."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar

from tests.support.stubs import Refused, Stub, command


class Box(Stub):
    """Makes boxes from a medium, and echoes its words."""

    roots = ("/box", "/var/opt/box")
    initial: ClassVar[dict[str, Any]] = {"boxes": {}}

    @command("box")
    def box(self, argv: list[str], stdin: bytes) -> str:
        """``box make NAME MEDIUM``, ``remove NAME``, ``list``, ``clear``, ``echo WORD...``."""
        del stdin
        boxes = self.state["boxes"]
        match argv:
            case ["make", name, medium]:
                boxes[name] = ""
                if not self.path(medium).is_file():
                    raise Refused(f"Error: no medium {medium}", 3)
                boxes[name] = hashlib.sha256(self.path(medium).read_bytes()).hexdigest()
                if len(boxes) > 1:
                    self.warn("Warning: it is getting full")
                return f"made {name}\n"
            case ["clear"]:
                boxes.clear()
                raise Refused("Error: lost power", half_way=True)
            case ["remove", name]:
                if name not in boxes:
                    raise Refused(f"Error: no box {name}")
                del boxes[name]
                return ""
            case ["list"]:
                return "".join(f"{name}\n" for name in boxes)
            case ["echo", *words]:
                return json.dumps(words)
            case _:
                raise Refused("usage: box make|remove|list|echo", 2)

    @command("box-script", stdin=True)
    def script(self, argv: list[str], stdin: bytes) -> str:
        """Count what it is given to read."""
        return f"{argv} {len(stdin)}\n"
