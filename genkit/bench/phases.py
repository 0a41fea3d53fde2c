"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def wait_for(device: torch.device) -> None:
    """Let the device finish, so that a clock sees its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Phases:
    """Seconds spent in each phase, the device having finished at either end of it.

    Waiting for the device keeps the host from preparing the next phase meanwhile, so that the
    phases add up to more than a step that is not looked at.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what the block takes."""
        wait_for(self._device)
        begun = time.perf_counter()
        yield
        wait_for(self._device)
        self.seconds[name] += time.perf_counter() - begun

    def timed(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        """Return a function of which every call is counted."""

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.phase(name):
                return function(*args, **kwargs)

        return call
