"""Bases of guidance."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from genkit.errors import Code, Problem
from genkit.interfaces.base import Component, Design, Inputs, Stages, Trained
from genkit.interfaces.sampling import Solver
from genkit.settings import setting


class BoundGuidance(ABC):
    """A guidance with its networks loaded, which counts their calls."""

    evaluations: int = 0
    """Number of network calls so far, one for each batch."""

    component: Guidance | None = None
    """Guidance that was bound, for messages; set by the caller of ``bind``."""

    warnings: Sequence[str] = ()
    """Assumptions on its networks that could not be verified, reported once before sampling."""

    interval: tuple[float, float] = (0.0, math.inf)
    """Min and max noise level at which the guidance is applied; set by the caller of ``bind``.

    At other noise levels, :meth:`correction` is not called. If the items of a batch differ in their
    noise level, corrections are computed for all items and applied to those inside the interval.
    """

    def acts_at(self, sigma: Tensor) -> Tensor:
        """Return whether each noise level is in :attr:`interval`, as a bool tensor.

        Levels are compared in float32, as passed to networks, so that 20.000000000000004 equals 20.
        """
        lowest, highest = self.interval
        level = sigma.float()
        return (level >= lowest) & (level <= highest)

    @property
    def requires_score(self) -> bool:
        """Whether the guidance requires a score; by default, as its component declares."""
        return self.component is not None and self.component.requires_score

    def begin(self) -> BoundGuidance:
        """Return the guidance for one batch of trajectories. Called before their first step.

        By default, the object returns itself. If it keeps state between steps, it must return a
        copy.
        """
        return self

    def churn(self, x: Tensor, amount: float | Tensor) -> float | Tensor:
        """Return the amount of noise for the next step; called once per step.

        Solvers with ``churns = True`` call it through :meth:`genkit.types.Denoise.churn`.

        Args:
            x: ``[B, *shape]`` state at the beginning of the step.
            amount: amount of noise that the solver would add, its ``s_churn``: one number or
                ``[B]``.

        Returns:
            ``amount``, or one amount per item, ``[B]`` on the device of the samples; 0 or more.
        """
        return amount

    @abstractmethod
    def correction(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None,
        denoised: Tensor,
        *,
        inner: bool = False,
    ) -> Tensor:
        """Return the correction ``[B, *shape]`` that is added to the denoised image.

        The corrections of several guidance components are summed, so their order has no effect. The
        method must be a pure function of its arguments, except for the state of a copy that
        :meth:`begin` returned. The correction of an item must not depend on the other items of the
        batch.

        Args:
            x: ``[B, *shape]`` noisy state, float32.
            sigma: ``[B]`` noise levels.
            labels: ``[B]`` int64 classes or None.
            denoised: ``[B, *shape]`` estimate of the denoiser, without any guidance.
            inner: False for the first evaluation of a solver step; True for other evaluations,
                including those that correct the start.
        """


@dataclass(frozen=True, kw_only=True)
class Guidance(Component):
    """A correction of the denoised image, usable by every solver.

    A setting with the name ``weight`` is the strength of the guidance; if it is 0, the correction
    must be 0. A setting ``second_weight`` is the strength in ``inner`` evaluations.
    """

    requires_score: ClassVar[bool] = False
    """Whether the guidance requires that ``(D(x; sigma) - x) / sigma^2`` is the score."""

    sigma_min: float = setting(
        0.0, doc="min noise level at which the guidance is applied", at_least=0.0
    )
    sigma_max: float | None = setting(
        None,
        doc="max noise level at which the guidance is applied; no limit if left out or inf",
        above=0.0,
        infinite=True,
    )

    @property
    def interval(self) -> tuple[float, float]:
        """Min and max noise level at which the guidance is applied."""
        return self.sigma_min, math.inf if self.sigma_max is None else self.sigma_max

    @property
    def adds_noise(self) -> bool:
        """Whether :meth:`BoundGuidance.churn` may return an amount other than its argument."""
        return False

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.sigma_min >= self.interval[1]:
            yield Problem(
                ("sigma_min",),
                f"must be below sigma_max = {self.sigma_max:g}, got {self.sigma_min:g}",
                f"write a value below {self.sigma_max:g}, or a larger sigma_max",
                Code.OUT_OF_RANGE,
            )

    def check_guided(self, denoiser: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        """Yield a problem if the guidance cannot be used with a denoiser.

        Called before anything is drawn.

        Args:
            denoiser: settings and data of the denoiser.
            networks: networks to which the guidance may refer, by the value of the reference.
        """
        return iter(())

    def check_solver(self, solver: Solver) -> Iterator[Problem]:
        """Yield a problem if the guidance cannot be used with a solver.

        Called before anything is drawn.
        """
        if self.adds_noise and not solver.churns:
            yield Problem(
                (),
                f"adds fresh noise and must be used with a solver that churns, got "
                f"{type(solver).__name__}",
                'write solver = { use = "heun" }',
                Code.CONFLICT,
            )

    def check_levels(self, levels: Tensor) -> Iterator[Problem]:
        """Yield a problem if the guidance is applied at none of the noise levels of the steps.

        Called before anything is drawn; a problem is reported as a warning.

        Args:
            levels: ``[L]`` noise levels at which steps begin, decreasing and above 0. A solver may
                also evaluate other levels.
        """
        levels = levels.float()  # as in sampling
        lowest, highest = self.interval
        if not bool(((levels >= lowest) & (levels <= highest)).any()):
            hints = []
            if len(below := levels[levels < lowest]):
                hints.append(f"sigma_min = {_to_four_digits(float(below.max()), math.floor):g}")
            if len(above := levels[levels > highest]):
                hints.append(f"sigma_max = {_to_four_digits(float(above.min()), math.ceil):g}")
            yield Problem(
                ("sigma_min",) if len(below) else ("sigma_max",),
                f"must include a noise level of the schedule, which runs from {levels[0]:.4g} to "
                f"{levels[-1]:.4g} in {len(levels)} steps, got the interval from {lowest:g} to "
                f"{highest:g}",
                f"write {' or '.join(hints)}",
            )

    @abstractmethod
    def bind(self, inputs: Inputs, denoiser: Trained) -> BoundGuidance:
        """Return the guidance with its networks loaded. Called once per stage, not per batch.

        Args:
            inputs: artifacts of the stages to which the guidance refers.
            denoiser: denoiser that is guided.
        """


def _to_four_digits(level: float, rounded: Callable[[float], int]) -> float:
    """Return a noise level with four significant digits, rounded up or down."""
    digits = 3 - math.floor(math.log10(level))
    return rounded(level * 10.0**digits) / 10.0**digits
