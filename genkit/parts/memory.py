"""Read the memory of the machine, and report settings that require more than it has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.filesize import decimal

from genkit.errors import Code, Key, Problem

_MEMORY = Path("/proc/meminfo")
_LIMITS = (  # of control groups, versions 2 and 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def available_memory() -> int | None:
    """Return the memory that is available to programs, in bytes; None on systems besides Linux."""
    if not _MEMORY.exists():
        return None
    text = _MEMORY.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def total_memory() -> int | None:
    """Return the memory of the machine in bytes, without its GPUs; None if unknown.

    In a container with a limit of memory, which is below that of the machine, it is the limit.
    """
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # this system does not report its memory
        return None
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max", which is no limit
            total = min(total, int(limit.read_text(encoding="utf-8")))
    return total


def memory_problems(key: Key, value: int, required: int, what: str) -> Iterator[Problem]:
    """Yield a problem if a value requires more memory than the machine and each GPU of it have.

    Free memory is not considered, so that the result does not depend on other programs.

    Args:
        key: path of the setting relative to the component that reports the problem.
        value: value of the setting.
        required: lower bound of the memory that is required at the same time, in bytes.
        what: what requires the memory, such as ``"2_000 samples"``.
    """
    total = total_memory()
    if total is None or required <= total:
        return
    import torch

    for device in range(torch.cuda.device_count()):
        total = max(total, torch.cuda.get_device_properties(device).total_memory)
    if required > total:
        reason = f"must fit in the memory of this machine, {decimal(total)}, got {value}"
        hint = f"write a smaller value, since {what} require {decimal(required)}"
        yield Problem(key, reason, hint, Code.OUT_OF_MEMORY)
