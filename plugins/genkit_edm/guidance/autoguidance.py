"""Autoguidance: guidance by a weaker denoiser of the same data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR
from decimal import Context as DecimalContext

from genkit.artifacts import DenoiserRef
from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Denoiser, Design, Guidance, Inputs, Network, Trained
from genkit.settings import quote, setting
from genkit_edm.guidance.extrapolation import Extrapolation


@dataclass(frozen=True, kw_only=True)
class Autoguidance(Guidance):
    """Moves the denoised image away from the output of a smaller or less trained denoiser.

    If both make the same kind of error, and the weaker one makes larger errors, the difference
    points towards the data. An unconditional guide of a conditional denoiser acts like
    classifier-free guidance.
    """

    source = "Autoguidance, arXiv 2406.02507"

    guide: DenoiserRef = setting(
        doc="stage that writes the weaker denoiser: train, load or average"
    )
    weight: float = setting(
        1.0,
        doc="weight w in D + w (D - D_guide); 0: no guidance. The paper's weight is w + 1",
        at_least=0.0,
    )

    def check_guided(self, denoiser: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        guide = networks.get(self.guide)
        if guide is None:
            return
        if guide.stage and guide.stage == denoiser.stage:
            yield Problem(
                ("guide",),
                "must not be the guided denoiser itself",
                "name a stage that trains a smaller denoiser, or that trains for fewer images",
                Code.CONFLICT,
            )
        misfits = [*guide.misfits(denoiser), *self._range_problems(guide.settings, denoiser)]
        yield from (problem.under("guide") for problem in misfits)

    def _range_problems(self, guide: Network, denoiser: Design) -> Iterator[Problem]:
        """Yield a problem if the guide does not support all noise levels at which it is called."""
        if not (isinstance(guide, Denoiser) and isinstance(denoiser.settings, Denoiser)):
            return
        lowest, highest = guide.preconditioner.sigma_range()
        low, high = denoiser.settings.preconditioner.sigma_range()
        low, high = max(low, self.interval[0]), min(high, self.interval[1])
        if low < lowest or high > highest:
            # Rounded inwards, since an end that is rounded outwards would be refused again.
            first, last = _round(lowest, ROUND_CEILING), _round(highest, ROUND_FLOOR)
            yield Problem(
                (),
                f"must support the noise levels from {low:g} to {high:g}, got a denoiser for "
                f"{first:g} to {last:g}",
                f"write sigma_min = {first:g} and sigma_max = {last:g}",
                Code.OUT_OF_RANGE,
            )

    def bind(self, inputs: Inputs, denoiser: Trained) -> Extrapolation:
        guide = inputs.network(self.guide)
        if guide.digest == denoiser.digest:
            raise DataError(
                f"guide must not be the guided denoiser itself, got {quote(self.guide)} with equal "
                "weights; name a smaller or less trained denoiser",
                Code.CONFLICT,
            )
        return Extrapolation(
            lambda x, sigma, labels: guide.module(x, sigma, labels if guide.classes else None),
            self.weight,
        )


def _round(value: float, rounding: str) -> float:
    """Return a noise level in the 6 digits that messages print, rounded in one direction."""
    return float(DecimalContext(prec=6, rounding=rounding).create_decimal(value))
