"""EDM's second-order solver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from genkit.settings import setting
from genkit.types import Denoise, RandnLike, State
from genkit_edm.churn import ChurningSolver


@dataclass(frozen=True, kw_only=True)
class Heun(ChurningSolver):
    """Second order: two network calls a step, one in the last, so 2 * steps - 1 in all."""

    source = "EDM, arXiv 2206.00364, algorithms 1 and 2; with alpha, algorithm 3 in appendix D.2"

    alpha: float = setting(
        1.0,
        doc="where in a step the second slope is taken: 1 for Heun's method, 2/3 for Ralston's, "
        "1/2 for the midpoint",
        above=0,
        at_most=1,
    )

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
            if sigma_next > 0:  # the velocity is undefined at noise level 0
                sigma_inner = path.inner(sigma_hat, sigma_next, self.alpha)
                x_inner = path.step(x_hat, sigma_hat, sigma_inner, velocity)
                denoised = denoise(x_inner, sigma_inner, inner=True)
                second = path.velocity(x_inner, sigma_inner, denoised)
                share = 1 / (2 * self.alpha)
                velocity = (1 - share) * velocity + share * second
            x = path.step(x_hat, sigma_hat, sigma_next, velocity)
        yield State(x, 0.0, None)
