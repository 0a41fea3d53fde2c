"""Arithmetic of networks: float32, TF32 or 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from genkit.errors import Code, DataError

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
"""``tf32`` is float32, with convolutions in TF32 on NVIDIA GPUs, and float32 elsewhere."""

StatePrecision = Literal["float64", "float32"]

_SIXTEEN_BITS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def require_precision(value: object) -> Precision:
    """Return a precision that was given to a command or from Python.

    Raises:
        DataError: it is none.
    """
    for precision in get_args(Precision):
        if value == precision:
            return precision  # type: ignore[no-any-return]
    *others, last = get_args(Precision)
    raise DataError(
        f"precision must be {', '.join(others)} or {last}, got {value}; write float32, the default",
        Code.UNKNOWN_CHOICE,
    )


@contextmanager
def network_precision(
    device: torch.device, precision: Precision, *, products: bool = False
) -> Iterator[None]:
    """Compute networks in a precision inside the block: for calls without a backward pass.

    A training wraps the loss alone in :func:`autocast`, and loss and backward pass together in
    :func:`multiplying_in`. Both are set here, whatever the surrounding code has set, so that equal
    precisions mean equal arithmetic.

    Args:
        device: device of the network.
        precision: precision of its arithmetic; weights stay in float32, and results in 16 bits
            may be returned in that type.
        products: whether ``tf32`` holds for matrix products too, see :func:`multiplying_in`.
    """
    with multiplying_in(precision, products=products), autocast(precision, device):
        yield


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return a context in which a network computes in 16 bits if its precision has 16 bits."""
    dtype = _SIXTEEN_BITS.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def multiplying_in(precision: Precision, *, products: bool = False) -> Iterator[None]:
    """Let NVIDIA GPUs convolve float32 in TF32 inside the block for ``tf32``, else exactly.

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


def state_dtype(device: torch.device, precision: StatePrecision = "float64") -> torch.dtype:
    """Return the type of a solver's states: float64, as EDM integrates, where the device has it."""
    return torch.float32 if precision == "float32" or device.type == "mps" else torch.float64
