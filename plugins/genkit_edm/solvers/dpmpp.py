"""DPM-Solver++ (arXiv 2211.01095) of second order, multistep and singlestep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from genkit.interfaces import Solver
from genkit.types import Denoise, RandnLike, State


@dataclass(frozen=True, kw_only=True)
class Dpmpp2m(Solver):
    """Takes second-order steps with one network call each; the last step is of first order.

    For constant D the exact step is x' = D + sigma'/sigma (x - D). The multistep method uses this
    step with D extrapolated to the middle of the step, in lambda = -ln(sigma), from the values at
    the start of this and of the previous step.
    """

    source = "DPM-Solver++, arXiv 2211.01095, algorithm 2"

    def solve(
        self, denoise: Denoise, x: Tensor, sigmas: Tensor, randn_like: RandnLike
    ) -> Iterator[State]:
        before: tuple[Tensor, Tensor] | None = None
        for sigma, sigma_next in pairwise(sigmas):
            denoised = denoise(x, sigma)
            yield State(x, float(sigma), denoised)
            middle = denoised
            if before is not None and sigma_next > 0:
                sigma_before, denoised_before = before
                # 1 / (2 r), with r the length of the previous step / length of this one, in lambda.
                ahead = (sigma / sigma_next).log() / (sigma_before / sigma).log() / 2
                middle = denoised + ahead * (denoised - denoised_before)
            before = sigma, denoised
            x = torch.lerp(middle, x, float(sigma_next / sigma))
        yield State(x, 0.0, None)


@dataclass(frozen=True, kw_only=True)
class Dpmpp2s(Solver):
    """Takes second-order steps with two network calls each; the last is of first order, with one.

    For constant D the exact step is x' = D + sigma'/sigma (x - D). The singlestep method uses this
    step with D evaluated in the middle of the step, in lambda = -ln(sigma).
    """

    source = "DPM-Solver++, arXiv 2211.01095, algorithm 1 with r = 1/2"
    two_slopes = True

    def solve(
        self, denoise: Denoise, x: Tensor, sigmas: Tensor, randn_like: RandnLike
    ) -> Iterator[State]:
        for sigma, sigma_next in pairwise(sigmas):
            denoised = denoise(x, sigma)
            yield State(x, float(sigma), denoised)
            middle = denoised
            if sigma_next > 0:
                sigma_inner = (sigma * sigma_next).sqrt()
                x_inner = torch.lerp(denoised, x, float(sigma_inner / sigma))
                middle = denoise(x_inner, sigma_inner, inner=True)
            x = torch.lerp(middle, x, float(sigma_next / sigma))
        yield State(x, 0.0, None)
