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
def multiplying_in(precision: Precision, *, products: bool = False) -> Iterator[None]:
    """Let NVIDIA GPUs convolve float32 in TF32 inside the block where it is asked, else exactly.

    TF32 rounds factors to 10 bits and sums in float32. PyTorch has one switch a process for
    convolutions, which are nearly all of a U-Net, and one for matrix products. These stay exact
    unless ``products`` is set: in training the GPU pairs images and noise meanwhile, and their
    costs would be rounded. It changes nothing on a CPU.
    """
    convolutions, matrices = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = convolutions.fp32_precision, matrices.fp32_precision
    convolutions.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    matrices.fp32_precision = convolutions.fp32_precision if products else "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision, matrices.fp32_precision = before
