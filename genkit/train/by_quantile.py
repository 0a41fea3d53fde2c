"""Losses by quantile of the noise level in the noise distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from genkit.world import World

BINS = 32
"""Number of bins, each with the same expected number of noise levels. Chosen, not tuned."""


class LossByQuantile:
    """Accumulate losses in bins of ``Batch.quantile``, on the device.

    Args:
        device: device of the losses.
        world: processes of the training run, each with its shard of the items.
    """

    def __init__(self, device: torch.device, world: World) -> None:
        self._device, self._world = device, world
        self.begin()

    def begin(self, sums: Tensor | None = None) -> None:
        """Start from zero, or from a result of :meth:`sums` of any number of processes."""
        # In float64, so that the logged digits do not depend on the number of ranks.
        self._sums = torch.zeros((2, BINS), dtype=torch.float64, device=self._device)
        if sums is not None and self._world.is_main:
            self._sums += sums.to(self._device)

    def add(self, quantile: Tensor, losses: Tensor) -> None:
        """Add losses without synchronizing with the device.

        Args:
            quantile: ``[B]`` float64 in (0, 1).
            losses: ``[B]`` loss of each item, detached from the graph.
        """
        terms = torch.stack([losses, torch.ones_like(losses)]).double()
        self._sums.index_add_(1, (quantile * BINS).long(), terms)

    def sums(self) -> Tensor:
        """Return the sum and the number of losses in each bin, ``[2, BINS]`` on the CPU.

        Collective: every rank must call this at the same point. Synchronizes with the device.
        """
        return torch.stack(self._world.all_gather(self._sums.cpu())).sum(0)
