"""Extrapolation of the denoised image, away from the output of a second denoiser."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genkit.interfaces import BoundGuidance

Estimate = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Function ``(x [B, *shape], sigma [B], labels [B] or None) -> D(x; sigma)`` of a denoiser."""


class Extrapolation(BoundGuidance):
    """Adds ``w (D - D')``, where D' is the estimate of a second denoiser.

    Args:
        second: estimate D' of the second denoiser.
        weight: weight w.
    """

    def __init__(self, second: Estimate, weight: float) -> None:
        self.second = second
        self.weight = weight

    def correction(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None,
        denoised: Tensor,
        *,
        inner: bool = False,
    ) -> Tensor:
        if self.weight == 0:
            return torch.zeros_like(denoised)
        self.evaluations += 1
        return self.weight * (denoised - self.second(x, sigma, labels))
