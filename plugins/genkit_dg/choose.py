"""The stage ``choose-discriminator``, which chooses among the snapshots of a discriminator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

from genkit.artifacts import DiscriminatorFile, DiscriminatorRef
from genkit.errors import Code, DataError, InterruptedRun, Problem
from genkit.interfaces import Average, Context, Design, Stage, Stages
from genkit.networks import build
from genkit.parts.snapshots import snapshots_in
from genkit.plugin.manager import load_plugins
from genkit.settings import setting
from genkit.tensors import load
from genkit_dg.choice_plot import choice_plot
from genkit_dg.held_out import (
    PairedTraining,
    check_held_out,
    compute_logits,
    draw_held_out_pairs,
    noise_levels_of,
    require_realness,
)
from genkit_dg.judgment import Judgment, describe_chance, score_by_sigma


@dataclass(frozen=True, kw_only=True)
class ChooseDiscriminator(Stage):
    """Choose the snapshot of a discriminator with the lowest cross-entropy on held-out items.

    All snapshots are evaluated on the same noisy items, which were held out of training, with noise
    assigned as in training. Cross-entropy is the criterion because it is minimal if d / (1 - d) is
    the ratio of the densities. Accuracy and calibration error are reported, too.
    """

    source = "early stopping; calibration error of arXiv 1706.04599, eq. 3"
    output = DiscriminatorFile

    discriminator: DiscriminatorRef = setting(
        doc="stage that trained the discriminator and wrote snapshots"
    )
    count: int = setting(
        8192, doc="number of held-out noisy items, including repetitions", at_least=2
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
        pairs = draw_held_out_pairs(training, context, self.count)
        realness, sigma = require_realness(pairs.batch), noise_levels_of(training, pairs)
        context.record.resume(lambda _: False)
        registry = load_plugins().registry
        judgments: dict[int, Judgment] = {}
        levels: Mapping[str, Judgment] = {}
        context.advance(0, len(snapshots), "snapshots")
        for number, (images, path) in enumerate(snapshots.items(), 1):
            if context.stop_requested():
                raise InterruptedRun(f"{len(judgments)} of {len(snapshots)} snapshots")
            weights, _ = load(path)
            module = build(replace(file, weights=weights), registry, context.device).module
            logits = compute_logits(module, pairs, sigma, context.device)
            judgments[images] = Judgment.of(logits, realness)
            context.record.log({"images": images, **judgments[images].row()})
            if choose_best(judgments) == images:
                levels = score_by_sigma(logits, realness, sigma)
            context.advance(number, len(snapshots), "snapshots")
        best = choose_best(judgments)
        for level, judgment in levels.items():
            context.record.log({"sigma": float(level), **judgment.row()})
        context.record.log({"chosen": best, "reason": explain_choice(judgments)})
        context.record.picture("choice", choice_plot(judgments, levels))
        if file.gradient_only:
            context.warn(
                "the objective of the discriminator determines only the gradient of its output, "
                "but snapshots are compared by cross-entropy, which also depends on its value; "
                "compare samples with several snapshots"
            )
        elif judgments[best].is_chance:
            context.warn(describe_chance(judgments[best]))
        weights, _ = load(snapshots[best])
        context.record.save(replace(file, weights=weights, images=best))


def choose_best(judgments: Mapping[int, Judgment]) -> int:
    """Return the number of training images of the snapshot with the lowest cross-entropy.

    If several snapshots have it, return the smallest number.
    """
    return min(judgments, key=lambda images: (judgments[images].cross_entropy, images))


def explain_choice(judgments: Mapping[int, Judgment]) -> str:
    """Return a sentence with the cross-entropy of the chosen and of the last snapshot."""
    best, last = choose_best(judgments), max(judgments)
    lowest, final = judgments[best], judgments[last]
    text = (
        f"lowest held-out cross-entropy of {len(judgments)} snapshots: "
        f"{lowest.cross_entropy:.4f} +- {lowest.standard_error:.4f} at {best:,} images"
    )
    return text if best == last else f"{text}, and {final.cross_entropy:.4f} at the end, {last:,}"
