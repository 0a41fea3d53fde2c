"""Exponential moving average of the weights, as in EDM (arXiv 2206.00364, appendix F.2)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from genkit.interfaces import Average, RunningAverage
from genkit.parts.snapshots import write_snapshot
from genkit.settings import setting


@dataclass(frozen=True, kw_only=True)
class Ema(Average):
    """Averages the weights exponentially, as in EDM."""

    source = "EDM, arXiv 2206.00364, appendix F.2"

    half_life: int = setting(
        500_000,
        doc="number of images after which the share of old weights is halved; 0: no averaging",
        at_least=0,
    )
    ramp_up: float = setting(
        0.05,
        doc="maximum half-life as a share of the training images so far, which reduces the "
        "influence of the initial weights; 0: no limit",
        at_least=0,
    )
    snapshot_images: int = setting(
        0,
        doc="number of images between snapshots of the averaged weights, from which a later stage "
        "can choose; 0: no snapshots",
        at_least=0,
    )

    def decay(self, images: int, batch_size: int) -> float:
        """Return the weight of the old average in an update.

        Args:
            images: number of images trained on before this batch.
            batch_size: number of images in this batch.
        """
        half_life = float(self.half_life)
        if self.ramp_up:
            half_life = min(half_life, images * self.ramp_up)
        return 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0

    def build(self, model: nn.Module) -> RunningAverage:
        return RunningEma(self, model)


class RunningEma(RunningAverage):
    """The running state of an exponential moving average.

    Args:
        settings: settings of the average.
        model: network in training.
    """

    def __init__(self, settings: Ema, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._settings = settings
        self.snapshot_images = settings.snapshot_images

    @torch.no_grad()
    def update(self, model: nn.Module, images: int, batch_size: int) -> None:
        """Update the average with the weights of ``model``; buffers are copied."""
        averaged = [p.data for p in self.model.parameters()]
        share = 1.0 - self._settings.decay(images, batch_size)
        torch._foreach_lerp_(averaged, [p.data for p in model.parameters()], share)
        for buffer, source in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(source)

    def snapshot(self, folder: Path, images: int) -> None:
        write_snapshot(folder, images, self.model.state_dict())
