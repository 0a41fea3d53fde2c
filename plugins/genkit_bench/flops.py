"""How much arithmetic a training step is, and how much of it a device could do."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from genkit.interfaces import Objective
from genkit.parts.flops import counting_flops
from genkit.parts.precision import Precision
from genkit.types import Batch

_PEAKS = (
    # Dense TFLOP/s of the makers' data sheets: float32, TF32, 16 bits.
    (r"H100.*(HBM3|SXM)|H200", (67.0, 494.7, 989.4)),
    (r"H100", (51.0, 378.0, 756.0)),
    (r"A100", (19.5, 156.0, 312.0)),
)


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Return the most operations a second that a device is said to do; None for one not listed."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    column = {"float32": 0, "tf32": 1}.get(precision, 2)
    return next((1e12 * peaks[column] for model, peaks in _PEAKS if re.search(model, name)), None)


def training_flops(model: nn.Module, objective: Objective, batch: Batch, noise: Tensor) -> float:
    """Return the operations of an item's loss and gradient: products and sums in matrices.

    Args:
        model: not compiled; it is left with gradients.
        objective: gives the loss.
        batch: some items, on the device of the model.
        noise: paired with them.
    """
    generator = torch.Generator().manual_seed(0)
    with counting_flops() as count:
        objective.loss(model, batch, noise, generator).sum().backward()  # type: ignore[no-untyped-call]
    return count.total / len(batch)
