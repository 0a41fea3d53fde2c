"""The training step as plain PyTorch code writes it: what every gain is measured against."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from genkit.errors import DivergedError
from genkit.types import Batch
from genkit_bench.stages import TrainStage


class PlainTrainer:
    """Eager float32 and NCHW, attention by explicit matrices, one tensor after the other.

    The host waits for the loss of every step, and the optimizer goes from tensor to tensor. Where
    nothing is dropped, the weights are those of :class:`~genkit.train.trainer.Trainer` to the
    rounding.

    Args:
        stage: objective, optimizer, average and micro-batch; what is faster is left off.
        model: its network, freshly built.
        shape: shape of one item.
        device: where to compute.
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
            batch: ``[B]`` items with ``quantile``, on any device.
            noise: ``[B, *shape]`` the noise paired with them.

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
            total += float(loss.detach())  # here the host waits
        if not math.isfinite(total):
            raise DivergedError(f"the loss is {total} at {self.images:,} images")
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
