"""Read the memory of the machine, without torch."""

from __future__ import annotations

import re
from pathlib import Path

_MEMORY = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Return the memory that is available to programs, in bytes; None on systems besides Linux."""
    if not _MEMORY.exists():
        return None
    text = _MEMORY.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
