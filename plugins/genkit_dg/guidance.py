"""Discriminator guidance: correction of the denoiser by the gradient of a discriminator.

Let d(x; sigma) be the probability that x is noisy real data rather than a noisy sample of the
denoiser. For an optimal discriminator, grad_x log(d / (1 - d)) is the error of the denoiser's
score. If the score is (D - x) / sigma^2, the correction of D is w sigma^2 grad_x log(d / (1 - d))
with w = 1. With assigned noise the score is different, and the best w must be measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from genkit.artifacts import Coupling, DiscriminatorRef
from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Design, Guidance, Inputs, Solver, Stages, Trained
from genkit.settings import quote, setting
from genkit_dg.boosting import BoostedDiscriminator
from genkit_dg.bound import BoundDiscriminator
from genkit_dg.fitted_weight import FittedWeight, FittedWeightRef


@dataclass(frozen=True, kw_only=True)
class DiscriminatorGuidance(Guidance):
    """Moves the denoised image along the gradient of a discriminator, towards real data.

    The authors sample with sigma_min = 0.0447, sigma_max = 152.2 and second_weight = 0.0; without
    classes with weight = 2.0, and with classes with weight = 1.0 and boosting. The default interval
    is narrower: at high noise levels the gradient is multiplied by sigma^2, and for a discriminator
    trained on few images it is mostly noise there.
    """

    source = "Discriminator guidance, arXiv 2211.17091, section 3"
    requires_score = True

    discriminator: DiscriminatorRef = setting(doc="stage that trained the discriminator")
    weight: float = setting(
        1.0,
        doc="weight w of the correction; 0 means no guidance, 1 is exact for independent noise and "
        "an optimal discriminator",
        at_least=0.0,
    )
    second_weight: float | None = setting(
        None,
        doc="weight in the second evaluation of a step; default: `weight`. 0 halves the number of "
        "calls of the discriminator",
        at_least=0.0,
    )
    weight_by: FittedWeightRef | None = setting(
        None,
        doc="id of a stage fit-weight, whose fitted weight at each noise level multiplies `weight` "
        "and `second_weight`; default: no such factor",
    )
    boosting: bool = setting(
        False,
        doc="whether samples that are classified as generated get more noise (s_churn = 4) in "
        "every 5th step and twice the first correction in every 2nd step",
    )
    sigma_min: float = setting(0.05, doc="lowest noise level with guidance", at_least=0.0)
    sigma_max: float | None = setting(
        20.0,
        doc="highest noise level with guidance; inf: no limit",
        above=0.0,
        infinite=True,
    )

    @property
    def adds_noise(self) -> bool:
        return self.boosting

    def check_guided(self, denoiser: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        discriminator = networks.get(self.discriminator)
        if discriminator is None:
            return
        yield from (p.under("discriminator") for p in discriminator.misfits(denoiser))
        if self.boosting and discriminator.gradient_only:
            yield Problem(
                ("boosting",),
                "must be false for a discriminator whose objective determines only the gradient of "
                "the log-ratio, since boosting depends on its sign, got true",
                'remove it, or train the discriminator with objective = { use = "discrimination" }',
                Code.CONFLICT,
            )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from super().check(earlier)
        fitted = getattr(earlier.get(self.weight_by or ""), "discriminator", self.discriminator)
        if fitted != self.discriminator:
            yield Problem(
                ("weight_by",),
                f'must be fitted to the discriminator "{self.discriminator}", got a weight for '
                f'"{fitted}"',
                "write the id of a stage fit-weight for this discriminator",
                Code.WRONG_REFERENCE,
            )

    def check_solver(self, solver: Solver) -> Iterator[Problem]:
        yield from super().check_solver(solver)
        if self.second_weight is not None and not solver.two_slopes:
            yield Problem(
                ("second_weight",),
                "must be omitted with a solver that evaluates once per step, got "
                f"{self.second_weight:g} with {type(solver).__name__}",
                'remove it, or write solver = { use = "heun" }',
                Code.CONFLICT,
            )

    def bind(self, inputs: Inputs, denoiser: Trained) -> BoundDiscriminator:
        second = self.weight if self.second_weight is None else self.second_weight
        kind = BoostedDiscriminator if self.boosting else BoundDiscriminator
        discriminator = inputs.network(self.discriminator)
        digest = discriminator.denoiser_digest
        if digest is not None and digest != denoiser.digest:
            raise DataError(
                "discriminator must be trained on the denoiser in use, got "
                f"{quote(self.discriminator)}, which was trained on a different one; train a "
                "discriminator for this denoiser, or run the recipe again with --redo and the id "
                "of the stage that trains it",
                Code.CONFLICT,
            )
        by_level = None
        if self.weight_by is not None:
            fitted = inputs.read(self.weight_by, FittedWeight)
            fitted.require(discriminator, denoiser)
            by_level = fitted.on(inputs.device)
        gradient_only = discriminator.gradient_only
        bound = kind(
            discriminator.module,
            self.weight,
            second,
            by_level,
            gradient_only=gradient_only,
            fits_pairs=gradient_only and _agree(discriminator.coupling, denoiser.coupling),
        )
        if digest is None:
            bound.warnings = [
                f"the denoiser on which the discriminator {quote(self.discriminator)} was trained "
                "is unknown, and the guided denoiser is assumed"
            ]
        return bound


def _agree(first: Coupling | None, second: Coupling | None) -> bool:
    """Return whether two couplings are known and both or neither of them preserve the score."""
    if first is None or second is None:
        return False
    return first.preserves_score == second.preserves_score
