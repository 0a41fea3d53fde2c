"""The most memory that a block of code holds at a time."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures the peak inside a ``with`` block, above what was held before it.

    On a GPU that of torch's allocator, elsewhere the resident memory of the process, which Linux
    alone tells.

    Measuring slows the block down: memory that the process held in store was given back before.

    Args:
        device: where the block computes.
        wanted: False for a block that is only timed.

    Attributes:
        bytes: the peak, or None where it cannot be measured.
    """

    def __init__(self, device: torch.device, wanted: bool = True) -> None:
        self._device = device
        self._wanted = wanted
        self._before: int | None = None
        self.bytes: int | None = None

    def __enter__(self) -> Self:
        if not self._wanted:
            return self
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        elif self._device.type == "cpu" and _reset_peak():
            self._before = resident("VmRSS")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is None:
            return
        on_gpu = self._device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self._device) if on_gpu else resident("VmHWM")
        if peak is not None:
            self.bytes = max(0, peak - self._before)


def _reset_peak() -> bool:
    """Start a new peak; False where the system does not allow it."""
    # Freed memory that the C library keeps would be used again unseen: give it back first.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _RESET.exists() else None
    if trim is not None:
        trim(0)
    try:
        _RESET.write_text("5")  # resets VmHWM, see proc_pid_clear_refs(5)
    except OSError:
        return False
    return True


def resident(name: str) -> int | None:
    """Return the resident memory of this process in bytes, None where the system does not tell.

    Args:
        name: ``VmRSS`` for what it is, ``VmHWM`` for the most that it was.
    """
    if not _STATUS.exists():
        return None
    found = re.search(rf"^{name}:\s*(\d+) kB$", _STATUS.read_text(errors="replace"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
