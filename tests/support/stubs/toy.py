"""toyctl of docs/adding-a-kind.md, a product that exists on that page alone."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.support.stubs import Refused, Stub, command


class Toy(Stub):
    """Networks and boxes in one list."""

    roots = ("/var/lib/nestlab",)
    initial: ClassVar[dict[str, Any]] = {"things": []}

    @command("toyctl")
    def toyctl(self, argv: list[str], stdin: bytes) -> str:
        del stdin
        things = self.state["things"]
        if argv == ["list"]:
            return "".join(
                f"{one['what']} {one['name']} {one['owner']} {one['state']} {one['memory']}\n"
                for one in things
            )
        if argv[0] == "add":
            _, what, name, owner, memory = argv
            if any((one["what"], one["name"]) == (what, name) for one in things):
                raise Refused(f"toyctl: {what} {name} exists")
            state = "off" if what == "box" else "up"
            made = {"what": what, "name": name, "owner": owner, "state": state, "memory": memory}
            things.append(made)
            return ""
        if argv[0] == "remove":
            things.remove(self._one(argv[1], argv[2]))
            return ""
        box = self._one("box", argv[1])
        if argv[0] == "set":
            box["memory"] = argv[2]
        elif argv[0] in {"start", "stop"}:
            box["state"] = "on" if argv[0] == "start" else "off"
        else:
            raise Refused(f"toyctl: no command {argv[0]}", code=2)
        return ""

    def _one(self, what: str, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.state["things"]
        for one in found:
            if (one["what"], one["name"]) == (what, name):
                return one
        raise Refused(f"toyctl: no {what} {name}")
