"""Pictures of screens: whatever a hypervisor writes arrives as PNG, and nothing of it stays there."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from cli import looking
from components.kinds.virtualbox.guest import DRIVER as VIRTUALBOX
from components.kinds.xen.guest import DRIVER as XEN
from components.reach import picture
from components.reach.driver import DriverError
from components.reach.shell import LocalShell, Unreachable
from components.refused import Refused
from tests.unit.kinds.test_virtualbox import OWNER, guest

if TYPE_CHECKING:
    from pathlib import Path

    from components.gates.machine import Machine

PIXELS = bytes(range(18))
PPM = b"P6\n3 2\n255\n" + PIXELS
PNG = picture.png(PPM)


def chunks(png: bytes) -> dict[bytes, bytes]:
    """Return the chunks of a PNG, each with a sound sum."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found, at = {}, 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length) == (zlib.crc32(name + data),)
        found[name] = data
        at += 12 + length
    return found


def test_what_older_qemus_write_is_the_same_picture_as_png() -> None:
    found = chunks(PNG)
    assert struct.unpack(">IIBBBBB", found[b"IHDR"]) == (3, 2, 8, 2, 0, 0, 0)
    assert zlib.decompress(found[b"IDAT"]) == b"\0" + PIXELS[:9] + b"\0" + PIXELS[9:]
    assert picture.png(PNG) == PNG


@pytest.mark.parametrize(
    "told", [b"", b"GIF89a", PPM[:-1], PPM + b"x", b"P6\n0 2\n255\n", b"P6\n3 2\n65535\n" + PIXELS]
)
def test_anything_else_is_no_picture(told: bytes) -> None:
    with pytest.raises(picture.NoPicture, match="neither PNG nor a whole PPM"):
        picture.png(told)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place whose VBoxManage knows one command, as VBoxManage(1) has it, and whose temporary files are seen."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "screen.png").write_bytes(PNG)
    tool = tmp_path / "VBoxManage"
    tool.write_text(
        f'#!/bin/sh\n[ "$1 $2 $3" = "controlvm {OWNER} screenshotpng" ] || exit 2\n'
        f"[ -e {tmp_path}/off ] && echo \"Machine 'web' is not currently running.\" >&2 && exit 1\n"
        f'cat {tmp_path}/screen.png > "$4"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    mktemp = tmp_path / "mktemp"
    mktemp.write_text(f'#!/bin/sh\nTMPDIR={tmp_path}/kept exec /usr/bin/mktemp "$@"\n')
    mktemp.chmod(0o755)
    return tmp_path


def test_virtualbox_takes_it_and_nothing_stays_there(place: Path) -> None:
    assert VIRTUALBOX.picture(LocalShell(), guest()) == PNG
    assert list((place / "kept").iterdir()) == []


def test_a_refusal_is_the_product_s_and_nothing_stays_there(place: Path) -> None:
    (place / "off").touch()
    with pytest.raises(DriverError, match="'web' is not currently running"):
        VIRTUALBOX.picture(LocalShell(), guest())
    assert list((place / "kept").iterdir()) == []


def test_a_product_without_such_a_command_says_so() -> None:
    with pytest.raises(
        Refused, match="no command of this machine's product takes a picture of web"
    ):
        XEN.picture(LocalShell(), guest())


class Screen:
    """A gate with a screen."""

    def __init__(self, shown: bytes | Exception) -> None:
        self.shown = shown

    def stored(self, props: Any) -> Any:
        return props

    def picture(self, _: Machine) -> bytes:
        if isinstance(self.shown, Exception):
            raise self.shown
        return self.shown


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (PNG, {"state": "up", "said": "", "picture": base64.b64encode(PNG).decode()}),
        # What is in it is asked all the same.
        (Refused("no screen"), {"state": "up", "said": "no screen"}),
        (Unreachable("no route to host"), {"state": "not answering", "said": "no route to host"}),
        (KeyError("x"), {"state": "unknown", "said": "KeyError: 'x'"}),
    ],
)
def test_a_machine_s_screen_is_told_or_why_not(
    shown: bytes | Exception, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_gate", lambda _: Screen(shown))
    assert looking.pictured({"__provider": "x"}) == told
