"""Count the arithmetic operations of training, and look up the peak performance of a device."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from genkit.interfaces import Objective
from genkit.parts.flops import counting_flops
from genkit.parts.precision import Precision
from genkit.types import Batch

_PEAKS = (
    # Dense TFLOP/s from the data sheets of the manufacturer, in float32, TF32 and 16 bits.
    (r"H100.*(HBM3|SXM)|H200", (67.0, 494.7, 989.4)),
    (r"H100", (51.0, 378.0, 756.0)),
    (r"A100", (19.5, 156.0, 312.0)),
)


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Return the peak operations per second from a device's data sheet; None if it is unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    column = {"float32": 0, "tf32": 1}.get(precision, 2)
    return next((1e12 * peaks[column] for model, peaks in _PEAKS if re.search(model, name)), None)


def training_flops(model: nn.Module, objective: Objective, batch: Batch, noise: Tensor) -> float:
    """Return the number of operations for the loss of an item and its gradient.

    Only matrix products and convolutions are counted.

    Args:
        model: network, not compiled; its gradients are overwritten.
        objective: training objective.
        batch: items on the device of the model.
        noise: noise assigned to the items, ``[B, *shape]``.
    """
    generator = torch.Generator().manual_seed(0)
    with counting_flops() as count:
        objective.loss(model, batch, noise, generator).sum().backward()  # type: ignore[no-untyped-call]
    return count.total / len(batch)
