"""What is given to QEMU itself, past whatever manages it, read as QEMU reads it.

Words that can only say how the machine looks are let pass, screens are judged, and everything else is
refused: a monitor, a character device, a network of its own or a host's file is a door that nobody else
looks at. QEMU takes an option with one or two hyphens; values are KEY=VALUE joined by commas, of which a
doubled one is a comma (qemu-options.hx, util/keyval.c, util/qemu-option.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PLAIN = {
    "cpu",
    "smbios",
    "fw_cfg",
    "global",
    "name",
    "uuid",
    "rtc",
    "boot",
    "k",
    "msg",
    "nodefaults",
    "no-user-config",
    "no-acpi",
    "no-hpet",
    "no-shutdown",
    "no-reboot",
    "no-fd-bootchk",
    "enable-kvm",
}
"""Options that only say how the machine looks to what is in it."""
ALONE = {each for each in PLAIN if each.startswith("no")} | {"enable-kvm"}
"""Of these the ones that take no value."""
FILES = {"file", "path", "splash", "filename"}
"""Keys of theirs that read a file of the host."""
SCREENS = {"vnc", "spice"}
CLOSED = {"none", "gtk", "sdl", "curses", "egl-headless", "dbus"}
"""Displays that no other machine reaches; QEMU's `-display`."""
EVERYWHERE = "0.0.0.0"  # noqa: S104 - QEMU's default


def judged(words: Sequence[str], loopback: Callable[[str], bool]) -> Iterator[str]:
    """Yield what is wrong with the command line ``words``; values are never shown."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option = word.lstrip("-")
        if not word.startswith("-") or not option:
            yield "QEMU is given a word that is no option, a disk of its own"
            continue
        name, equals, _ = option.partition("=")
        if equals:
            yield f"QEMU is given -{name} in one word, which it does not know"
            continue
        value = rest.pop(0) if option not in ALONE and rest else ""
        yield from _option(option, value, loopback)


def _option(option: str, value: str, loopback: Callable[[str], bool]) -> Iterator[str]:
    if option == "display":
        kind, _, more = value.partition("=")
        if kind == "vnc":
            yield from _vnc(more, loopback)
        elif kind == "spice-app" or kind.partition(",")[0] in CLOSED:
            return
        else:
            yield "QEMU is given a -display that is not known"
    elif option == "vnc":
        yield from _vnc(value, loopback)
    elif option == "spice":
        yield from _spice(value, loopback)
    elif option not in PLAIN:
        yield f"QEMU is given -{option[:32]}, which opens what nobody looks at"
    elif FILES & {key for key, _ in pairs(value)}:
        yield f"-{option} reads a file of the host"


def pairs(value: str) -> list[tuple[str, str]]:
    """Return keys and values; a key alone is on, one that begins with "no" and stands alone is off."""
    parts = [part.replace("\0", ",") for part in value.replace(",,", "\0").split(",")]
    found = []
    for part in parts:
        key, equals, given = part.partition("=")
        if equals:
            found.append((key, given))
        elif key.startswith("no") and key != "none":
            found += [(key, "on"), (key[2:], "off")]
        else:
            found.append((key, "on"))
    return found


def _on(options: dict[str, str], key: str) -> bool:
    return options.get(key, "off") in {"on", "yes", "true", "y"}


def _vnc(value: str, loopback: Callable[[str], bool]) -> Iterator[str]:
    display, _, more = value.partition(",")
    options = dict(pairs(more))
    asks = (
        _on(options, "password")
        or _on(options, "sasl")
        or any(options.get(key) for key in ("password-secret", "tls-creds"))
    )
    if asks or display.startswith("unix:") or display == "none":
        return
    address = EVERYWHERE if _on(options, "reverse") else display.rpartition(":")[0] or EVERYWHERE
    if not loopback(address):
        yield f"-vnc listens on {address[:64]} without a password"


def _spice(value: str, loopback: Callable[[str], bool]) -> Iterator[str]:
    options = dict(pairs(value))
    guarded = options.get("password-secret") or options.get("password") or _on(options, "sasl")
    if _on(options, "unix") or (guarded and not _on(options, "disable-ticketing")):
        return
    address = options.get("addr") or EVERYWHERE
    if not loopback(address):
        yield f"-spice listens on {address[:64]} without a password"
