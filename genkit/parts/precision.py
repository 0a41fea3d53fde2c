"""Precision of networks: float32, TF32 or 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from genkit.errors import Code, DataError

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
"""``tf32`` is float32, except for convolutions on NVIDIA GPUs, which are computed in TF32."""

StatePrecision = Literal["float64", "float32"]

_SIXTEEN_BITS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def require_precision(value: object) -> Precision:
    """Return ``value``, which comes from a command or from Python, if it is a precision.

    Raises:
        DataError: the value is not a precision.
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
    """Evaluate networks in a precision inside the block, for calls without a backward pass.

    The training loop wraps only the loss in :func:`autocast`, and loss and backward pass in
    :func:`multiplying_in`. This function sets both, independent of the surrounding code, so that
    the same precision always gives the same arithmetic.

    Args:
        device: device of the network.
        precision: precision of the arithmetic. Weights stay in float32; results may have a 16-bit
            dtype.
        products: whether ``tf32`` applies to matrix products as well, see :func:`multiplying_in`.
    """
    with multiplying_in(precision, products=products), autocast(precision, device):
        yield


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return torch's autocast for a precision; it is disabled unless the precision has 16 bits."""
    dtype = _SIXTEEN_BITS.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def multiplying_in(precision: Precision, *, products: bool = False) -> Iterator[None]:
    """Compute float32 convolutions in TF32 on NVIDIA GPUs inside the block if ``tf32`` is chosen.

    TF32 rounds factors to 10 bits and accumulates in float32. PyTorch has one switch per process
    for convolutions, which dominate a U-Net, and one for matrix products. Matrix products stay in
    float32 unless ``products`` is true: during training, the GPU also couples pools, whose costs
    would otherwise be rounded. No effect on a CPU.
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
    """Return the dtype of a solver's states: float64, as in EDM, unless the device lacks it."""
    return torch.float32 if precision == "float32" or device.type == "mps" else torch.float64
