"""In which arithmetic a network computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bfloat16", "float16"]

_SIXTEEN_BITS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return a context in which a network computes in 16 bits, where that is asked."""
    dtype = _SIXTEEN_BITS.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def multiplying_in(precision: Precision) -> Iterator[None]:
    """Let NVIDIA GPUs multiply float32 in TF32 inside the block where it is asked, else exactly.

    TF32 rounds factors to 10 bits and sums in float32. PyTorch has one switch for the process, so
    whatever else computes on the GPU meanwhile is rounded as well. It changes nothing on a CPU.
    """
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
