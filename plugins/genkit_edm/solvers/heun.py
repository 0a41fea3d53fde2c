"""EDM's solvers, Euler's and Heun's method, along a path and with stochastic churn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Self

import torch
from torch import Tensor

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Solver, Stages
from genkit.settings import setting
from genkit.tensors import as_column
from genkit.types import Denoise, RandnLike, State
from genkit_edm.flow import FlowScaling, FlowTime
from genkit_edm.levels import MAX_SIGMA, MIN_SIGMA
from genkit_edm.solvers.path import Path, Scaling, Time
from genkit_edm.ve import VeTime
from genkit_edm.vp import EARLIEST, VpScaling, VpTime

MAX_GAMMA = math.sqrt(2) - 1
"""Relative rise of the noise level at which the variance doubles."""

TimeName = Literal["linear", "ve", "vp", "flow"]
ScalingName = Literal["none", "vp", "flow"]

TIMES: dict[TimeName, Time] = {"linear": Time(), "ve": VeTime(), "flow": FlowTime()}
"""The times that do not depend on a range of noise levels: all but that of the VP SDE."""

SCALINGS: dict[ScalingName, Scaling] = {
    "none": Scaling(),
    "vp": VpScaling(),
    "flow": FlowScaling(),
}


@dataclass(frozen=True, kw_only=True)
class ChurningSolver(Solver):
    """A solver along a path, with fresh noise before each step where ``s_churn`` is above 0."""

    churns = True

    path: TimeName = setting(
        "linear",
        doc="schedule sigma(t), in whose time steps are straight: linear, sigma(t) = t, is EDM's; "
        "ve and vp are those of the VE and VP SDE, flow that of flow matching",
    )
    scaling: ScalingName | None = setting(
        None,
        doc="scaling s(t) of the state whose steps are straight; left out, vp for path vp, flow "
        "for path flow, and none for the others",
    )
    path_range: tuple[float, float] | None = setting(
        None,
        doc="lowest and highest noise level, from which path vp derives beta_d and beta_min; left "
        "out, the range of the schedule",
        at_least=MIN_SIGMA,
        at_most=MAX_SIGMA,
    )
    s_churn: float = setting(0.0, doc="amount of noise added over all steps; 0: none", at_least=0)
    s_min: float = setting(0.0, doc="lowest noise level at which noise is added", at_least=0)
    s_max: float | None = setting(
        None,
        doc="highest noise level at which noise is added; left out or inf: any",
        at_least=0,
        infinite=True,
    )
    s_noise: float = setting(1.0, doc="standard deviation of the added noise", above=0)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.s_max is not None and self.s_min > self.s_max:
            yield Problem(
                ("s_min",),
                f"{self.s_min:g} is above s_max = {self.s_max:g}",
                f"write a value between 0 and {self.s_max:g}",
            )
        if self.path_range is None:
            return
        if self.path != "vp":
            yield Problem(
                ("path_range",),
                f'must be left out for path "{self.path}", which depends on no range',
                'write path = "vp", or leave it out',
            )
        elif self.path_range[0] >= self.path_range[1]:
            low, high = self.path_range
            yield Problem(
                ("path_range",),
                f"must be a lower and a higher level, got [{low:g}, {high:g}]",
                "write the lower level first, such as [0.002, 80.0]",
            )

    @property
    def stochastic(self) -> bool:
        return self.s_churn > 0

    def between(self, sigma_min: float, sigma_max: float, sigmas: Tensor) -> Self:
        """Return the solver whose path is that of a range of noise levels.

        Raises:
            DataError: path ``vp`` is undefined for the range.
        """
        if self.path != "vp":
            return self
        low, high = self.path_range or (sigma_min, sigma_max)
        self._vp_time(low, high, sigmas)
        return replace(self, path_range=(low, high))

    def path_over(self, sigmas: Tensor) -> Path:
        """Return the path; its range is that of ``sigmas`` ``[steps + 1]`` where none is set.

        Raises:
            DataError: path ``vp`` is undefined for the range.
        """
        own: ScalingName = self.path if self.path in ("vp", "flow") else "none"
        scaling = SCALINGS[self.scaling or own]
        if self.path != "vp":
            return Path(TIMES[self.path], scaling)
        low, high = self.path_range or (float(sigmas[-2]), float(sigmas[0]))
        return Path(self._vp_time(low, high, sigmas), scaling)

    def _vp_time(self, low: float, high: float, sigmas: Tensor) -> VpTime:
        """Return the times of a range, if they increase up to the highest level that is reached."""
        time = VpTime.between(low, high)
        rise = self._rise(len(sigmas) - 1, self.s_churn)
        highest = max(high, *(float(self._lifted(sigma, rise)) for sigma in sigmas[:-1]))
        if time.limit() < math.log1p(highest**2):
            # Up to log(1 + low^2) = EARLIEST log(1 + high^2) beta does not fall.
            limit = math.sqrt(math.expm1(EARLIEST * math.log1p(high**2)))
            unit = 10.0 ** (math.floor(math.log10(limit)) - 1)
            raise DataError(
                f'path "vp" must have a time for all noise levels up to {highest:g}, and is '
                f"undefined for a range from {low:g} to {high:g}; write a lowest level of at most "
                f'{math.floor(limit / unit) * unit:.2g}, or path = "linear"',
                Code.OUT_OF_RANGE,
            )
        return time

    def _rise(self, steps: int, amount: float | Tensor) -> float | Tensor:
        """Return the relative rise of the noise level, by an amount of noise spread over steps."""
        rise = amount / steps
        return rise.clamp(max=MAX_GAMMA) if isinstance(rise, Tensor) else min(rise, MAX_GAMMA)

    def _lifted(self, sigma: Tensor, rise: float | Tensor) -> Tensor:
        """Return a noise level after fresh noise, and as it is where none is added."""
        added = self.s_min <= sigma and (self.s_max is None or sigma <= self.s_max)
        return sigma * (1 + rise) if added else sigma

    def churn(
        self, denoise: Denoise, x: Tensor, sigma: Tensor, steps: int, randn_like: RandnLike
    ) -> tuple[Tensor, Tensor]:
        """Return the state lifted to ``sigma_hat`` and ``sigma_hat`` (algorithm 2, lines 4-6).

        Args:
            denoise: denoiser, whose network may support few noise levels; ``sigma_hat`` is one of
                them. Its guidance may ask for another amount of noise than ``s_churn``, for each
                item: then ``sigma_hat`` is ``[B, 1, ...]``.
            x: ``[B, *shape]`` state at ``sigma``.
            sigma: 0-d noise level.
            steps: number of solver steps, over which ``s_churn`` is spread.
            randn_like: fresh unit noise, drawn in every step unless ``s_churn`` is 0: as in the
                reference, the noise of a step does not depend on ``s_min`` and ``s_max``.
        """
        amount = denoise.churn(x, self.s_churn)
        if isinstance(amount, Tensor):
            amount = as_column(amount.to(x), x)
        elif amount == 0:
            return x, sigma
        noise = randn_like(x)
        lifted = self._lifted(sigma, self._rise(steps, amount))
        if lifted.ndim == 0 and lifted == sigma:
            return x, sigma
        sigma_hat = torch.where(lifted > sigma, denoise.nearest(lifted), lifted)
        # In float32, rounding back to sigma may give a level just below it.
        added = (sigma_hat.square() - sigma.square()).clamp(min=0).sqrt() * self.s_noise
        return x + added * noise, sigma_hat


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
            yield State(x_hat, float(sigma if sigma_hat.ndim else sigma_hat), denoised)
            velocity = path.velocity(x_hat, sigma_hat, denoised)
            x = path.step(x_hat, sigma_hat, sigma_next, velocity)
        yield State(x, 0.0, None)


@dataclass(frozen=True, kw_only=True)
class Heun(ChurningSolver):
    """Second order: two network calls a step, one in the last, so 2 * steps - 1 in all."""

    source = "EDM, arXiv 2206.00364, algorithms 1 and 2; with alpha, algorithm 3 in appendix D.2"
    two_slopes = True

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
            yield State(x_hat, float(sigma if sigma_hat.ndim else sigma_hat), denoised)
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
