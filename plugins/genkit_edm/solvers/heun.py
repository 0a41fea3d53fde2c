"""EDM's solvers: Euler's and Heun's method along a path, with stochastic churn."""

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
from genkit.settings import MAX_SIGMA, MIN_SIGMA, setting
from genkit.tensors import as_column
from genkit.types import Denoise, RandnLike, State
from genkit_edm.flow import FlowScaling, FlowTime
from genkit_edm.solvers.path import Path, Scaling, Time
from genkit_edm.ve import VeTime
from genkit_edm.vp import MIN_TIME, VpScaling, VpTime

MAX_GAMMA = math.sqrt(2) - 1
"""Maximum relative increase of the noise level in a step, as in EDM: the variance is doubled."""

TimeName = Literal["linear", "ve", "vp", "flow"]
ScalingName = Literal["none", "vp", "flow"]

TIMES: dict[TimeName, Time] = {"linear": Time(), "ve": VeTime(), "flow": FlowTime()}
"""Times that do not depend on the range of noise levels: all except the time of the VP SDE."""

SCALINGS: dict[ScalingName, Scaling] = {
    "none": Scaling(),
    "vp": VpScaling(),
    "flow": FlowScaling(),
}


@dataclass(frozen=True, kw_only=True)
class ChurningSolver(Solver):
    """A solver along a path that adds fresh noise before each step if ``s_churn`` is above 0."""

    churns = True

    path: TimeName = setting(
        "linear",
        doc="schedule sigma(t); steps are straight in its time t: linear (EDM, sigma(t) = t), ve "
        "or vp (VE or VP SDE), or flow (flow matching)",
    )
    scaling: ScalingName | None = setting(
        None,
        doc="scaling s(t); steps are straight in the scaled state; default: vp for path vp, flow "
        "for path flow, none for the others",
    )
    path_range: tuple[float, float] | None = setting(
        None,
        doc="lowest and highest noise level, which determine beta_d and beta_min of path vp; "
        "default: the range of the schedule",
        at_least=MIN_SIGMA,
        at_most=MAX_SIGMA,
    )
    s_churn: float = setting(
        0.0, doc="total amount of noise added over all steps; 0: no noise", at_least=0
    )
    s_min: float = setting(0.0, doc="lowest noise level at which noise is added", at_least=0)
    s_max: float | None = setting(
        None,
        doc="highest noise level at which noise is added; default or inf: no limit",
        at_least=0,
        infinite=True,
    )
    s_noise: float = setting(
        1.0,
        doc="standard deviation of the added noise; 1 where guidance changes the amount of noise",
        above=0,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.s_max is not None and self.s_min > self.s_max:
            yield Problem(
                ("s_min",),
                f"must be at most s_max = {self.s_max:g}, got {self.s_min:g}",
                f"write a value from 0 to {self.s_max:g}",
            )
        if self.path_range is None:
            return
        if self.path != "vp":
            yield Problem(
                ("path_range",),
                f'must be omitted with path "{self.path}", which does not depend on a range',
                'write path = "vp", or remove it',
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
        """Return the solver with its path set for a range of noise levels.

        Raises:
            DataError: path ``vp`` is undefined for the range.
        """
        if self.path != "vp":
            return self
        low, high = self.path_range or (sigma_min, sigma_max)
        self._vp_time(low, high, sigmas)
        return replace(self, path_range=(low, high))

    def path_over(self, sigmas: Tensor) -> Path:
        """Return the path; ``path_range`` defaults to the range of ``sigmas`` ``[steps + 1]``.

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
        """Return the VP time of a range of noise levels.

        Raises:
            DataError: the time is undefined for a noise level that the solver reaches.
        """
        time = VpTime.between(low, high)
        rise = self._rise(len(sigmas) - 1, self.s_churn)
        highest = max(high, *(float(self._lifted(sigma, rise)) for sigma in sigmas[:-1]))
        if time.limit() < math.log1p(highest**2):
            # If log(1 + low^2) is at most MIN_TIME log(1 + high^2), beta does not decrease.
            limit = math.sqrt(math.expm1(MIN_TIME * math.log1p(high**2)))
            unit = 10.0 ** (math.floor(math.log10(limit)) - 1)
            raise DataError(
                f'path "vp" must be defined for all noise levels up to {highest:g}, got a range '
                f"from {low:g} to {high:g}, for which it is not; write a lowest level of at most "
                f'{math.floor(limit / unit) * unit:.2g}, or path = "linear"',
                Code.OUT_OF_RANGE,
            )
        return time

    def _rise(self, steps: int, amount: float | Tensor) -> float | Tensor:
        """Return the relative increase of the noise level in one of ``steps`` steps."""
        rise = amount / steps
        return rise.clamp(max=MAX_GAMMA) if isinstance(rise, Tensor) else min(rise, MAX_GAMMA)

    def _lifted(self, sigma: Tensor, rise: float | Tensor) -> Tensor:
        """Return the noise level after churn; unchanged outside ``[s_min, s_max]``."""
        added = self.s_min <= sigma and (self.s_max is None or sigma <= self.s_max)
        return sigma * (1 + rise) if added else sigma

    def churn(
        self, denoise: Denoise, x: Tensor, sigma: Tensor, steps: int, randn_like: RandnLike
    ) -> tuple[Tensor, Tensor]:
        """Add noise, and return the new state and its noise level (algorithm 2, lines 4-6).

        Args:
            denoise: denoiser with guidance. ``sigma_hat`` is rounded to a noise level that the
                denoiser supports. The guidance may replace ``s_churn`` by an amount per item;
                ``sigma_hat`` is then ``[B, 1, ...]``.
            x: ``[B, *shape]`` state at ``sigma``.
            sigma: 0-d noise level.
            steps: number of solver steps, over which ``s_churn`` is distributed.
            randn_like: function that draws unit noise. Unless ``s_churn`` is 0, it is called in
                every step, as in the reference, so that the noise of a step does not depend on
                ``s_min`` and ``s_max``.

        Returns:
            ``x_hat``, the state with noise added, and its noise level ``sigma_hat``.
        """
        amount = denoise.churn(x, self.s_churn)
        deviation: float | Tensor = self.s_noise
        if isinstance(amount, Tensor):
            amount = as_column(amount.to(x), x)
            # As in the published sampler of boosted guidance, s_noise applies to s_churn alone.
            own = amount.new_full((), self.s_noise)
            deviation = torch.where(amount == self.s_churn, own, 1)
        elif amount == 0:
            return x, sigma
        noise = randn_like(x)
        lifted = self._lifted(sigma, self._rise(steps, amount))
        if lifted.ndim == 0 and lifted == sigma:
            return x, sigma
        sigma_hat = torch.where(lifted > sigma, denoise.nearest(lifted), lifted)
        # nearest() may round to a float32 level just below sigma, hence the clamp.
        added = (sigma_hat.square() - sigma.square()).clamp(min=0).sqrt() * deviation
        return x + added * noise, sigma_hat


@dataclass(frozen=True, kw_only=True)
class Euler(ChurningSolver):
    """Takes first-order steps with one network call each."""

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
    """Takes second-order steps with two network calls each, and one call in the last step."""

    source = "EDM, arXiv 2206.00364, algorithms 1 and 2; with alpha, algorithm 3 in appendix D.2"
    two_slopes = True

    alpha: float = setting(
        1.0,
        doc="fraction of a step at which the second slope is evaluated: 1 for Heun's method, 2/3 "
        "for Ralston's, 1/2 for the midpoint method",
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
