"""Measure the seconds of the phases of a step, and peak memory."""

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
    """Synchronize with a device, so that measured times include its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Phases:
    """Timer of the phases of a step, including the work of the device.

    The device is synchronized at both ends of a phase, so that the host cannot prepare the next
    phase in parallel. So the sum of the phases is larger than the time of a step without timing.

    Args:
        device: device of the work.

    Attributes:
        seconds: dict from phase to seconds, for the last block of :meth:`counting`.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._counting = False
        self._begun: dict[str, float] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Time the phases in a ``with`` block.

        Outside of such a block, phases are not timed and the device is not synchronized.
        """
        self.seconds, self._counting = defaultdict(float), True
        try:
            yield
        finally:
            self._counting = False

    def begin(self, name: str) -> None:
        """Start a phase."""
        if self._counting:
            wait_for(self._device)
            self._begun[name] = time.perf_counter()

    def end(self, name: str) -> None:
        """End a phase; without effect if it has not started."""
        if self._counting and name in self._begun:
            wait_for(self._device)
            self.seconds[name] += time.perf_counter() - self._begun.pop(name)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of a ``with`` block to a phase."""
        self.begin(name)
        yield
        self.end(name)


class PeakMemory:
    """Measure the peak memory of a ``with`` block, minus the memory before the block.

    On NVIDIA GPUs this is the memory of torch's allocator, elsewhere the resident memory of the
    process, which only Linux reports. Measuring makes the block slower, because cached free memory
    is returned to the system before the block.

    Args:
        device: device of the block.
        enabled: whether to measure; False for a block that is only timed.

    Attributes:
        bytes: peak memory in bytes; None if it was not or cannot be measured.
    """

    def __init__(self, device: torch.device, enabled: bool = True) -> None:
        self._device = device
        self._enabled = enabled
        self._before: int | None = None
        self.bytes: int | None = None

    def __enter__(self) -> Self:
        if not self._enabled:
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
    """Reset the peak memory of the process; return False if the system does not support this."""
    # Otherwise, freed memory that the C library caches would be reused without raising the peak.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _RESET.exists() else None
    if trim is not None:
        trim(0)
    try:
        _RESET.write_text("5")  # resets VmHWM, see man page proc_pid_clear_refs(5)
    except OSError:
        return False
    return True
