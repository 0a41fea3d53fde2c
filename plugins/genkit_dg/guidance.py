"""Discriminator guidance: the denoiser's score, corrected by a discriminator's.

Where d(x; sigma) is the probability that x is noisy real data rather than a noisy sample of the
denoiser, grad_x log(d / (1 - d)) is what the denoiser's score lacks. Where the score is
(D - x) / sigma^2, the correction of D is w sigma^2 grad_x log(d / (1 - d)). With assigned noise it
is not, and the best w is a matter of measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from genkit.artifacts import DiscriminatorRef
from genkit.errors import Code, Problem
from genkit.interfaces import Design, Guidance, Inputs, Solver, Stages, Trained
from genkit.settings import setting
from genkit_dg.boosting import BoostedDiscriminator
from genkit_dg.bound import BoundDiscriminator
from genkit_dg.fitted_weight import FittedWeight, FittedWeightRef


@dataclass(frozen=True, kw_only=True)
class DiscriminatorGuidance(Guidance):
    """Moves the denoised image along the gradient of a discriminator, towards real data.

    The paper samples with weight = 2.0, second_weight = 0.0, sigma_min = 0.0447 and sigma_max =
    152.2. The default interval is narrower: the gradient of a discriminator trained on few images
    is mostly noise at high noise levels, where sigma^2 multiplies it.
    """

    source = "Discriminator guidance, arXiv 2211.17091, section 3"
    requires_score = True

    discriminator: DiscriminatorRef = setting(doc="stage that trained the discriminator")
    weight: float = setting(
        1.0,
        doc="strength w; 0 none, 1 the whole correction of a score, which is exact where noise was "
        "independent and the discriminator optimal",
        at_least=0.0,
    )
    second_weight: float | None = setting(
        None,
        doc="strength in the second slope of a step; left out: `weight`. 0 halves the calls of the "
        "discriminator",
        at_least=0.0,
    )
    weight_by: FittedWeightRef | None = setting(
        None,
        doc="stage fit-weight, whose weight at each noise level multiplies `weight` and "
        "`second_weight`; left out: 1",
    )
    boosting: bool = setting(
        False,
        doc="for samples that the discriminator takes for generated, add noise (s_churn = 4) in "
        "every fifth step, and double the first correction in every second",
    )
    sigma_min: float = setting(0.05, doc="lowest noise level at which it acts", at_least=0.0)
    sigma_max: float | None = setting(
        20.0,
        doc="highest noise level at which it acts; inf: any",
        above=0.0,
        infinite=True,
    )

    @property
    def adds_noise(self) -> bool:
        return self.boosting

    def check_guided(self, denoiser: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        if found := networks.get(self.discriminator):
            yield from (p.under("discriminator") for p in found.misfits(denoiser))

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from super().check(earlier)
        fitted = getattr(earlier.get(self.weight_by or ""), "discriminator", self.discriminator)
        if fitted != self.discriminator:
            yield Problem(
                ("weight_by",),
                f'must be fitted to the discriminator "{self.discriminator}", got a fit to '
                f'"{fitted}"',
                "fit a weight to this discriminator",
                Code.WRONG_REFERENCE,
            )

    def check_solver(self, solver: Solver) -> Iterator[Problem]:
        yield from super().check_solver(solver)
        if self.second_weight is not None and not solver.two_slopes:
            yield Problem(
                ("second_weight",),
                "must be left out for a solver whose steps have no second slope, got "
                f"{self.second_weight:g} with {type(solver).__name__}",
                'leave it out, or write solver = { use = "heun" }',
                Code.CONFLICT,
            )

    def bind(self, inputs: Inputs, denoiser: Trained) -> BoundDiscriminator:
        second = self.weight if self.second_weight is None else self.second_weight
        kind = BoostedDiscriminator if self.boosting else BoundDiscriminator
        module = inputs.network(self.discriminator).module
        by_level = None
        if self.weight_by is not None:
            fitted = inputs.read(self.weight_by, FittedWeight)
            fitted.require(module, denoiser.module)
            by_level = fitted.on(inputs.device)
        return kind(module, self.weight, second, by_level)
