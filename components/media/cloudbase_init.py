"""What a Windows guest is told: the files of a NoCloud disc, as cloudbase-init reads them.

It looks for a volume labelled cidata, and takes the host name from meta-data alone, network-config as cloud-init
does, and of user-data only modules of its own: here `write_files`, `users` and `runcmd`, in its order. A password is
one in clear. It knows no host keys, no sudo and no packages, so a script of ours makes administrators, opens SSH under
the planned key, runs the commands and writes how it went (`OUTCOME`).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from components.media import guest

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = "C:/ProgramData/nestlab"
SETUP = f"{FOLDER}/setup.ps1"
OUTCOME = f"{FOLDER}/outcome"
"""File of the guest in which the script says how it went."""
SHORTEST_NAME = 3
POWERSHELL = ("powershell.exe", "-NoProfile", "-NonInteractive")
_FAIL_FIRST = "$ErrorActionPreference = 'Stop'; $ProgressPreference = 'SilentlyContinue'\n"
_SCRIPT = r"""# Made by nestlab. Run by cloudbase-init, once for each configuration.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
function Say($how) { [IO.File]::WriteAllText('@OUTCOME@', "$how @MARK@`n") }
function Open-Ssh {
    $ssh = Join-Path $env:ProgramData 'ssh'
    New-Item -ItemType Directory -Force -Path $ssh | Out-Null
    foreach ($pair in @(
            @('ssh_host_ed25519_key', '@PRIVATE@'),
            @('ssh_host_ed25519_key.pub', '@PUBLIC@'),
            @('administrators_authorized_keys', '@KEYS@'))) {
        $file = Join-Path $ssh $pair[0]
        if (-not (Test-Path $file)) { New-Item -ItemType File -Path $file | Out-Null }
        # sshd refuses files that others may write. By number: groups are called otherwise elsewhere.
        icacls.exe $file /setowner '*S-1-5-32-544' | Out-Null
        icacls.exe $file /inheritance:r /grant '*S-1-5-18:F' '*S-1-5-32-544:F' | Out-Null
        if ($LASTEXITCODE -ne 0) { throw "icacls ended with $LASTEXITCODE" }
        [IO.File]::WriteAllBytes($file, [Convert]::FromBase64String($pair[1]))
    }
    Set-Service -Name sshd -StartupType Automatic
    Restart-Service -Name sshd
    if (-not (Get-NetFirewallRule -Name nestlab-sshd -ErrorAction SilentlyContinue)) {
        New-NetFirewallRule -Name nestlab-sshd -DisplayName 'SSH (nestlab)' -Direction Inbound `
            -Protocol TCP -LocalPort 22 -Action Allow -Profile Any | Out-Null
    }
}
$step = 'user'
try {
    Get-LocalUser -Name '@USER@' | Out-Null
    Add-LocalGroupMember -SID 'S-1-5-32-544' -Member '@USER@' -ErrorAction SilentlyContinue
    $step = 'ssh'
    $there = [bool](Get-Service -Name sshd -ErrorAction SilentlyContinue)
    if ($there) { Open-Ssh }
    $number = 0
    foreach ($command in @(@COMMANDS@)) {
        $step = "commands.$number"
        # A PowerShell of its own: what is wrong in it ends it alone, and `exit 0` is no end of the rest.
        & powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand $command
        if ($LASTEXITCODE -ne 0) { throw "it ended with $LASTEXITCODE" }
        $number++
    }
    $step = 'ssh'
    # They may have installed it.
    if (-not $there -and (Get-Service -Name sshd -ErrorAction SilentlyContinue)) { Open-Ssh }
    Say 'done'
} catch {
    Say "failed at $step of"
    "$step`: $_"
    exit 1
} finally {
    Write-VolumeCache -DriveLetter C
}
"""


def files(told: guest.Configuration) -> dict[str, str]:
    """Return what is on the disc `components.media.cloud_init.LABEL`; holds secrets, the password in clear."""
    return guest.disc(told, _user_data(told))


def asked(mark: str) -> tuple[list[str], str]:
    """Return a command that a guest answers, and what its output holds once it is itself.

    Of words that no shell takes for more than they are: Windows' sshd hands them to cmd.exe.
    """
    return [*POWERSHELL, "-Command", "Get-Content", OUTCOME], f"{guest.DONE} {mark}"


def acceptable(password: str, user: str) -> str:
    """Return ``password`` as Windows' policy takes it: one of letters and digits that holds not the name of its user."""
    # Of a shorter name it takes no notice (Microsoft's "Password must meet complexity requirements").
    while len(user) >= SHORTEST_NAME and (at := password.lower().find(user)) >= 0:
        password = f"{password[: at + 1]}-{password[at + 1 :]}"
    return password


def _user_data(told: guest.Configuration) -> dict[str, object]:
    user: dict[str, object] = {"name": told.user, "ssh_authorized_keys": _keys(told)}
    if told.password:
        user["passwd"] = told.password  # without one it makes one up, and nobody knows it
    run = " ".join((*POWERSHELL, "-ExecutionPolicy", "Bypass", "-File", SETUP))
    return {
        "write_files": [{"path": SETUP, "content": _script(told)}],
        "users": [user],
        "runcmd": [run],
    }


def _keys(told: guest.Configuration) -> Sequence[str]:
    return [key.strip() for key in told.keys]


def _script(told: guest.Configuration) -> str:
    # Whatever is told stands there as base64, or is a name: no text can become code. All of it is ASCII, as
    # Windows PowerShell reads a script without a mark in the code page of its machine.
    words = {
        "OUTCOME": OUTCOME,
        "MARK": told.mark,
        "USER": told.user,
        "PRIVATE": _base64(told.host_private.strip() + "\n"),
        "PUBLIC": _base64(told.host_public.strip() + "\n"),
        "KEYS": _base64("\n".join(_keys(told)) + "\n"),
        "COMMANDS": ", ".join(f"'{encoded(each)}'" for each in told.commands),
    }
    script = _SCRIPT
    for word, value in words.items():
        script = script.replace(f"@{word}@", value)
    return script


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def encoded(command: str) -> str:
    """Return ``command`` as PowerShell's -EncodedCommand takes it, told to end at its first error."""
    return base64.b64encode((_FAIL_FIRST + command).encode("utf-16-le")).decode()
