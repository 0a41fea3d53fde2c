r"""Start of sampling, where a denoiser was trained with assigned noise.

Let x = y + sigma n with an assigned pair (y, n). Along a principal direction of the data with
standard deviation s, Var(x) = s^2 + 2 sigma C + sigma^2 with C = Cov(y, n). Independent noise has
C = 0, and N(0, sigma_max^2) is wrong in second order alone, by (s / sigma_max)^2 / 2. Assigned
noise has C > 0, and it is wrong by C / sigma_max: samples vary too little, whatever the number of
steps.

The corrected start is Euler's step from an infinite noise level. In u = 1 / sigma the
probability-flow ODE of z = x / sigma is dz/du = D(z / u; 1 / u), and z(0) = n exactly. So one step
from 0 to u_max = 1 / sigma_max gives

    x(sigma_max) = sigma_max n + D(sigma_max n; sigma_max),

with an error of second order in C / sigma_max, for one more call of the network. The slope belongs
to the end of the step; a second call finds it at the corrected state, x = sigma_max n + D(x;
sigma_max), which is the implicit Euler step up to higher orders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from genkit.artifacts.coupling import Coupling
from genkit.blame import label_of
from genkit.errors import Code, DataError
from genkit.interfaces import BoundGuidance, Preconditioner, Schedule, Solver
from genkit.types import ResolvedStart, Start

CORRECTIONS: Mapping[ResolvedStart, int] = {"noise": 0, "corrected": 1, "corrected-twice": 2}
"""How often a start is corrected, each time by a call of the denoiser."""

START_DOC = (
    "noise: sigma_max n; corrected: sigma_max n + D(sigma_max n; sigma_max), one more call of the "
    "denoiser; corrected-twice: with D of the corrected state; auto: what the pairs of the "
    "training require, noise where they are random"
)

MAX_SPREAD_ERROR = 0.005
"""Error of the samples' standard deviation, as a share of the data's, that ``auto`` accepts.

It adds (0.005 s)^2 to a Fréchet distance of pixels, 0.006 for the s = 15 of CIFAR-10.
"""


class SamplingWarning(UserWarning):
    """Assumption about the training pairs, or a method that they do not support."""


def choose_start(start: Start, coupling: Coupling | None, sigma_max: float) -> ResolvedStart:
    """Return where trajectories start.

    Args:
        start: as the user chose it.
        coupling: what is known of the pairs of the training; None where nothing is, in which case
            ``auto`` assumes independent noise. Of assigned noise without statistics it assumes
            that one correction is right. :func:`sampling_warnings` states both.
        sigma_max: first noise level of the trajectories.
    """
    if start != "auto":
        return start
    if coupling is None or coupling.independent:
        return "noise"
    statistics = coupling.statistics
    if statistics is None:
        return "corrected"

    def error(known: ResolvedStart) -> float:
        ratios = statistics.spread_of_samples(sigma_max, CORRECTIONS[known])
        return max((abs(1 - ratio) for ratio in ratios), default=0.0)

    accepted = (known for known in CORRECTIONS if error(known) <= MAX_SPREAD_ERROR)
    return next(accepted, min(CORRECTIONS, key=error))


def require_start(start: Start, schedule: Schedule, preconditioner: Preconditioner | None) -> None:
    """Require a start that a user may choose for a schedule and a network.

    Raises:
        DataError: it is none of :data:`Start`; or it is corrected, and the network does not support
            the first noise level of the schedule.
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
            f"start must be noise or auto where sigma_max = {wanted:g} is above {highest:g}, the "
            f'highest noise level of the network, got "{start}"; write sigma_max = {highest:g}',
            Code.OUT_OF_RANGE,
        )


def sampling_warnings(
    start: Start,
    coupling: Coupling | None,
    solver: Solver,
    guidance: Sequence[BoundGuidance] = (),
) -> Iterator[str]:
    """Yield warnings about assumptions on the training pairs, and methods they do not support.

    Args:
        start: as the user chose it.
        coupling: what is known of the pairs of the training; None where nothing is.
        solver: solver of the sampling ODE.
        guidance: bound corrections.
    """
    if coupling is None:
        if start == "auto":
            yield (
                "the training pairs of the denoiser are unknown, and noise independent of the data "
                'is assumed; write start = "noise" to confirm, or start = "corrected" if noise was '
                "assigned"
            )
        return
    if start == "auto" and not coupling.independent and coupling.statistics is None:
        yield (
            "the training pairs of the denoiser were not measured, and the start is corrected "
            'once; write start = "corrected" to confirm, or start = "corrected-twice"'
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
                f"{label_of(component)} asks for fresh noise, which is correct only for a denoiser "
                "whose training noise was independent of the data, and this one was trained with "
                "assigned noise"
            )
        if component is not None and component.requires_score and not coupling.preserves_score:
            yield (
                f"{label_of(component)} corrects a score, which a denoiser that was trained with "
                "assigned noise does not give; compare several weights by their scores"
            )
