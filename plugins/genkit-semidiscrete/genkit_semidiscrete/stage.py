"""The stage that fits a potential to a data set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.plugin import (
    Code,
    Context,
    DataError,
    Dataset,
    InterruptedRun,
    Problem,
    Scores,
    Stage,
    Stages,
    quote,
    setting,
    to_float,
)
from genkit_semidiscrete.ascent import State
from genkit_semidiscrete.fit import Fit
from genkit_semidiscrete.potential import By, Potential, describe, flatten_images, hash_images
from genkit_semidiscrete.search import NOISES

MIN_STEPS = 200
"""Minimum number of ascent steps. With fewer steps, the potential does not reach the solution from
its initial value. Chosen, not tuned."""

REPORTS = 20
"""Approximate number of rows in ``metrics.jsonl``."""

MEASURED = 32
"""Number of noise samples per image with which the result is measured; chosen, not tuned."""


@dataclass(frozen=True, kw_only=True)
class FitPotential(Stage):
    """Fit the potential with which the coupler `semidiscrete` assigns noise samples to images."""

    source = "Flow Matching with Semidiscrete Couplings, arXiv 2509.25519, section 3"
    output = Potential

    data: Dataset = setting(doc="images that noise is assigned to", inherit="data")
    by: tuple[By, ...] = setting((), doc='["label"] for a separate potential per class')
    noises_per_image: int = setting(
        400,
        doc="number of noise samples in the fit per image of the largest group; with n of them, "
        "the relative error of an image's frequency is about sqrt(3.5 / n)",
        at_least=1,
        at_most=10**6,
    )
    batch_size: int = setting(
        4096,
        doc="number of noise samples per step; there are at least 200 steps",
        at_least=2,
        at_most=10**6,
    )
    learning_rate: float = setting(
        2.0,
        doc="size of the first step, relative to the mean difference of the two best scores",
        above=0,
        at_most=1000,
    )
    checkpoint_seconds: float = setting(
        60.0, doc="time between checkpoints, in seconds", at_least=0, affects_result=False
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        try:
            spec = self.data.spec()
        except DataError:
            return  # reported by the check of the data
        if self.by and "labels" not in spec.attributes:
            reason = f"must be [] for data without labels, got {quote(self.by)}"
            yield Problem(("by",), reason, "remove it", Code.MISSING_ATTRIBUTE)

    def run(self, context: Context) -> None:
        batch = self.data.load(context)
        batch = batch.with_data(to_float(batch.data))
        images = describe(batch, self.by)
        largest = max(len(members) for _, members in images.parts())
        steps = max(MIN_STEPS, -(-self.noises_per_image * largest // self.batch_size))
        total = steps + max(MIN_STEPS // 10, -(-MEASURED * largest // self.batch_size))
        points = flatten_images(batch.data).to(context.device)
        fit = Fit.of(points, images, steps, self.learning_rate)

        def noise(index: int, count: int = self.batch_size) -> Tensor:
            # Drawn on the device, with a seed per step so that a resumed fit draws the same values.
            drawing = torch.Generator(context.device).manual_seed(context.seed("noise", index))
            shape = (count, points.shape[1])
            return torch.randn(shape, generator=drawing, device=context.device)

        states, done = fit.begin(noise(-1, NOISES)), 0
        if checkpoint := context.record.restore():
            states = [State.of(checkpoint.tensors, str(part)) for part in range(len(fit.ascents))]
            done = int(checkpoint.numbers["steps"])
        context.record.resume(lambda row: row["noises"] <= done * self.batch_size)
        context.advance(done * self.batch_size, total * self.batch_size, "noises", step=done)
        saved = time.monotonic()
        while done < total:
            states, done = fit.step(done, states, noise(done)), done + 1
            every = steps // REPORTS
            if done in (steps, total) or (done < steps and done % every == 0):
                row = fit.progress(states) if done < total else fit.result(states)
                context.record.log({"noises": done * self.batch_size, **row})
                states = fit.reported(states)
            context.advance(done * self.batch_size, total * self.batch_size, "noises", step=done)
            stop = context.stop_requested() and done < total
            if stop or time.monotonic() - saved >= self.checkpoint_seconds:
                state: dict[str, Tensor] = {}
                for part, ascent in enumerate(states):
                    state |= ascent.tensors(str(part))
                context.record.checkpoint(state, {"steps": done})
                saved = time.monotonic()
            if stop:
                raise InterruptedRun(f"{done:,} of {total:,} steps")
        shape, facts = (
            tuple(batch.data.shape[1:]),
            {"cost": "squared", "digest": hash_images(batch)},
        )
        facts |= context.record.rows[-1]
        context.record.scores(Scores([context.record.rows[-1]]))
        context.record.save(Potential(images, fit.values(states), shape, self.by, facts))
