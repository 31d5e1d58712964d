"""A guest's text console: COM1, which Hyper-V serves on a named pipe of Windows while the guest runs.

Facts: Microsoft, Set-VMComPort, and "Generation 2 virtual machines" of Hyper-V: generation 1 always has its
ports; generation 2 shows one only where it has a pipe when it starts, and PowerShell alone gives it one. One
program at a time is at the other end, and what the guest says while nobody is there is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kinds.hyperv.powershell import encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMBER = 1
"""COM1, which Linux calls ttyS0."""
WAITS_MS = 5000
LEAVE = 0x1D
"""Ctrl-], as for the consoles of other kinds."""
# In cooked mode Windows would keep a line until Enter, and Ctrl-C would end this program and not the guest's.
# A key without a letter (an arrow) has 0, and is left out. Without a terminal it is read alone.
PROGRAM = """\
$p=New-Object IO.Pipes.NamedPipeClientStream('.','{name}',[IO.Pipes.PipeDirection]::InOut,[IO.Pipes.PipeOptions]::Asynchronous)
try{{$p.Connect({waits})}}catch{{
[Console]::Error.WriteLine('its console does not answer: it does not run, or somebody else is there')
exit 1
}}
$t=$p.CopyToAsync([Console]::OpenStandardOutput())
$keys=-not [Console]::IsInputRedirected
if($keys){{[Console]::TreatControlCAsInput=$true}}
while(-not $t.IsCompleted){{
if($keys -and [Console]::KeyAvailable){{
$c=[Console]::ReadKey($true).KeyChar
if([int]$c -eq {leave}){{break}}
if([int]$c){{
$b=[Text.Encoding]::UTF8.GetBytes([string]$c)
$p.Write($b,0,$b.Length)
$p.Flush()
}}
}}else{{Start-Sleep -Milliseconds 20}}
}}
$p.Dispose()
"""


def _name(owner: str) -> str:
    return f"nestlab-{owner}"


def pipe(owner: str) -> str:
    """Return the pipe of the guest ``owner``, as Hyper-V takes it."""
    return rf"\\.\pipe\{_name(owner)}"


def command(called: str, store: str, owner: str) -> Sequence[str]:
    """Return the command on its host that opens the console of the guest ``owner``.

    It has no letter that cmd.exe, which Windows' OpenSSH hands it to, reads as anything else.
    """
    del called, store
    program = PROGRAM.format(name=_name(owner), waits=WAITS_MS, leave=LEAVE)
    return ["powershell", "-NoProfile", "-EncodedCommand", encoded(program)]
