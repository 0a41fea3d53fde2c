"""EDM's second-order solver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from genkit.interfaces import Denoise, RandnLike
from genkit.types import State
from genkit_edm.churn import ChurningSolver


@dataclass(frozen=True, kw_only=True)
class Heun(ChurningSolver):
    """Second order: two network calls a step, one in the last, so 2 * steps - 1 in all."""

    source = "EDM, arXiv 2206.00364, algorithms 1 and 2"

    def solve(
        self, denoise: Denoise, x: Tensor, sigmas: Tensor, randn_like: RandnLike
    ) -> Iterator[State]:
        steps = len(sigmas) - 1
        for sigma, sigma_next in pairwise(sigmas):
            x_hat, sigma_hat = self.churn(x, sigma, steps, randn_like)
            denoised = denoise(x_hat, sigma_hat)
            yield State(x_hat, float(sigma_hat), denoised)
            slope = (x_hat - denoised) / sigma_hat
            step = sigma_next - sigma_hat
            x = x_hat + step * slope
            if sigma_next > 0:  # the slope is undefined at noise level 0
                slope_next = (x - denoise(x, sigma_next)) / sigma_next
                x = x_hat + step * (slope + slope_next) / 2
        yield State(x, 0.0, None)
