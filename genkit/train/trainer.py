"""One optimizer step, and everything it changes: weights, their average, Adam's moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from genkit.errors import DivergedError
from genkit.interfaces import Objective
from genkit.random import seeded
from genkit.train.ema import Ema
from genkit.types import Batch

T = TypeVar("T")

Precision = Literal["float32", "bfloat16", "float16"]

SMALLEST_SCALE = 2.0**-14
"""A float16 loss scale below which no finite gradient is to be expected any more."""


@dataclass(frozen=True)
class Optimization:
    """How weights are updated.

    Attributes:
        learning_rate: of Adam, after the ramp.
        learning_rate_ramp: images over which the learning rate rises from 0; 0 for none.
        gradient_clip: greatest norm of the gradient; None leaves it as it is.
        precision: of the network's arithmetic; weights and optimizer stay in float32.
        channels_last: lay images out as NHWC, which convolutions prefer.
        micro_batch: items that are computed at a time; gradients are accumulated.
        ema_half_life: see :class:`~genkit.train.ema.Ema`, in images.
        ema_ramp_up: likewise.
    """

    learning_rate: float
    learning_rate_ramp: int
    gradient_clip: float | None
    precision: Precision
    channels_last: bool
    micro_batch: int
    ema_half_life: int
    ema_ramp_up: float


class Trainer:
    """Holds a network under training and steps it.

    Args:
        model: freshly built; moved to the device.
        objective: gives the loss of each item.
        how: how weights are updated.
        device: where to compute.
        seed: of a purpose and an index, such as ``seed("dropout", 17)``.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        how: Optimization,
        device: torch.device,
        seed: Callable[..., int],
    ) -> None:
        layout = torch.channels_last if how.channels_last else torch.preserve_format
        self.model = model.to(device=device, memory_format=layout).train()  # type: ignore[call-overload]
        self.ema = Ema(self.model, how.ema_half_life, how.ema_ramp_up)
        self.images = 0
        self.steps = 0
        self._objective = objective
        self._how = how
        self._device = device
        self._seed = seed
        self._layout = layout
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=how.learning_rate, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=how.precision == "float16")

    def step(self, batch: Batch, noise: Tensor) -> float:
        """Train on one batch and return its mean loss.

        Args:
            batch: ``[B]`` items with ``quantile``, on any device.
            noise: ``[B, *shape]`` the noise paired with them.

        Raises:
            DivergedError: the loss or the gradient is not finite; nothing was changed.
        """
        how = self._how
        for group in self.optimizer.param_groups:
            ramp = self.images / how.learning_rate_ramp if how.learning_rate_ramp else 1.0
            group["lr"] = how.learning_rate * min(ramp, 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        # Dropout takes no generator, so the global ones are lent to it for the step.
        with seeded(self._seed("dropout", self.steps), self._device):
            for start in range(0, len(batch), how.micro_batch):
                part = slice(start, start + how.micro_batch)
                loss = self._loss(batch[part], noise[part], start) / len(batch)
                total += float(loss.detach())
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if not torch.isfinite(torch.tensor(total)):
            raise DivergedError(f"the loss is {total} at {self.images:,} images")
        self._update()
        self.ema.update(self.model, self.images, len(batch))
        self.images += len(batch)
        self.steps += 1
        return total

    def _loss(self, batch: Batch, noise: Tensor, start: int) -> Tensor:
        """Return the summed loss of a micro-batch."""
        generator = torch.Generator().manual_seed(self._seed("loss", self.steps, start))
        batch, noise = batch.to(self._device), noise.to(self._device)
        if batch.data.ndim == 4:
            batch = batch.with_data(batch.data.to(memory_format=self._layout))
            noise = noise.to(memory_format=self._layout)
        low = self._how.precision != "float32"
        dtype = getattr(torch, self._how.precision)
        with torch.autocast(self._device.type, dtype=dtype if low else None, enabled=low):
            return self._objective.loss(self.model, batch, noise, generator).sum()

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        limit = self._how.gradient_clip or float("inf")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            raise DivergedError(f"the gradient is {float(norm)} at {self.images:,} images")
        # In float16 an overflow is expected now and then: the scaler skips the step and halves.
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            raise DivergedError(f"float16 gradients overflow at any scale, {self.images:,} images")

    def state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the tensors and the numbers from which :meth:`restore` goes on, bit for bit."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": t for name, t in self.ema.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": t for name, t in moments.items()}
        numbers: dict[str, float] = {"images": self.images, "steps": self.steps}
        numbers |= {f"scaler.{name}": value for name, value in self.scaler.state_dict().items()}
        return tensors, numbers

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Go on from what :meth:`state` returned."""
        self.model.load_state_dict(_under("model.", tensors))
        self.ema.model.load_state_dict(_under("ema.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("adam.", tensors).items():
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if scaler := _under("scaler.", numbers):
            self.scaler.load_state_dict(scaler)
        self.images, self.steps = int(numbers["images"]), int(numbers["steps"])


def _under(prefix: str, named: Mapping[str, T]) -> dict[str, T]:
    """Return the entries below a prefix, without it."""
    return {name.removeprefix(prefix): v for name, v in named.items() if name.startswith(prefix)}
