"""The train stage: denoiser, discriminator and classifier all go through it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genkit.errors import DataError, DivergedError, InterruptedRun, Problem
from genkit.interfaces import (
    Augmentation,
    Context,
    Coupler,
    Dataset,
    Network,
    Objective,
    Stage,
    Stages,
)
from genkit.random import seeded
from genkit.report.pairs import pairs_plot
from genkit.report.plots import loss_plot
from genkit.run.log import METRICS, RowLog, read_rows
from genkit.settings import setting
from genkit.train.ahead import core_for_pairing
from genkit.train.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint, save_network
from genkit.train.pairing import PairStream
from genkit.train.trainer import Optimization, Precision, Trainer
from genkit.types import Batch, DataSpec

MOST_POOL_ROWS = 10_000
"""About as many pools are reported in ``metrics.jsonl``, evenly spaced, at most twice this."""


@dataclass(frozen=True, kw_only=True)
class Train(Stage):
    """Trains a network on paired images and noise; leaves its averaged weights."""

    source = "EDM, arXiv 2206.00364, appendix F; pools after arXiv 2403.05069"

    data: Dataset = setting(doc="what to train on", inherit="data")
    network: Network = setting(doc="what to train")
    objective: Objective = setting(doc="the loss")
    coupler: Coupler = setting(doc="which noise meets which image", use={"use": "random"})
    augmentation: Augmentation | None = setting(None, doc="random change of the images")
    images: int = setting(doc="images to train for, repeats counted", at_least=1)
    batch_size: int = setting(256, doc="images an optimizer step", at_least=1)
    micro_batch: int | None = setting(
        None,
        doc="images computed at a time, where a batch is too large; the whole batch",
        at_least=1,
    )
    pool_size: int | None = setting(None, doc="images coupled together; the batch size", at_least=1)
    images_per_class: int | None = setting(
        None,
        doc="class-stratified pools: how many images of a class stand together, so that parts are "
        "worth pairing among many classes",
        at_least=1,
    )
    pools_ahead: int = setting(
        2, doc="pools that are coupled or wait ahead of training", at_least=1, affects_result=False
    )
    learning_rate: float = setting(1e-3, doc="of Adam", above=0)
    learning_rate_ramp: int = setting(
        0, doc="images over which the learning rate rises from 0", at_least=0
    )
    gradient_clip: float | None = setting(None, doc="greatest norm of the gradient", above=0)
    ema_half_life: int = setting(
        500_000, doc="half-life of the averaged weights, in images", at_least=0
    )
    ema_ramp_up: float = setting(
        0.05,
        doc="limits the half-life to this share of the images seen; 0 for no limit",
        at_least=0,
    )
    precision: Precision = setting("float32", doc="of the network's arithmetic")
    channels_last: bool = setting(False, doc="lay images out as NHWC, which convolutions prefer")
    checkpoint_seconds: float = setting(
        60.0, doc="time between checkpoints, in seconds", at_least=0, affects_result=False
    )
    accept_label_blind: bool = setting(
        False, doc="allow a coupler that skews the noise of what the network conditions on"
    )
    accept_skewed_noise: bool = setting(
        False, doc="allow a coupler whose paired noise is not N(0, I), as the sampler's is"
    )

    @property
    def output(self) -> str:
        return self.network.output

    @property
    def pool(self) -> int:
        """Pairs that are coupled together."""
        return self.batch_size if self.pool_size is None else self.pool_size

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.micro_batch and self.micro_batch > self.batch_size:
            yield Problem(
                ("micro_batch",),
                f"{self.micro_batch} is more than the batch of {self.batch_size}",
                f"write {self.batch_size} or less",
            )
        if not isinstance(self.network, self.objective.trains):
            yield Problem(
                ("objective",),
                f"{type(self.objective).__name__} trains a {self.objective.trains.output}, "
                f"and the network is a {self.network.output}",
            )
        yield from self._check_pool()
        try:
            spec = self.data.spec()
        except DataError:
            return  # reported where the data is named
        yield from self._check_attributes(spec)
        if not self.network.class_conditional or spec.classes:
            yield from self._check_network(spec)

    def _check_pool(self) -> Iterator[Problem]:
        """Pools that are not drawn as the recipe says, and noise that is not the sampler's."""
        if self.images_per_class is not None:
            if self.coupler.whole_data:
                yield Problem(
                    ("images_per_class",),
                    "the coupler chooses among the whole data set, so that no pool is drawn",
                    "leave it out",
                )
            elif self.images_per_class > self.pool:
                yield Problem(
                    ("images_per_class",),
                    f"{self.images_per_class} is more than the pool of {self.pool}",
                    f"write {self.pool} or less",
                )
        if not self.coupler.preserves_noise_marginal and not self.accept_skewed_noise:
            yield Problem(
                ("coupler",),
                "the noise that it pairs is no longer N(0, I), from which sampling starts",
                "choose another, or write accept_skewed_noise = true if it is meant",
            )

    def _check_attributes(self, spec: DataSpec) -> Iterator[Problem]:
        """Labels and sources: who needs them, who has them, who would skew them."""
        conditions = set(self.objective.conditions)
        if self.network.class_conditional:
            conditions.add("labels")
            if "labels" not in spec.attributes:
                yield Problem(
                    ("network", "class_conditional"),
                    "the data has no labels",
                    "write class_conditional = false, or choose labelled data",
                )
        for name, needed in (
            ("objective", self.objective.requires),
            ("coupler", self.coupler.requires),
            ("images_per_class", {"labels"} if self.images_per_class else set()),
        ):
            if lacking := sorted(needed - spec.attributes):
                yield Problem(
                    (name,),
                    f"needs {' and '.join(lacking)}, which the data has not",
                    "choose data that has them, or leave it out",
                )
        skewed = sorted(conditions - self.coupler.preserves_conditional_prior)
        if skewed and not self.accept_label_blind:
            by = ", ".join(f'"{name.removesuffix("s")}"' for name in skewed)
            parted = self.coupler.preserves_noise_marginal and not self.coupler.whole_data
            yield Problem(
                ("coupler",),
                f"pairs across {' and '.join(skewed)}, which the network is conditioned on: "
                "its noise would no longer be N(0, I) given the condition",
                (
                    f'write coupler = {{ use = "partitioned", by = [{by}], inner = {{ ... }} }}, '
                    if parted
                    else f"choose a coupler that keeps to it, by = [{by}] where it has that, "
                )
                + "or accept_label_blind = true if it is meant",
            )

    def _check_network(self, spec: DataSpec) -> Iterator[Problem]:
        """Build on no memory at all, to see whether the network takes this shape."""
        try:
            with torch.device("meta"):
                self.network.build(spec)
        except DataError as error:
            yield Problem(("network",), str(error))

    def run(self, context: Context) -> None:
        data, spec = self.data.load(context), self.data.spec()
        trainer = self._trainer(context, spec)
        resumed = load_checkpoint(context.folder, trainer)
        log = RowLog(
            context.folder / METRICS,
            [
                row
                for row in read_rows(context.folder / METRICS)
                # A pool that begins where training goes on is reported again.
                if row.get("images", math.inf) + ("pool" in row) <= trainer.images
            ]
            if resumed
            else [],
        )
        context.advance(trainer.images, self.images, "images", step=trainer.steps)
        with core_for_pairing():
            self._train(context, trainer, data, log)
        save_network(
            context.folder / f"{self.output}.safetensors",
            trainer.ema.model,
            self.output,
            context.describe(self.network),
            spec,
            trainer.images,
        )
        _draw(context.folder, log.rows, math.prod(spec.shape))

    def _trainer(self, context: Context, spec: DataSpec) -> Trainer:
        how = Optimization(
            learning_rate=self.learning_rate,
            learning_rate_ramp=self.learning_rate_ramp,
            gradient_clip=self.gradient_clip,
            precision=self.precision,
            channels_last=self.channels_last,
            micro_batch=self.micro_batch or self.batch_size,
            ema_half_life=self.ema_half_life,
            ema_ramp_up=self.ema_ramp_up,
        )
        with seeded(context.seed("weights")):
            model = self.network.build(spec)
        return Trainer(model, self.objective, how, context.device, context.seed)

    def _train(self, context: Context, trainer: Trainer, data: Batch, log: RowLog) -> None:
        stream = PairStream(
            data,
            self.coupler.bind(context),
            self.augmentation,
            self.pool,
            self.images,
            context.generator,
            self.images_per_class,
            # Proofs need float64, which mps has not.
            context.device if context.device.type == "cuda" else torch.device("cpu"),
        )
        # A row every 200th of the way, yet often enough to watch a long training.
        every = max(1, min(self.images // 200, 50_000) // self.batch_size)
        # Of a long training not every pool is written down: the file is read whole at its end.
        thinned = max(1, -(-self.images // self.pool) // MOST_POOL_ROWS)
        losses: list[float] = []
        waited, before = 0.0, trainer.images
        saved = begun = time.monotonic()

        def write_row() -> None:
            nonlocal losses, waited, before, begun
            now = time.monotonic()
            row = {
                "images": trainer.images,
                "loss": sum(losses) / len(losses),
                "images_per_second": round((trainer.images - before) / (now - begun), 1),
                "seconds_waited_for_pairs": round(waited, 4),
            }
            log.add(row)
            context.advance(trainer.images, self.images, "images", row["loss"], trainer.steps)
            losses, waited, before, begun = [], 0.0, trainer.images, now

        resumed_at = trainer.images
        for batch, noise, reports in stream.batches(
            self.batch_size, trainer.images, self.pools_ahead
        ):
            for pool in reports:
                waited += pool.seconds_waited
                if pool.pool % thinned == 0 and pool.images >= resumed_at:
                    log.add(pool.row())
            try:
                losses.append(trainer.step(batch, noise))
            except DivergedError as error:
                kept = "kept" if (context.folder / CHECKPOINT).exists() else "not yet written"
                raise DivergedError(
                    f"{error}: the last good checkpoint is {kept}; "
                    f"try a learning_rate below {self.learning_rate:g}, or gradient_clip = 1.0"
                ) from error
            stop = context.stop_requested() and trainer.images < self.images
            due = time.monotonic() - saved >= self.checkpoint_seconds
            if stop or due or trainer.steps % every == 0 or trainer.images >= self.images:
                write_row()
            else:
                recent = losses[-50:]
                mean = sum(recent) / len(recent)
                context.advance(trainer.images, self.images, "images", mean, trainer.steps)
            if stop or due:
                save_checkpoint(context.folder, trainer)
                saved = time.monotonic()
            if stop:
                raise InterruptedRun(f"{trainer.images:,} of {self.images:,} images")
        save_checkpoint(context.folder, trainer)


def _draw(folder: Path, rows: list[dict[str, Any]], dimensions: int) -> None:
    """Draw the loss, and what the coupler did where it did anything."""
    losses = [row for row in rows if "loss" in row]
    loss_plot(
        folder / "loss.png", [row["images"] for row in losses], [row["loss"] for row in losses]
    )
    pools = [row for row in rows if "pool" in row]
    if any(row["reduction"] for row in pools):
        pairs_plot(folder / "pairs.png", pools, dimensions)
