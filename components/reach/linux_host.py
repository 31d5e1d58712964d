"""What drivers of a hypervisor that is a Linux host share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from components.reach.driver import COMMAND_S, must

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.reach.shell import Shell

UNITS = "/etc/systemd/system"
WANTS = f"{UNITS}/multi-user.target.wants"
"""Where a unit that starts with the host is linked."""

SOCKET_BYTES = 107
"""Longest path of a Unix socket, bytes: unix(7), ``sun_path`` has 108 with the zero at its end."""


def no_socket(path: str) -> str:
    """Return why no Unix socket can be at ``path``, empty where one can."""
    size = len(path.encode("utf-8", "surrogatepass"))
    if size <= SOCKET_BYTES:
        return ""
    return (
        f"the socket of its console, {path}, has {size} bytes, and a Unix socket's path has {SOCKET_BYTES}"
        " at most: take a shorter folder"
    )


def terminal(socket: str) -> list[str]:
    """Return the command that makes a terminal of what answers at a Unix socket; Ctrl-] leaves it (socat(1))."""
    return ["socat", "-,rawer,escape=0x1d", f"UNIX-CONNECT:{socket}"]


@dataclass(frozen=True)
class Unit:
    """A systemd template whose instances start with their host."""

    name: str
    """Without the instance and the ending: ``nestlab-virtualbox``."""
    text: str
    causes: Mapping[str, str] = field(default_factory=dict)
    """Of refusals, as for `components.reach.driver.cause_in`."""
    now: bool = False
    """Whether an instance also starts, or ends, at once."""

    @property
    def file(self) -> str:
        """Where the template lies."""
        return f"{UNITS}/{self.name}@.service"

    def of(self, instance: str) -> str:
        """Return what systemd calls the unit of ``instance``."""
        return f"{self.name}@{instance}.service"

    def starts(self, shell: Shell, instance: str) -> bool:
        """Whether ``instance`` starts with its host."""
        asked = shell.run(["systemctl", "is-enabled", self.of(instance)])
        return asked.out.strip() == "enabled"

    def set(self, shell: Shell, instance: str, *, on: bool) -> None:
        """Have ``instance`` start with its host, or not; nothing is done where it is so already.

        Raises:
            DriverError: systemctl refused.
        """
        if self.starts(shell, instance) is not on:
            self.switch(shell, instance, on=on)

    def switch(self, shell: Shell, instance: str, *, on: bool) -> None:
        """Do what `set` says without asking before."""
        if on:
            shell.put(self.text.encode(), self.file, timeout_s=COMMAND_S)
            must(shell, ["systemctl", "daemon-reload"], causes=self.causes)
        verb = "enable" if on else "disable"
        how = ["--now"] if self.now else []
        must(shell, ["systemctl", verb, *how, self.of(instance)], causes=self.causes)
