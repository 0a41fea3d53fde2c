"""The stage that fits the weight of discriminator guidance, without sampling.

Let y be clean images, D their denoised estimates and g = sigma^2 grad log(d / (1 - d)) the
correction by the discriminator. At each noise level, the weight that minimizes E|y - D - w g|^2 is
w* = E<y - D, g> / E<g, g>. It is estimated with noise assigned as in training, on images that are
held out from the discriminator. The denoiser was trained on them, so y - D is its training error.
If the gradient of the discriminator is mostly noise, w* is near 0. If the discriminator is optimal
and noise was independent in training, w* is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from genkit.artifacts import DenoiserRef, DiscriminatorRef
from genkit.designs import designs
from genkit.errors import Code, DataError, InterruptedRun, Problem
from genkit.interfaces import Context, Sampler, Schedule, Solver, Stage, Stages, Trained
from genkit.latents import Derived, draws_of
from genkit.sample import bind_schedule, denoise_fn, resolve_start, trajectory
from genkit.settings import quote, setting
from genkit.start import START_DOC
from genkit.tensors import as_column
from genkit.types import Start
from genkit_dg.fitted_weight import FittedWeight
from genkit_dg.held_out import (
    BATCH,
    Pairs,
    check_held_out,
    compute_logits,
    draw_held_out_pairs,
    find_training,
    noise_levels_of,
    require_realness,
)
from genkit_dg.judgment import Judgment, describe_chance, error_of_sum, number_items
from genkit_dg.log_ratio import compute_log_ratio
from genkit_dg.weight_plot import weight_plot

NEAR_ZERO = 0.1
"""Weight below which a correction counts as mostly noise: a tenth of the weight of an optimal
discriminator. Chosen, not tuned."""

RAISED = 1.01
"""Denoising error with weight 1, relative to no guidance, above which a warning is logged; chosen,
not tuned."""


@dataclass(frozen=True)
class Level:
    """The measurements at one noise level.

    Attributes:
        sigma: noise level.
        weight: fitted weight.
        standard_error: standard error of the weight.
        error_at_one: denoising error with weight 1, relative to the error without guidance.
        error_fitted: denoising error with the fitted weight, or with weight 0 if it is negative,
            relative to the error without guidance.
        log_ratio_real: mean of log(d / (1 - d)) over real items with assigned noise.
        log_ratio_fakes: mean log-ratio over generated items with assigned noise.
        log_ratio_unpaired: mean log-ratio over generated items with independent noise.
        log_ratio_states: mean log-ratio over the states of sampling trajectories.
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
    """Fit the weight of discriminator guidance at each noise level, on held-out images.

    Guidance `{ use = "discriminator", weight_by = "STAGE" }` uses the result. The fit minimizes the
    denoising error; no samples are scored. The stage warns if weight 1 raises the error. It also
    compares two mean log-ratios of the discriminator: on states of sampling trajectories, where
    guidance is applied, and on noisy generated images, on which the discriminator was trained.
    """

    source = "least-squares fit of the denoising error, see the module"
    output = FittedWeight

    discriminator: DiscriminatorRef = setting(doc="stage that trained or chose the discriminator")
    denoiser: DenoiserRef = setting(doc="stage that trained the guided denoiser")
    count: int = setting(
        1024,
        doc="number of held-out images, including repetitions",
        at_least=32,
        at_most=10**6,
    )
    schedule: Schedule = setting(doc="noise levels, the same as in sampling", use={"use": "edm"})
    solver: Solver = setting(doc="solver of the trajectories", use={"use": "heun"})
    start: Start = setting("auto", doc=START_DOC)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from check_held_out(self.discriminator, earlier)
        networks = designs((self.denoiser, self.discriminator), earlier)
        denoiser, discriminator = networks.get(self.denoiser), networks.get(self.discriminator)
        if denoiser is None or discriminator is None:
            return
        yield from (p.under("discriminator") for p in discriminator.misfits(denoiser))
        if denoiser.classes and not discriminator.spec.classes:
            yield Problem(
                ("denoiser",),
                "requires labels, but the data of the discriminator has none",
                "write labels = true in the data of the discriminator's stage",
                Code.MISSING_ATTRIBUTE,
            )

    def run(self, context: Context) -> None:
        training = find_training(self.discriminator, context.stage)
        if training is None:
            raise DataError(
                f"discriminator must be a stage that trains on pairs, got {self.discriminator}; "
                "write the id of a stage train",
                Code.WRONG_REFERENCE,
            )
        denoiser = context.network(self.denoiser)
        discriminator = context.network(self.discriminator)
        module = discriminator.module
        pairs = draw_held_out_pairs(training, context, 2 * self.count)
        logits = compute_logits(module, pairs, noise_levels_of(training, pairs), context.device)
        items, realness = number_items(pairs.batch.data), require_realness(pairs.batch)
        real_items = items[realness == 1]
        self._require_two(real_items)
        judgment = Judgment.of(logits, realness, items)
        context.record.resume(lambda _: False)
        context.record.log(judgment.row())
        levels: list[Level] = []
        states = self._states(denoiser, module, context)
        context.advance(0, len(states), "noise levels")
        for number, (sigma, log_ratio) in enumerate(states, 1):
            if context.stop_requested():
                raise InterruptedRun(f"{len(levels)} noise levels")
            levels.append(
                _level(denoiser, discriminator, pairs, real_items, sigma, log_ratio, context)
            )
            context.record.log(asdict(levels[-1]))
            context.advance(number, len(states), "noise levels")
        for warning in _warnings(levels, None if discriminator.gradient_only else judgment):
            context.warn(warning)
        context.record.picture("weight", weight_plot(levels))
        increasing = levels[::-1]
        context.record.save(
            FittedWeight(
                sigmas=[level.sigma for level in increasing],
                weights=[level.weight for level in increasing],
                standard_errors=[level.standard_error for level in increasing],
                error_at_one=[level.error_at_one for level in increasing],
                error_fitted=[level.error_fitted for level in increasing],
                denoiser=denoiser.digest,
                discriminator=discriminator.digest,
            )
        )

    def _require_two(self, items: Tensor) -> None:
        """Raise DataError unless two numbers of items differ, as a standard error requires."""
        if bool((items == items[0]).all()):
            raise DataError(
                f"the held-out part of {quote(self.discriminator)} must have two or more real "
                "items that differ, got fewer; write a larger held_out, or use more data",
                Code.WRONG_LENGTH,
            )

    def _states(
        self, denoiser: Trained, discriminator: nn.Module, context: Context
    ) -> list[tuple[float, float]]:
        """Return decreasing noise levels, each with the mean log-ratio of the states at it."""
        sampler = Sampler(denoiser.module, denoiser.coupling, self.solver, self.start)
        schedule = bind_schedule(self.schedule, context, sampler)
        start = resolve_start(self.start, denoiser.module, denoiser.coupling, schedule)
        count = min(self.count, BATCH)
        seed, shape = context.seed("states"), denoiser.spec.shape
        draws = draws_of(Derived(), shape, range(count), denoiser.classes, context.device, seed)
        denoise = denoise_fn(denoiser.module, draws.labels)
        log_ratios: dict[float, float] = {}
        with torch.no_grad():
            for state in trajectory(
                denoise, draws, schedule=schedule, solver=self.solver, start=start
            ):
                if state.sigma:
                    x = state.x.float()
                    sigma = x.new_full((count,), state.sigma)
                    logit = discriminator(x, sigma, draws.labels)
                    log_ratios[state.sigma] = float(logit.double().mean())
        # A solver that adds noise goes back to a higher level, possibly above the level before it.
        return sorted(log_ratios.items(), reverse=True)


def _level(
    denoiser: Trained,
    discriminator: Trained,
    pairs: Pairs,
    items: Tensor,
    sigma: float,
    log_ratio: float,
    context: Context,
) -> Level:
    """Measure a noise level.

    Args:
        denoiser: guided denoiser.
        discriminator: its discriminator.
        pairs: ``[N]`` held-out items with their noise.
        items: numbers of the real items among them, see :func:`number_items`.
        sigma: noise level.
        log_ratio: mean log-ratio over the states of trajectories at this level.
        context: context of the running stage.
    """
    real, fakes = pairs.with_realness(1), pairs.with_realness(0)
    products: list[torch.Tensor] = []
    for batch, noise in real.parts(context.device):
        level = noise.new_full((len(noise),), sigma)
        x = batch.data + as_column(level, noise) * noise
        with torch.no_grad():
            error = batch.data - denoiser.module(x, level, batch.labels)
        _, gradient = compute_log_ratio(
            discriminator.module, x, level, batch.labels, clip=not discriminator.gradient_only
        )
        correction = sigma**2 * gradient
        terms = ((error, correction), (correction, correction), (error, error))
        products.append(
            torch.stack([(a.double() * b.double()).flatten(1).sum(1) for a, b in terms]).cpu()
        )
    cross, square, errors = torch.cat(products, dim=1)  # <y - D, g>, <g, g>, |y - D|^2 per item
    total, squares = float(errors.sum()), float(square.sum())
    weight = float(cross.sum()) / squares if squares else 0.0
    residual = error_of_sum(cross - weight * square, items)
    positive = max(weight, 0.0)

    def mean(of: Pairs) -> float:
        levels = torch.full((len(of.noise),), sigma)
        return float(compute_logits(discriminator.module, of, levels, context.device).mean())

    generator = context.generator("unpaired")
    unpaired = torch.randn(fakes.noise.shape, generator=generator)
    return Level(
        sigma=sigma,
        weight=weight,
        standard_error=residual / squares if squares else 0.0,
        error_at_one=1 + (squares - 2 * float(cross.sum())) / total,
        error_fitted=1 + positive * (positive * squares - 2 * float(cross.sum())) / total,
        log_ratio_real=mean(real),
        log_ratio_fakes=mean(fakes),
        log_ratio_unpaired=mean(fakes._replace(noise=unpaired)),
        log_ratio_states=log_ratio,
    )


def _warnings(levels: Sequence[Level], judgment: Judgment | None) -> Iterator[str]:
    """Yield warnings about guidance by the discriminator.

    Args:
        levels: measurements at all noise levels.
        judgment: held-out scores; None if the discriminator's output itself has no meaning.
    """
    if judgment is not None and judgment.is_chance:
        yield describe_chance(judgment)
    if all(level.weight - 2 * level.standard_error < NEAR_ZERO for level in levels):
        highest = max(level.weight for level in levels)
        yield (
            f"the fitted weight is near 0 at all noise levels, at most {highest:.3g}: on held-out "
            "images the gradient of the discriminator is mostly noise, and guidance would degrade "
            "samples; train it on more data, or choose another network for it"
        )
    if raised := [level for level in levels if level.error_at_one > RAISED]:
        worst = max(raised, key=lambda level: level.error_at_one)
        yield (
            f"weight 1 raises the denoising error at {len(raised)} of {len(levels)} noise levels, "
            f"from {raised[-1].sigma:.3g} to {raised[0].sigma:.3g}, by up to a factor of "
            f"{worst.error_at_one:.3g} at sigma = {worst.sigma:.3g}; write weight_by, or make sure "
            "that sigma_min and sigma_max of the guidance exclude these levels"
        )
