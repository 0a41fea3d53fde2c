"""The first-order solver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from genkit.types import Denoise, RandnLike, State
from genkit_edm.churn import ChurningSolver


@dataclass(frozen=True, kw_only=True)
class Euler(ChurningSolver):
    """First order: one network call a step."""

    source = "EDM, arXiv 2206.00364, algorithms 1 and 2 without the correction; DDIM"

    def solve(
        self, denoise: Denoise, x: Tensor, sigmas: Tensor, randn_like: RandnLike
    ) -> Iterator[State]:
        path = self.path_over(sigmas)
        steps = len(sigmas) - 1
        for sigma, sigma_next in pairwise(sigmas):
            x_hat, sigma_hat = self.churn(denoise, x, sigma, steps, randn_like)
            denoised = denoise(x_hat, sigma_hat)
            yield State(x_hat, float(sigma_hat), denoised)
            velocity = path.velocity(x_hat, sigma_hat, denoised)
            x = path.step(x_hat, sigma_hat, sigma_next, velocity)
        yield State(x, 0.0, None)
