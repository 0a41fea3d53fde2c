"""Measure seconds of the phases of a step, and peak memory."""

from __future__ import annotations

import ctypes
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from genkit.machine import resident

_RESET = Path("/proc/self/clear_refs")


def wait_for(device: torch.device) -> None:
    """Synchronize with a device, so that a clock includes its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Phases:
    """Seconds of each phase, the work of the device included.

    The device is synchronized at both ends of a phase, which keeps the host from preparing the next
    one in parallel. So the sum of the phases is larger than the time of a step without them.

    Args:
        device: device of the work.

    Attributes:
        seconds: seconds by phase, of the last block of :meth:`counting`.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._counting = False
        self._begun: dict[str, float] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Time phases in the block; outside they are not timed and do not synchronize."""
        self.seconds, self._counting = defaultdict(float), True
        try:
            yield
        finally:
            self._counting = False

    def begin(self, name: str) -> None:
        """Begin a phase."""
        if self._counting:
            wait_for(self._device)
            self._begun[name] = time.perf_counter()

    def end(self, name: str) -> None:
        """End a phase; no error if it has not begun."""
        if self._counting and name in self._begun:
            wait_for(self._device)
            self.seconds[name] += time.perf_counter() - self._begun.pop(name)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to a phase."""
        self.begin(name)
        yield
        self.end(name)


class PeakMemory:
    """Measure the peak memory of a ``with`` block, minus the memory before it.

    On NVIDIA GPUs this is the memory of torch's allocator, elsewhere the resident memory of the
    process, which only Linux reports. Measuring slows the block down, because cached free memory is
    returned to the system before.

    Args:
        device: device of the block.
        wanted: False for a block that is only timed.

    Attributes:
        bytes: the peak; None if it cannot be measured.
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
    """Reset the peak; return False if the system does not support it."""
    # Freed memory that the C library caches would be reused without raising the peak.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _RESET.exists() else None
    if trim is not None:
        trim(0)
    try:
        _RESET.write_text("5")  # resets VmHWM, see proc_pid_clear_refs(5)
    except OSError:
        return False
    return True
