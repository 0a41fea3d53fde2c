"""Exponential moving average of the weights, as in EDM (arXiv 2206.00364, appendix F.2)."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """A second set of weights that follows the trained ones.

    Args:
        model: the network that is trained.
        half_life: images after which half of an old weight is forgotten; 0 follows at once.
        ramp_up: limits the half-life to this share of the images seen, so that the first, useless
            weights are forgotten early; 0 sets no limit.
    """

    def __init__(self, model: nn.Module, half_life: int, ramp_up: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._half_life = half_life
        self._ramp_up = ramp_up

    def decay(self, images: int, batch_size: int) -> float:
        """Return the weight of the old average in an update.

        Args:
            images: seen before this batch.
            batch_size: images in this batch.
        """
        half_life = float(self._half_life)
        if self._ramp_up:
            half_life = min(half_life, images * self._ramp_up)
        return 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(self, model: nn.Module, images: int, batch_size: int) -> None:
        """Take one step towards the weights of ``model``; buffers are copied."""
        averaged = [p.data for p in self.model.parameters()]
        torch._foreach_lerp_(
            averaged, [p.data for p in model.parameters()], 1.0 - self.decay(images, batch_size)
        )
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
