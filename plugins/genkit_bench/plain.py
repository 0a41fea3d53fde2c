"""A training step in plain PyTorch, relative to which speedups are reported."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from genkit.errors import DivergedError
from genkit.types import Batch
from genkit_bench.stages import TrainStage


class PlainTrainer:
    """Train in float32 and NCHW without compilation, with explicit attention matrices.

    The host waits for the loss of every step, and the optimizer updates one tensor at a time.
    Without dropout, the weights equal those of :class:`~genkit.train.trainer.Trainer` up to
    rounding.

    Args:
        stage: train stage, of which objective, optimizer, weight average and micro-batch are used,
            and settings that make training faster are ignored.
        model: newly initialized network of the stage.
        shape: shape of one item.
        device: device on which to train.
    """

    def __init__(
        self, stage: TrainStage, model: nn.Module, shape: tuple[int, ...], device: torch.device
    ) -> None:
        self.model = model.to(device).train()
        self.images = 0
        self.average = stage.average.build(self.model)
        self._stage = stage
        self._device = device
        terms = stage.objective.terms(shape)
        self._optimizer = stage.optimizer.build(list(self.model.parameters()), terms)
        for group in self._optimizer.param_groups:
            group.update({name: False for name in ("foreach", "fused") if name in group})

    def step(self, batch: Batch, noise: Tensor) -> float:
        """Train on one batch and return its mean loss.

        Args:
            batch: B items with ``quantile``, on any device.
            noise: noise assigned to the items, ``[B, *shape]``.

        Raises:
            DivergedError: the loss is not finite.
        """
        total, size = 0.0, self._stage.micro_batch or len(batch)
        self._optimizer.zero_grad(set_to_none=True)
        for start in range(0, len(batch), size):
            part = slice(start, start + size)
            with sdpa_kernel(SDPBackend.MATH):
                loss = self._summed(batch[part], noise[part]) / len(batch)
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())  # synchronizes with the device
        if not math.isfinite(total):
            raise DivergedError(f"the loss is {total} after {self.images:,} images")
        self._update()
        self.average.update(self.model, self.images, len(batch))
        self.images += len(batch)
        return total

    def _summed(self, batch: Batch, noise: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.images)
        items, assigned = batch.to(self._device), noise.to(self._device)
        return self._stage.objective.loss(self.model, items, assigned, generator).sum()

    def _update(self) -> None:
        clip = self._stage.optimizer.gradient_clip
        if clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip, foreach=False)
        for group in self._optimizer.param_groups:
            group["lr"] = self._stage.optimizer.rate(self.images)
        self._optimizer.step()
