"""The training step as plain PyTorch code writes it: what every gain is measured against."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from genkit.errors import DivergedError
from genkit.interfaces import Objective
from genkit.train.ema import Ema
from genkit.train.trainer import Optimization
from genkit.types import Batch


class PlainTrainer:
    """Eager float32 and NCHW, attention by explicit matrices, one tensor after the other.

    The host waits for the loss of every step, Adam and the average of the weights go from tensor
    to tensor. Where nothing is dropped, the weights are those of
    :class:`~genkit.train.trainer.Trainer` to the rounding.

    Args:
        model: freshly built.
        objective: gives the loss of each item.
        how: batch, rates and average; what is faster is left off.
        device: where to compute.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, how: Optimization, device: torch.device
    ) -> None:
        self.model = model.to(device).train()
        self.images = 0
        self._objective = objective
        self._how = how
        self._device = device
        self._schedule = Ema(nn.Identity(), how.ema_half_life, how.ema_ramp_up)
        self._averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        self._optimizer = torch.optim.Adam(
            self.model.parameters(),
            how.learning_rate,
            (0.9, how.adam_beta2),
            how.adam_epsilon,
            foreach=False,
            fused=False,
        )

    def step(self, batch: Batch, noise: Tensor) -> float:
        """Train on one batch and return its mean loss.

        Args:
            batch: ``[B]`` items with ``quantile``, on any device.
            noise: ``[B, *shape]`` the noise paired with them.

        Raises:
            DivergedError: the loss is not finite.
        """
        total, size = 0.0, self._how.micro_batch
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
        self._average(len(batch))
        self.images += len(batch)
        return total

    def _summed(self, batch: Batch, noise: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.images)
        items, assigned = batch.to(self._device), noise.to(self._device)
        return self._objective.loss(self.model, items, assigned, generator).sum()

    def _update(self) -> None:
        clip = self._how.gradient_clip
        if clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip, foreach=False)
        for group in self._optimizer.param_groups:
            group["lr"] = self._how.rate(self.images)
        self._optimizer.step()

    @torch.no_grad()
    def _average(self, count: int) -> None:
        share = 1.0 - self._schedule.decay(self.images, count)
        for mine, theirs in zip(self._averaged.parameters(), self.model.parameters(), strict=True):
            mine.lerp_(theirs, share)
