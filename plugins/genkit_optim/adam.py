"""Adam (arXiv 1412.6980) and AdamW, with decoupled weight decay (arXiv 1711.05101)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from genkit.errors import Problem
from genkit.interfaces import Optimizer, Stages
from genkit.settings import setting

BETA1 = 0.9
"""Decay of the moving average of the gradient, as in EDM, EDM2 and torch."""

EPSILON = 1e-8
"""Epsilon for a loss with one term, as in EDM, EDM2, discriminator guidance and torch. A mean over
n terms has n times smaller gradients than the sum over terms in these codes; therefore
epsilon is EPSILON / n."""


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam: divides the moving average of the gradient by its root mean square."""

    source = "Adam, arXiv 1412.6980, algorithm 1"

    beta2: float = setting(
        0.999, doc="decay of the moving average of the squared gradient", above=0, below=1
    )
    weight_decay: float = setting(
        0.0,
        doc="factor of the weights when they are added to their gradients",
        at_least=0,
        at_most=1000,
    )

    def build(self, parameters: Sequence[nn.Parameter], terms: int) -> torch.optim.Optimizer:
        # Fused: one kernel for all weights. It also skips steps whose gradients are not finite,
        # without synchronizing with the device.
        return torch.optim.Adam(
            parameters,
            self.learning_rate,
            (BETA1, self.beta2),
            EPSILON / terms,
            self.weight_decay / terms,
            fused=True,
        )


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """AdamW: Adam with weight decay that is independent of the gradient."""

    source = "AdamW, arXiv 1711.05101, algorithm 2"

    weight_decay: float = setting(
        0.01,
        doc="relative decrease of the weights per step, divided by the learning rate",
        at_least=0,
        at_most=1000,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from super().check(earlier)
        if self.weight_decay * self.learning_rate >= 1:
            yield Problem(
                ("weight_decay",),
                f"must be below 1 / learning_rate = {1 / self.learning_rate:g}, "
                f"got {self.weight_decay:g}",
                "write a value such as 0.01",
            )

    def build(self, parameters: Sequence[nn.Parameter], terms: int) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters,
            self.learning_rate,
            (BETA1, self.beta2),
            EPSILON / terms,
            self.weight_decay,
            fused=True,
        )
