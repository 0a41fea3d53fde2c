"""Autoguidance by a weaker denoiser of the same data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from genkit.artifacts import DenoiserRef
from genkit.errors import Code, Problem
from genkit.interfaces import Denoiser, Design, Guidance, Inputs, Network, Trained
from genkit.settings import setting
from genkit_edm.guidance.extrapolation import Extrapolation


@dataclass(frozen=True, kw_only=True)
class Autoguidance(Guidance):
    """Moves the denoised image away from that of a smaller or less trained denoiser.

    Where both err in the same direction and the weaker one more, the difference points to the data.
    An unconditional guide of a conditional denoiser acts as classifier-free guidance does.
    """

    source = "Autoguidance, arXiv 2406.02507"

    guide: DenoiserRef = setting(doc="stage of the weaker denoiser: train, load or average")
    weight: float = setting(
        1.0,
        doc="strength w of w (D - D_guide); 0 none. In the notation of the paper it is 1 more",
        at_least=0.0,
    )

    def check_guided(self, denoiser: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        guide = networks.get(self.guide)
        if guide is None:
            return
        if guide.stage and guide.stage == denoiser.stage:
            yield Problem(
                ("guide",),
                "must be another denoiser than the one that is guided, got the same",
                "name a stage that trains a smaller denoiser, or that trains for fewer images",
                Code.CONFLICT,
            )
        misfits = [*guide.misfits(denoiser), *self._range_problems(guide.settings, denoiser)]
        yield from (problem.under("guide") for problem in misfits)

    def _range_problems(self, guide: Network, denoiser: Design) -> Iterator[Problem]:
        """Yield that the guide does not support all noise levels at which it would be called."""
        if not (isinstance(guide, Denoiser) and isinstance(denoiser.settings, Denoiser)):
            return
        lowest, highest = guide.preconditioner.sigma_range()
        low, high = denoiser.settings.preconditioner.sigma_range()
        low, high = max(low, self.interval[0]), min(high, self.interval[1])
        if low < lowest or high > highest:
            yield Problem(
                (),
                f"must support the noise levels from {low:g} to {high:g} at which it acts, got a "
                f"denoiser of {lowest:g} to {highest:g}",
                f"write sigma_min = {lowest:g} and sigma_max = {highest:g}",
                Code.OUT_OF_RANGE,
            )

    def bind(self, inputs: Inputs, denoiser: Trained) -> Extrapolation:
        guide = inputs.network(self.guide)
        return Extrapolation(
            lambda x, sigma, labels: guide.module(x, sigma, labels if guide.classes else None),
            self.weight,
        )
