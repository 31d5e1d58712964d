"""How much this machine has: cores, memory, disk; where it is a container, what that may use."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Limits of a container (cgroup 2, then 1): on a machine of its own the root group has none."""


def cores() -> int:
    """Processors that may be used, counted with hyper-threads."""
    usable = len(os.sched_getaffinity(0))
    try:
        quota, period = CPU_LIMIT.read_text().split()
        return max(1, min(usable, int(quota) // int(period)))
    except (OSError, ValueError):  # absent, or "max"
        return usable


def memory_mib() -> int:
    """Memory of the machine, MiB."""
    return min([_meminfo("MemTotal"), *_limits()])


def available_mib() -> int:
    """Memory that can be had without pushing anything out, MiB."""
    return min([_meminfo("MemAvailable"), *_limits()])


def _meminfo(name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB$", MEMINFO.read_text(), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def _limits() -> list[int]:
    limits = []
    for path in MEMORY_LIMITS:
        try:
            limits.append(int(path.read_text()) >> 20)
        except (OSError, ValueError):  # absent, or "max"
            continue
    return limits


def disk_free_gib(folder: Path) -> tuple[Path, float]:
    """GiB free where ``folder`` is or would be made, and its nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder, shutil.disk_usage(folder).free / 2**30
