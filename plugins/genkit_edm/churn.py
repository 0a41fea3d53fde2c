"""What EDM's solvers share: the path of their steps, and stochastic churn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from genkit.errors import DataError, Problem
from genkit.interfaces import Denoise, RandnLike, Solver, Stages
from genkit.sample import nearest_known
from genkit.settings import setting
from genkit_edm.path import SCALINGS, TIMES, Path, ScalingName, TimeName
from genkit_edm.vp import EARLIEST, VpTime

MOST_CHURN = math.sqrt(2) - 1
"""Relative rise of the noise level at which the variance doubles."""


@dataclass(frozen=True, kw_only=True)
class ChurningSolver(Solver):
    """A solver along a path, with fresh noise before each step where ``s_churn`` is above 0."""

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
        above=0,
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
                ("path_range",), f'path "{self.path}" depends on no range', "leave it out"
            )
        elif self.path_range[0] >= self.path_range[1]:
            low, high = self.path_range
            yield Problem(
                ("path_range",),
                f"the lowest level {low:g} is not below the highest {high:g}",
                "write the lower level first",
            )

    def between(self, sigma_min: float, sigma_max: float) -> Self:
        """Return the solver whose path is that of a range of noise levels.

        Raises:
            DataError: path ``vp`` is undefined for the range.
        """
        if self.path != "vp":
            return self
        low, high = self.path_range or (sigma_min, sigma_max)
        churned = self.s_churn > 0 and (self.s_max is None or self.s_max >= sigma_max)
        reached = sigma_max * (1 + MOST_CHURN) if churned else sigma_max
        if VpTime.between(low, high).highest() < max(reached, high):
            # Up to log(1 + sigma_min^2) = EARLIEST log(1 + sigma_max^2) beta does not fall.
            limit = math.sqrt(math.expm1(EARLIEST * math.log1p(high**2)))
            raise DataError(
                f'path "vp" is undefined for noise levels from {low:g} to {high:g}: its time does '
                f"not increase up to {reached:g}; write a sigma_min of at most {limit:.2g}, or "
                'path = "linear"'
            )
        return replace(self, path_range=(low, high))

    def path_over(self, sigmas: Tensor) -> Path:
        """Return the path; its range is that of ``sigmas`` ``[steps + 1]`` if none was set."""
        own: ScalingName = self.path if self.path in ("vp", "flow") else "none"
        scaling = SCALINGS[self.scaling or own]
        if self.path != "vp":
            return Path(TIMES[self.path], scaling)
        low, high = self.path_range or (float(sigmas[-2]), float(sigmas[0]))
        return Path(VpTime.between(low, high), scaling)

    def churn(
        self, denoise: Denoise, x: Tensor, sigma: Tensor, steps: int, randn_like: RandnLike
    ) -> tuple[Tensor, Tensor]:
        """Return the state lifted to ``sigma_hat`` and ``sigma_hat`` (algorithm 2, lines 4-6).

        Args:
            denoise: denoiser, whose network may support few noise levels; ``sigma_hat`` is one of
                them.
            x: ``[B, *shape]`` state at ``sigma``.
            sigma: 0-d noise level.
            steps: number of solver steps, over which ``s_churn`` is spread.
            randn_like: fresh unit noise, drawn in every step unless ``s_churn`` is 0: as in the
                reference, the noise of a step does not depend on ``s_min`` and ``s_max``.
        """
        if self.s_churn == 0:
            return x, sigma
        noise = randn_like(x)
        if sigma < self.s_min or (self.s_max is not None and sigma > self.s_max):
            return x, sigma
        gamma = min(self.s_churn / steps, MOST_CHURN)
        sigma_hat = nearest_known(denoise, sigma * (1 + gamma))
        # In float32, rounding back to sigma may give a level just below it.
        added = (sigma_hat.square() - sigma.square()).clamp(min=0).sqrt() * self.s_noise
        return x + added * noise, sigma_hat
