"""The stage that fits the weight of discriminator guidance, without sampling.

With clean images y, the denoiser's D and the correction g = sigma^2 grad log(d / (1 - d)), the
weight that lowers E|y - D - w g|^2 most at a noise level is w* = E<y - D, g> / E<g, g>. It is
estimated on held-out images, with the pairs of the training. Where the gradient is noise, w* is
near 0; where the discriminator is optimal and noise was independent, it is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from genkit.artifacts import DenoiserRef, DiscriminatorRef
from genkit.designs import designs
from genkit.errors import Code, DataError, InterruptedRun, Problem
from genkit.interfaces import Context, Sampler, Schedule, Solver, Stage, Stages, Trained
from genkit.latents import Derived, draws_of
from genkit.sample import bind_schedule, denoise_fn, resolve_start, trajectory
from genkit.settings import setting
from genkit.start import START_DOC
from genkit.tensors import as_column, network_digest
from genkit.types import Start
from genkit_dg.fitted_weight import FittedWeight
from genkit_dg.held_out import (
    BATCH,
    Pairs,
    held_out_pairs,
    held_out_problems,
    levels_of,
    logits_of,
    realness_of,
    training_of,
)
from genkit_dg.judgment import Judgment, guess_warning
from genkit_dg.log_ratio import log_ratio_gradient
from genkit_dg.weight_plot import weight_plot

NEAR_ZERO = 0.1
"""Weight below which a correction is mostly noise: a tenth of that of an optimal discriminator."""

RAISED = 1.01
"""Relative denoising error above which it counts as raised."""


@dataclass(frozen=True)
class Level:
    """What is measured at a noise level.

    Attributes:
        sigma: noise level.
        weight: fitted weight.
        standard_error: standard error of the weight.
        error_at_one: denoising error with weight 1, relative to that without guidance.
        error_fitted: denoising error with the fitted weight, or with 0 if that is negative.
        log_ratio_real: mean of log(d / (1 - d)) over real items with assigned noise.
        log_ratio_fakes: the same of generated items.
        log_ratio_unpaired: the same of generated items with independent noise.
        log_ratio_states: the same of the states of sampling trajectories.
    """

    sigma: float
    weight: float
    standard_error: float
    error_at_one: float
    error_fitted: float
    log_ratio_real: float
    log_ratio_fakes: float
    log_ratio_unpaired: float
    log_ratio_states: float


@dataclass(frozen=True, kw_only=True)
class FitWeight(Stage):
    """Fits the weight of a discriminator's guidance by noise level, on held-out images.

    Guidance `{ use = "discriminator", weight_by = "STAGE" }` uses it. No sample is scored: what is
    lowered is the denoising error. The stage warns where weight 1 raises it. It also compares the
    discriminator's log-ratio on states of sampling trajectories, where guidance acts, with that on
    generated images with noise, on which it was trained.
    """

    source = "least squares of y - D on the correction, see the module"
    output = FittedWeight

    discriminator: DiscriminatorRef = setting(doc="stage that trained or chose the discriminator")
    denoiser: DenoiserRef = setting(doc="stage that trained the denoiser that is guided")
    count: int = setting(1024, doc="held-out images, repeats counted", at_least=32)
    schedule: Schedule = setting(doc="noise levels, the same as in sampling", use={"use": "edm"})
    solver: Solver = setting(doc="draws the trajectories", use={"use": "heun"})
    start: Start = setting("auto", doc=START_DOC)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from held_out_problems(self.discriminator, earlier)
        known = designs((self.denoiser, self.discriminator), earlier)
        denoiser, discriminator = known.get(self.denoiser), known.get(self.discriminator)
        if denoiser is None or discriminator is None:
            return
        yield from (p.under("discriminator") for p in discriminator.misfits(denoiser))
        if denoiser.classes and not discriminator.spec.classes:
            yield Problem(
                ("denoiser",),
                "must be called with classes, got data of the discriminator without labels",
                "write labels = true in the data of the discriminator's stage",
                Code.MISSING_ATTRIBUTE,
            )

    def run(self, context: Context) -> None:
        training = training_of(self.discriminator, context.stage)
        if training is None:
            raise DataError("discriminator must be trained on pairs", Code.WRONG_REFERENCE)
        denoiser = context.network(self.denoiser)
        module = context.network(self.discriminator).module
        pairs = held_out_pairs(training, context, 2 * self.count)
        logits = logits_of(module, pairs, levels_of(training, pairs), context.device)
        judgment = Judgment.of(logits, realness_of(pairs.batch))
        context.record.resume(lambda _: False)
        context.record.log(judgment.row())
        levels: list[Level] = []
        states = self._states(denoiser, module, context)
        for number, (sigma, log_ratio) in enumerate(states, 1):
            if context.stop_requested():
                raise InterruptedRun(f"{len(levels)} noise levels")
            levels.append(_level(denoiser, module, pairs, sigma, log_ratio, context))
            context.record.log(asdict(levels[-1]))
            context.advance(number, len(states), "noise levels")
        for warning in _warnings(levels, judgment):
            context.warn(warning)
        context.record.picture("weight", weight_plot(levels))
        rising = levels[::-1]
        context.record.save(
            FittedWeight(
                sigmas=[level.sigma for level in rising],
                weights=[level.weight for level in rising],
                standard_errors=[level.standard_error for level in rising],
                error_at_one=[level.error_at_one for level in rising],
                error_fitted=[level.error_fitted for level in rising],
                denoiser=network_digest(denoiser.module),
                discriminator=network_digest(module),
            )
        )

    def _states(
        self, denoiser: Trained, discriminator: nn.Module, context: Context
    ) -> list[tuple[float, float]]:
        """Return noise levels and the mean log-ratio of the states of trajectories at each."""
        sampler = Sampler(denoiser.module, denoiser.coupling, self.solver, self.start)
        schedule = bind_schedule(self.schedule, context, sampler)
        start = resolve_start(self.start, denoiser.module, denoiser.coupling, schedule)
        count = min(self.count, BATCH)
        seed, shape = context.seed("states"), denoiser.spec.shape
        draws = draws_of(Derived(), shape, range(count), denoiser.classes, context.device, seed)
        denoise = denoise_fn(denoiser.module, draws.labels)
        found = []
        with torch.no_grad():
            for state in trajectory(
                denoise, draws, schedule=schedule, solver=self.solver, start=start
            ):
                if state.sigma:
                    x = state.x.float()
                    sigma = x.new_full((count,), state.sigma)
                    logit = discriminator(x, sigma, draws.labels)
                    found.append((state.sigma, float(logit.double().mean())))
        return found


def _level(
    denoiser: Trained,
    discriminator: nn.Module,
    pairs: Pairs,
    sigma: float,
    log_ratio: float,
    context: Context,
) -> Level:
    """Measure a noise level; ``log_ratio`` is that of the states."""
    real, fakes = pairs.of_source(1), pairs.of_source(0)
    products: list[torch.Tensor] = []
    for batch, noise in real.parts(context.device):
        level = noise.new_full((len(noise),), sigma)
        x = batch.data + as_column(level, noise) * noise
        with torch.no_grad():
            error = batch.data - denoiser.module(x, level, batch.labels)
        _, gradient = log_ratio_gradient(discriminator, x, level, batch.labels)
        correction = sigma**2 * gradient
        terms = ((error, correction), (correction, correction), (error, error))
        products.append(
            torch.stack([(a.double() * b.double()).flatten(1).sum(1) for a, b in terms]).cpu()
        )
    cross, square, errors = torch.cat(products, dim=1)
    total, squares = float(errors.sum()), float(square.sum())
    weight = float(cross.sum()) / squares if squares else 0.0
    residual = float((cross - weight * square).square().sum()) ** 0.5
    used = max(weight, 0.0)

    def mean(of: Pairs) -> float:
        levels = torch.full((len(of.noise),), sigma)
        return float(logits_of(discriminator, of, levels, context.device).mean())

    generator = context.generator("unpaired")
    unpaired = torch.randn(fakes.noise.shape, generator=generator)
    return Level(
        sigma=sigma,
        weight=weight,
        standard_error=residual / squares if squares else 0.0,
        error_at_one=1 + (squares - 2 * float(cross.sum())) / total,
        error_fitted=1 + used * (used * squares - 2 * float(cross.sum())) / total,
        log_ratio_real=mean(real),
        log_ratio_fakes=mean(fakes),
        log_ratio_unpaired=mean(fakes._replace(noise=unpaired)),
        log_ratio_states=log_ratio,
    )


def _warnings(levels: Sequence[Level], judgment: Judgment) -> Iterator[str]:
    """Yield the warnings for samples that are guided by the discriminator."""
    if judgment.guesses:
        yield guess_warning(judgment)
    if all(level.weight - 2 * level.standard_error < NEAR_ZERO for level in levels):
        highest = max(level.weight for level in levels)
        yield (
            f"the fitted weight is near 0 at all noise levels, {highest:.3g} at most: the gradient "
            "of the discriminator is noise on held-out images, and guidance would make samples "
            "worse; train it on more data, or with another network"
        )
    if raised := [level for level in levels if level.error_at_one > RAISED]:
        worst = max(raised, key=lambda level: level.error_at_one)
        yield (
            f"weight 1 raises the denoising error at {len(raised)} of {len(levels)} noise levels, "
            f"{worst.error_at_one:.3g} times at sigma = {worst.sigma:.3g}; write weight_by, or "
            "sigma_min and sigma_max that leave these levels out"
        )
