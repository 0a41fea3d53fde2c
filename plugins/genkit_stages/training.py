"""The loop of the train stage: steps, and what is written down on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from genkit.artifacts import NetworkFile, Record
from genkit.artifacts.layout import CHECKPOINT
from genkit.blame import label_of
from genkit.errors import DataError, DivergedError, InterruptedRun
from genkit.interfaces import Context, Objective
from genkit.train.diagnostics import PoolReport, is_skewed
from genkit.train.distributed import LOCAL, RankExchange
from genkit.train.pairing import PairStream
from genkit.train.trainer import AVERAGED, Trainer
from genkit_stages.callbacks import Callbacks, reached
from genkit_stages.loss_by_sigma import ROWS, by_sigma

MOST_POOL_ROWS = 10_000
"""About as many pools are reported in ``metrics.jsonl``, evenly spaced, at most twice this."""

_READ_SECONDS = 1.0  # between two readings of the loss, each of which waits for the device
_FIRST_DRAWING = 30.0  # seconds of a training before its pictures are drawn
_DRAWING_SHARE = 0.01  # part of the time of a training that drawing may take


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Trains to the end of a stream of pairs; every process of the world goes through it alike.

    Attributes:
        context: of the stage.
        trainer: freshly built, or restored.
        objective: objective of the trainer.
        stream: of pairs.
        batch_size: images of an optimizer step.
        pools_ahead: pools that are coupled or wait ahead of training.
        checkpoint_seconds: time between checkpoints.
        callbacks: callbacks of the training, not yet bound.
        described: returns the averaged network as it is, for its checkpoints.
        draw: draws the pictures of what was logged so far.
    """

    context: Context
    trainer: Trainer
    objective: Objective
    stream: PairStream
    batch_size: int
    pools_ahead: int
    checkpoint_seconds: float
    callbacks: Callbacks
    described: Callable[[], NetworkFile]
    draw: Callable[[], None]

    def run(self) -> None:
        """Train, and leave a checkpoint of the end.

        Raises:
            DivergedError: a loss or a gradient was not finite; nothing was saved since.
            InterruptedRun: the user asked to stop; all is saved.
        """
        trainer, total, group = self.trainer, self.stream.total, self.context.world.new_group()
        # A row every 200th of the way, yet often enough to watch a long training.
        every = max(1, min(total // 200, 50_000) // self.batch_size)
        begun_at, loss = trainer.images, None
        self.callbacks.bind()
        saved = read = self._clock()
        undrawn_until = saved + _FIRST_DRAWING
        losses = _Losses(trainer)
        exchange = RankExchange(group) if group else LOCAL
        batches = self.stream.batches(self.batch_size, begun_at, self.pools_ahead, exchange)
        with closing(batches):
            for batch, noise, pools in batches:
                self._tell([pool for pool in pools if pool.images >= begun_at])
                losses.waited += sum(pool.seconds_waited for pool in pools)
                trainer.step(batch, noise)
                now, done = self._clock(), trainer.images >= total
                stop = self.context.stop_requested() and not done
                due = stop or done or now - saved >= self.checkpoint_seconds
                row, snapshot = due or trainer.steps % every == 0, self._snapshot_is_due(len(batch))
                callbacks = self.callbacks.due(trainer.images, len(batch))
                if row or snapshot or callbacks or now - read >= _READ_SECONDS:
                    with self._remedied():
                        loss, read = losses.read(), now
                if row:
                    loss = self._write(losses.row())
                if self._by_sigma_is_due(every):
                    self._write_by_sigma()
                self.context.advance(trainer.images, total, "images", loss, trainer.steps)
                if self.context.world.is_main and snapshot:
                    trainer.average.snapshot(self.context.folder, trainer.images)
                if callbacks:  # before the checkpoint, behind which rows are logged again
                    begun = self._clock()
                    self.callbacks.call(callbacks)
                    losses.leave_out(self._clock() - begun)
                if due:
                    state = trainer.state()
                    network = {**self.described().metadata(), "prefix": AVERAGED}
                    self.context.record.checkpoint(*state, network)
                saved = now if due else saved
                if due and not done and not stop and now >= undrawn_until:
                    seconds = self._drawn()
                    losses.leave_out(seconds)
                    undrawn_until = now + seconds / _DRAWING_SHARE
                if stop:
                    raise InterruptedRun(f"{trainer.images:,} of {total:,} images")

    def _drawn(self) -> float:
        """Draw the pictures on rank 0, and return the seconds that it took."""
        begun = time.monotonic()
        if self.context.world.is_main:
            self.draw()
        return time.monotonic() - begun

    def _clock(self) -> float:
        """Return the seconds of the leading process, so that all decide alike."""
        return self.context.world.broadcast(time.monotonic())

    def _tell(self, pools: list[PoolReport]) -> None:
        """Write down what was done to pools; of a long training not to each of them.

        The file is read whole at its end.
        """
        thinned = max(1, -(-self.stream.total // self.stream.pool_size) // MOST_POOL_ROWS)
        for pool in pools:
            if pool.pool % thinned == 0:
                self._write(pool.row())
                # Looked at when their number has doubled: not all rows for each.
                if (pool.pool // thinned + 1).bit_count() == 1:
                    self._warn_of_skew()

    def _warn_of_skew(self) -> None:
        """Warn once if the noise contradicts the declaration of the coupler."""
        coupler, shape = self.stream.coupler, self.stream.data.data.shape[1:]
        rows = [row for row in self.context.record.rows if "noises" in row]
        known = not coupler.preserves_noise_marginal or is_skewed(rows[: len(rows) // 2], shape)
        if not known and is_skewed(rows, shape):
            self.context.warn(
                f"{label_of(coupler)} declares preserves_noise_marginal, but the noise that it "
                "assigns is not N(0, I), see noise_mean, noise_variance and noise_worst in "
                "metrics.jsonl; correct the coupler, or do not declare it"
            )

    def _write(self, row: dict[str, Any]) -> float | None:
        """Write down a row; return its loss, where it has one."""
        self.context.record.log(row)
        return row.get("loss")

    def _by_sigma_is_due(self, every: int) -> bool:
        """Whether a part of the training, of which there are ``ROWS``, ended with the last step.

        Such a step has a row whatever the clock says, since the losses must have been read: none
        that is not finite is written.

        Args:
            every: steps between two rows.
        """
        images, total = self.trainer.images, self.stream.total
        has_row = self.trainer.steps % every == 0 or images >= total
        return has_row and reached(-(-total // ROWS), images, every * self.batch_size, total)

    def _write_by_sigma(self) -> None:
        """Log the loss by noise level since the last such row; collective."""
        losses = by_sigma(self.objective, self.trainer.by_quantile.sums())
        self.trainer.by_quantile.begin()
        if losses:
            self._write({"images": self.trainer.images, "loss_by_sigma": losses})

    def _snapshot_is_due(self, count: int) -> bool:
        """Whether the last batch, of ``count`` images, came to a snapshot."""
        every = self.trainer.average.snapshot_images
        return every > 0 and reached(every, self.trainer.images, count, self.stream.total)

    @contextmanager
    def _remedied(self) -> Iterator[None]:
        """Say what is left, and what to try, where training diverged."""
        try:
            yield
        except DivergedError as error:
            kept = "kept" if (self.context.folder / CHECKPOINT).exists() else "not yet written"
            raise DivergedError(
                f"{error}: the last good checkpoint is {kept}; try optimizer.learning_rate below "
                f"{self.trainer.settings.learning_rate:g}, or optimizer.gradient_clip = 1.0"
            ) from error


def restore(trainer: Trainer, record: Record) -> None:
    """Resume a training from its newest checkpoint, if there is one.

    Raises:
        DataError: all checkpoints are damaged, or of another version of genkit.
    """
    found = record.restore()
    if found is None:
        return
    try:
        trainer.restore(found.tensors, found.numbers)
    except (KeyError, RuntimeError, ValueError) as error:
        raise DataError(
            f"the checkpoint must be of this training, and was written by another version of "
            f"genkit or damaged: {error}; delete {record.path(CHECKPOINT)} and older ones to train "
            "this stage from its beginning"
        ) from error


class _Losses:
    """Losses since the last row, and what that took.

    Args:
        trainer: whose they are.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._begin()

    def _begin(self) -> None:
        self.waited = 0.0
        self._sum = 0.0
        self._begun, self._at = time.monotonic(), self._trainer.images
        self._first = self._read = self._trainer.steps

    def leave_out(self, seconds: float) -> None:
        """Exclude time that was not spent on training."""
        self._begun += seconds

    def read(self) -> float:
        """Return the mean loss since the last reading."""
        loss = self._trainer.mean_loss()
        self._sum += loss * (self._trainer.steps - self._read)
        self._read = self._trainer.steps
        return loss

    def row(self) -> dict[str, Any]:
        """Return the row of what was read, and begin the next."""
        images, seconds = self._trainer.images, time.monotonic() - self._begun
        row = {
            "images": images,
            "loss": self._sum / (self._read - self._first),
            "images_per_second": round((images - self._at) / seconds, 1),
            "seconds_waited_for_pairs": round(self.waited, 4),
        }
        self._begin()
        return row
