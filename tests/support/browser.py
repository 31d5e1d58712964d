"""A headless Chromium in a network namespace with nothing in it, spoken to by its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = "chromium"
WORDS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-pipe",
    "--hide-scrollbars",
)
DEADLINE_S = 60
COMPLAINS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


def reason() -> str:
    """Why there is no browser here; empty where there is one."""
    if not shutil.which(PROGRAM):
        return "needs Debian's package chromium"
    return "" if os.geteuid() == 0 else "a network namespace needs root"


@dataclass
class Browser:
    """One page at a time."""

    to: Any
    answers: Any
    number: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    session: str = ""

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol; return what it answers."""
        self.number += 1
        told = {"id": self.number, "method": method, "params": params}
        told |= {"sessionId": self.session} if self.session else {}
        self.to.write(json.dumps(told).encode() + b"\0")
        self.to.flush()
        while (heard := self._hear()).get("id") != self.number:
            self.events.append(heard)
        assert "result" in heard, heard
        result: dict[str, Any] = heard["result"]
        return result

    def _hear(self) -> dict[str, Any]:
        told = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser ended"
            told += byte
        heard: dict[str, Any] = json.loads(told)
        return heard

    def show(self, page: Path) -> None:
        """Open ``page`` and wait until it is all there."""
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while not any(each.get("method") == "Page.loadEventFired" for each in self.events):
            self.events.append(self._hear())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is worth in the page."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return told["result"].get("value")

    def complaints(self) -> list[dict[str, Any]]:
        """What stands in its console."""
        return [each for each in self.events if each.get("method") in COMPLAINS]

    def loaded(self) -> list[str]:
        """Addresses that it asked for."""
        sent = (e["params"] for e in self.events if e.get("method") == "Network.requestWillBeSent")
        return [each["request"]["url"] for each in sent]

    def picture(self, width: int, height: int) -> bytes:
        """The page as a PNG."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        told = self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(told["data"])


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser whose ``profile`` is a folder of its own."""
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    # The protocol's pipes are the file descriptors 3 and 4.
    script = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
    words = ["timeout", "-k", "5", str(DEADLINE_S), "unshare", "-n", PROGRAM, *WORDS]
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *words, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with os.fdopen(ours_out, "wb") as to, os.fdopen(ours_in, "rb") as answers:
            made = Browser(to, answers)
            target = made.ask("Target.createTarget", url="about:blank")["targetId"]
            made.session = made.ask("Target.attachToTarget", targetId=target, flatten=True)[
                "sessionId"
            ]
            for domain in ("Page", "Log", "Runtime", "Network"):
                made.ask(f"{domain}.enable")
            yield made
    finally:
        process.terminate()
        process.wait()
