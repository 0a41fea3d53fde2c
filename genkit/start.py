r"""Choose the start of sampling trajectories for denoisers that were trained with assigned noise.

Let x = y + sigma n with an assigned pair (y, n). Along a principal direction of the data with
standard deviation s, Var(x) = s^2 + 2 sigma C + sigma^2 with C = Cov(y, n). For independent noise
C = 0, and the standard deviation of a start from N(0, sigma_max^2) has the relative error
(s / sigma_max)^2 / 2. For assigned noise C > 0, and the error C / sigma_max is of first order:
samples vary too little, for any number of steps.

The corrected start is an Euler step from infinite noise. In u = 1 / sigma, the probability-flow ODE
of z = x / sigma is dz/du = D(z / u; 1 / u), with z(0) = n exactly. One step from 0 to
u_max = 1 / sigma_max, with the slope at its end, gives

    x_1 = sigma_max n + D(sigma_max n; sigma_max),

with an error of second order in C / sigma_max, at the cost of one more call of the network. With
a second call, the slope is evaluated at this state x_1: x_2 = sigma_max n + D(x_1; sigma_max). This
approximates the implicit Euler step to higher order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from torch import Tensor

from genkit.artifacts.coupling import Coupling
from genkit.blame import label_of
from genkit.errors import Code, DataError
from genkit.interfaces import BoundGuidance, Preconditioner, Schedule, Solver
from genkit.types import ResolvedStart, Start

CORRECTIONS: Mapping[ResolvedStart, int] = {"noise": 0, "corrected": 1, "corrected-twice": 2}
"""Number of corrections of each start; each correction calls the denoiser once."""

START_DOC = (
    "noise: sigma_max n; corrected: sigma_max n + D(sigma_max n; sigma_max), one more call of the "
    "denoiser; corrected-twice: sigma_max n + D(x; sigma_max) at the corrected state x, two more "
    "calls; auto: noise for a denoiser trained with independent noise, else chosen by the "
    "statistics of its training pairs"
)

MAX_SPREAD_ERROR = 0.005
"""Max relative error of the samples' standard deviation that ``auto`` accepts.

The value was chosen, not tuned. Along a direction with standard deviation s, such an error adds
(0.005 s)^2 to the Fréchet distance of pixels: 0.006 for s = 15, the max of CIFAR-10.
"""


class SamplingWarning(UserWarning):
    """Warning about a coupling that is unknown, or that does not support the chosen method."""


def choose_start(start: Start, coupling: Coupling | None, sigma_max: float) -> ResolvedStart:
    """Return the start of trajectories.

    Args:
        start: start that the user chose.
        coupling: coupling that was used in training; None if it is unknown. ``auto`` assumes
            independent noise for None, and makes one correction if noise was assigned and its
            statistics are unknown. :func:`sampling_warnings` yields a warning in both cases.
        sigma_max: first noise level of the trajectories.
    """
    if start != "auto":
        return start
    if coupling is None or coupling.independent:
        return "noise"
    statistics = coupling.statistics
    if statistics is None:
        return "corrected"

    def error(candidate: ResolvedStart) -> float:
        ratios = statistics.spread_of_samples(sigma_max, CORRECTIONS[candidate])
        return max((abs(1 - ratio) for ratio in ratios), default=0.0)

    # The start with the fewest corrections among those within the tolerance; if there are none,
    # the most accurate start.
    accepted = (candidate for candidate in CORRECTIONS if error(candidate) <= MAX_SPREAD_ERROR)
    return next(accepted, min(CORRECTIONS, key=error))


def require_start(start: Start, schedule: Schedule, preconditioner: Preconditioner | None) -> None:
    """Raise DataError unless a start can be used with a schedule and a network.

    Raises:
        DataError: the start is not one of :data:`Start`; or it is corrected, and the network does
            not support the first noise level of the schedule.
    """
    if start not in get_args(Start):
        raise DataError(
            f"start must be {', '.join(CORRECTIONS)} or auto, got {start!r}; write one of these",
            Code.UNKNOWN_CHOICE,
        )
    if start in ("auto", "noise") or preconditioner is None:
        return
    highest, wanted = preconditioner.sigma_range()[1], schedule.sigma_range()[1]
    if wanted > highest:
        raise DataError(
            f"start must be noise or auto if sigma_max = {wanted:g} is above {highest:g}, the "
            f'highest noise level of the network, got "{start}"; write sigma_max = {highest:g}',
            Code.OUT_OF_RANGE,
        )


def sampling_warnings(
    start: Start,
    coupling: Coupling | None,
    solver: Solver,
    guidance: Sequence[BoundGuidance] = (),
    levels: Tensor | None = None,
) -> Iterator[str]:
    """Yield warnings for assumptions on the coupling and for methods that it does not support.

    It also yields a warning for each guidance that is applied at no noise level of the schedule.

    Args:
        start: start that the user chose.
        coupling: coupling that was used in training; None if unknown.
        solver: solver of the sampling ODE.
        guidance: bound guidance components.
        levels: noise levels of the schedule that the network supports; None if they are unknown.
    """
    for guide in guidance:
        yield from guide.warnings
        if guide.component is not None and levels is not None:
            for problem in guide.component.check_levels(levels[:-1]):
                key = ".".join(map(str, problem.key))
                yield (
                    f"{label_of(guide.component)} changes no sample, unless the solver evaluates "
                    f"other noise levels: {key} {problem.reason}; {problem.hint}"
                )
    if coupling is None:
        if start == "auto":
            yield (
                "the coupling that the denoiser was trained with is unknown, and independent noise "
                'is assumed; write start = "noise" to confirm this, or start = "corrected" if '
                "noise was assigned"
            )
        return
    if start == "auto" and not coupling.independent and coupling.statistics is None:
        yield (
            "the statistics of the denoiser's training pairs are unknown, and the start is "
            'corrected once; write start = "corrected" to confirm this, or start = '
            '"corrected-twice"'
        )
    if solver.stochastic and not coupling.independent:
        yield (
            f"{label_of(solver)} adds fresh noise, which is correct only for a denoiser whose "
            "training noise was independent of the data, and this one was trained with assigned "
            "noise; write s_churn = 0"
        )
    for guide in guidance:
        component = guide.component
        if component is not None and component.adds_noise and not coupling.independent:
            yield (
                f"{label_of(component)} adds fresh noise, which is correct only for a denoiser "
                "whose training noise was independent of the data, and this one was trained with "
                "assigned noise; remove this guidance"
            )
        if guide.requires_score and not coupling.preserves_score:
            yield (
                f"{label_of(component)} corrects a score function, and a denoiser that was trained "
                "with assigned noise does not determine one; measure samples with several weights "
                "and compare"
            )
