"""Losses of items by the quantile at which the noise level of each lies in its distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from genkit.world import World

BINS = 32
"""Number of bins, which hold equally many of the noise levels that a training draws."""


class LossByQuantile:
    """Sums of losses in bins of ``Batch.quantile``, kept on the device.

    Args:
        device: device of the losses.
        world: processes of the training, each with its share of the items.
    """

    def __init__(self, device: torch.device, world: World) -> None:
        self._device, self._world = device, world
        self.begin()

    def begin(self, sums: Tensor | None = None) -> None:
        """Start from no loss, or from what :meth:`sums` returned in any number of processes."""
        # In float64, so that sums of several processes agree with those of one to many digits.
        self._sums = torch.zeros((2, BINS), dtype=torch.float64, device=self._device)
        if sums is not None and self._world.is_main:
            self._sums += sums.to(self._device)

    def add(self, quantile: Tensor, losses: Tensor) -> None:
        """Add losses, without waiting for the device.

        Args:
            quantile: ``[B]`` float64 in (0, 1).
            losses: ``[B]`` loss of each item, detached.
        """
        terms = torch.stack([losses, torch.ones_like(losses)]).double()
        self._sums.index_add_(1, (quantile * BINS).long(), terms)

    def sums(self) -> Tensor:
        """Return the sum of the losses in each bin and their number, ``[2, BINS]`` on the CPU.

        Collective: the result is that of all processes. Waits for the device.
        """
        return torch.stack(self._world.all_gather(self._sums.cpu())).sum(0)
