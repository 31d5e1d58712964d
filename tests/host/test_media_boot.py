"""The remastered stand-ins boot in a real machine, by BIOS and by UEFI, and nothing asks for a key.

Plain QEMU, emulated, without network or disk; a marker on the serial port says what was booted.
"""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components.media.unattended import unattended
from tests.support import standins

if TYPE_CHECKING:
    from collections.abc import Sequence

QEMU = "qemu-system-x86_64"
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
DEADLINE_S = 50

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(shutil.which(QEMU) is None, reason="no QEMU"),
]


def boot(iso: Path, wanted: str, more: Sequence[str] = ()) -> str:
    """What came on the serial port until ``wanted`` did, or the deadline."""
    words = [
        QEMU, "-accel", "tcg", "-m", "128", "-nodefaults", "-display", "none", "-serial", "stdio",
        "-nic", "none", "-no-reboot", "-boot", "d", "-cdrom", str(iso), *more,
    ]  # fmt: skip
    said = b""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as machine:
        assert machine.stdout
        try:
            ends = time.monotonic() + DEADLINE_S
            with selectors.DefaultSelector() as selector:
                selector.register(machine.stdout, selectors.EVENT_READ)
                while wanted.encode() not in said and selector.select(ends - time.monotonic()):
                    chunk = os.read(machine.stdout.fileno(), 4096)
                    said += chunk
                    if not chunk:
                        break
        finally:
            machine.kill()
    return said.decode(errors="replace")


@pytest.mark.parametrize("kind", standins.MAKERS)
def test_the_unattended_installer_boots_in_bios(kind: str, tmp_path: Path) -> None:
    made = unattended(kind, standins.MAKERS[kind](tmp_path), tmp_path / "cache")
    assert standins.BIOS in boot(made, standins.BIOS)


@pytest.mark.skipif(not FIRMWARE.is_file(), reason="no UEFI firmware (package ovmf)")
@pytest.mark.parametrize(
    ("kind", "marker"),
    [("proxmox", f"{standins.UEFI}proxmox"), ("hyperv", standins.NO_PROMPT)],
)
def test_it_boots_in_uefi_the_image_that_does_not_ask(
    kind: str, marker: str, tmp_path: Path
) -> None:
    made = unattended(kind, standins.MAKERS[kind](tmp_path), tmp_path / "cache")
    variables = shutil.copy(VARIABLES, tmp_path)
    said = boot(
        made,
        marker,
        [
            "-machine", "q35",
            "-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE}",
            "-drive", f"if=pflash,format=raw,file={variables}",
        ],
    )  # fmt: skip
    assert marker in said
