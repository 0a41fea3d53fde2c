"""The stage ``choose-discriminator``, which chooses among the snapshots of a discriminator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from genkit.artifacts import DiscriminatorFile, DiscriminatorRef
from genkit.blame import require_method
from genkit.errors import Code, DataError, InterruptedRun, Problem
from genkit.interfaces import Average, Context, Design, Objective, Stage, Stages
from genkit.networks import build
from genkit.parts.snapshots import snapshots_in
from genkit.plugin.manager import load_plugins
from genkit.settings import setting
from genkit.tensors import load
from genkit.train.replicas import ItemLosses
from genkit_dg.choice_plot import choice_plot
from genkit_dg.held_out import (
    PairedTraining,
    Pairs,
    check_held_out,
    compute_logits,
    compute_losses,
    draw_held_out_pairs,
    noise_levels_of,
    require_realness,
)
from genkit_dg.judgment import (
    HeldOutScores,
    Judgment,
    ObjectiveLoss,
    describe_chance,
    number_items,
    score_by_sigma,
)

Judge = Callable[[nn.Module], Callable[[Tensor], HeldOutScores]]
"""Function of a discriminator that returns a function from indices of items to their scores."""


@dataclass(frozen=True, kw_only=True)
class ChooseDiscriminator(Stage):
    """Choose the snapshot of a discriminator that is best on held-out items.

    All snapshots are evaluated on the same noisy items, which were held out of training, with noise
    assigned as in training. Cross-entropy is the criterion because it is minimal if d / (1 - d) is
    the ratio of the densities. Accuracy and calibration error are reported, too. If the objective
    of the discriminator determines only the gradient of its output, such as `guided-denoising`, the
    criterion is the loss of this objective, on the real items if it does not require generated
    ones.
    """

    source = "early stopping; calibration error of arXiv 1706.04599, eq. 3"
    output = DiscriminatorFile

    discriminator: DiscriminatorRef = setting(
        doc="stage that trained the discriminator and wrote snapshots"
    )
    count: int = setting(
        8192,
        doc="number of held-out noisy items, including repetitions",
        at_least=2,
        at_most=10**6,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from check_held_out(self.discriminator, earlier)
        average = getattr(earlier.get(self.discriminator), "average", None)
        reconstructible = isinstance(average, Average) and average.reconstructible
        if reconstructible or not getattr(average, "snapshot_images", 0):
            # Snapshots of a reconstructible average are parts of a combination, not networks.
            got = "snapshots of power-function averages" if reconstructible else "a stage without"
            yield Problem(
                ("discriminator",),
                f"must write snapshots of the network with its averaged weights, got {got}",
                'write average = { use = "ema", snapshot_images = 50_000 } in its stage',
                Code.CONFLICT,
            )

    def design(self, earlier: Stages) -> Design | None:
        return earlier[self.discriminator].design(earlier)

    def run(self, context: Context) -> None:
        training = cast(PairedTraining, context.stage(self.discriminator))
        file = context.read(self.discriminator, DiscriminatorFile)
        snapshots = snapshots_in(context.results(self.discriminator))
        if not snapshots:
            raise DataError(
                f"the folder of stage {self.discriminator} must contain snapshots, got none; write "
                'average = { use = "ema", snapshot_images = 50_000 } in the stage, and train again',
                Code.NOT_FOUND,
            )
        if len(snapshots) == 1:
            context.warn(
                f"stage {self.discriminator} wrote one snapshot, so there is no choice; write a "
                "smaller snapshot_images in its average"
            )
        objective = training.objective
        pairs = select_pairs(objective, draw_held_out_pairs(training, context, self.count))
        sigma = noise_levels_of(training, pairs)
        judge = (
            _judge_by_loss(objective, context, pairs)
            if objective.gradient_only
            else _judge_by_entropy(context, pairs, sigma)
        )
        context.record.resume(lambda _: False)
        registry = load_plugins().registry
        judgments: dict[int, HeldOutScores] = {}
        levels: Sequence[tuple[float, HeldOutScores]] = ()
        context.advance(0, len(snapshots), "snapshots")
        for number, (images, path) in enumerate(snapshots.items(), 1):
            if context.stop_requested():
                raise InterruptedRun(f"{len(judgments)} of {len(snapshots)} snapshots")
            weights, _ = load(path)
            module = build(replace(file, weights=weights), registry, context.device).module
            score = judge(module)
            scores = score(torch.arange(len(sigma)))
            if not math.isfinite(scores.value):
                context.warn(f"the snapshot after {images:,} images is left out: not finite")
                continue
            judgments[images] = scores
            context.record.log({"images": images, **judgments[images].row()})
            if choose_best(judgments) == images:
                levels = score_by_sigma(sigma, score)
            context.advance(number, len(snapshots), "snapshots")
        if not judgments:
            raise DataError(
                "the snapshots must have finite scores on held-out items, got none; train with a "
                "smaller learning rate",
                Code.NOT_FINITE,
            )
        best = choose_best(judgments)
        for level, judgment in levels:
            context.record.log({"sigma": level, **judgment.row()})
        chosen = judgments[best]
        reason = explain_choice(judgments)
        context.record.log({"chosen": best, "chosen_by": chosen.criterion, "reason": reason})
        context.record.picture("choice", choice_plot(judgments, levels))
        if isinstance(chosen, Judgment) and chosen.is_chance:
            context.warn(describe_chance(chosen))
        weights, _ = load(snapshots[best])
        context.record.save(replace(file, weights=weights, images=best))


def select_pairs(objective: Objective, pairs: Pairs) -> Pairs:
    """Return the pairs on which the discriminators that an objective trained are compared.

    These are the real items, without their realness, if the objective determines only the gradient
    of the output and does not require generated items; otherwise all items.

    Raises:
        DataError: there are fewer than 2 such items.
    """
    if not objective.gradient_only or "realness" in objective.requires:
        return pairs
    batch, noise = pairs.with_realness(1)
    if len(noise) < 2:
        raise DataError(
            f"count must include at least 2 real items, got {len(noise)} of {len(pairs.noise)} "
            "items; write a larger count",
            Code.OUT_OF_RANGE,
        )
    return Pairs(replace(batch, realness=None), noise)


def _judge_by_entropy(context: Context, pairs: Pairs, sigma: Tensor) -> Judge:
    """Return a function that scores a discriminator as a classifier of held-out items."""
    realness, numbers = require_realness(pairs.batch), number_items(pairs.batch.data)

    def judge(module: nn.Module) -> Callable[[Tensor], Judgment]:
        logits = compute_logits(module, pairs, sigma, context.device)
        return lambda draws: Judgment.of(logits[draws], realness[draws], numbers[draws])

    return judge


def _judge_by_loss(objective: Objective, context: Context, pairs: Pairs) -> Judge:
    """Return a function that scores a discriminator by its own objective on held-out items."""
    bound = require_method(objective, objective.bind(context), "loss")
    numbers = number_items(pairs.batch.data)

    def judge(module: nn.Module) -> Callable[[Tensor], ObjectiveLoss]:
        losses_of = ItemLosses(module, objective, bound)
        generator = context.generator("loss")  # the same random numbers for each snapshot
        losses = compute_losses(losses_of, pairs, generator, context.device)
        return lambda draws: ObjectiveLoss.of(losses[draws], numbers[draws])

    return judge


def choose_best(judgments: Mapping[int, HeldOutScores]) -> int:
    """Return the number of training images of the snapshot with the minimum of the criterion.

    If several snapshots have it, return the smallest number.
    """
    return min(judgments, key=lambda images: (judgments[images].value, images))


def explain_choice(judgments: Mapping[int, HeldOutScores]) -> str:
    """Return a sentence with the criterion of the chosen and of the last snapshot."""
    best, last = choose_best(judgments), max(judgments)
    lowest, final = judgments[best], judgments[last]
    text = (
        f"lowest held-out {lowest.criterion.replace('_', '-')} of {len(judgments)} snapshots: "
        f"{lowest.value:.4f} +- {lowest.standard_error:.4f} at {best:,} images"
    )
    return text if best == last else f"{text}, and {final.value:.4f} at the end, {last:,}"
