"""EDM's stochastic churn: fresh noise lifts the state to a slightly higher level before a step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import Denoise, RandnLike, Solver, Stages
from genkit.sample import nearest_known
from genkit.settings import setting
from genkit_edm.path import PathName


@dataclass(frozen=True, kw_only=True)
class ChurningSolver(Solver):
    """A solver that may add noise before each step; with ``s_churn = 0`` it solves the ODE."""

    path: PathName = setting(
        "linear",
        doc="time and scale in which a step is straight: EDM's sigma(t) = t, or those of the VE or "
        "VP SDE, or of flow matching",
    )
    s_churn: float = setting(0.0, doc="amount of noise added over all steps; 0: none", at_least=0)
    s_min: float = setting(0.0, doc="least noise level at which noise is added", at_least=0)
    s_max: float | None = setting(
        None, doc="greatest noise level at which noise is added; left out: any", at_least=0
    )
    s_noise: float = setting(1.0, doc="standard deviation of the added noise", above=0)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.s_max is not None and self.s_min > self.s_max:
            yield Problem(
                ("s_min",),
                f"{self.s_min:g} is above s_max = {self.s_max:g}",
                f"write a value between 0 and {self.s_max:g}",
            )

    def churn(
        self, denoise: Denoise, x: Tensor, sigma: Tensor, steps: int, randn_like: RandnLike
    ) -> tuple[Tensor, Tensor]:
        """Return the state lifted to ``sigma_hat`` and ``sigma_hat`` (algorithm 2, lines 4-6).

        Args:
            denoise: whose network may know few noise levels; ``sigma_hat`` is one of them.
            x: ``[B, *shape]`` state at ``sigma``.
            sigma: 0-d noise level.
            steps: number of solver steps, over which ``s_churn`` is spread.
            randn_like: fresh unit noise; asked for only where noise is added.
        """
        if self.s_churn == 0:
            return x, sigma
        if sigma < self.s_min or (self.s_max is not None and sigma > self.s_max):
            return x, sigma
        # At gamma = sqrt(2) - 1 the variance doubles: no more new noise than there was already.
        gamma = min(self.s_churn / steps, math.sqrt(2) - 1)
        sigma_hat = nearest_known(denoise, sigma * (1 + gamma))
        # In float32, rounding back to sigma may give a level just below it.
        added = (sigma_hat.square() - sigma.square()).clamp(min=0).sqrt() * self.s_noise
        return x + added * randn_like(x), sigma_hat
