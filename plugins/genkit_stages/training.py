"""The loop of the stage ``train``: steps, rows, checkpoints and snapshots."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from genkit.artifacts import NetworkFile, Record
from genkit.artifacts.layout import CHECKPOINT, METRICS
from genkit.artifacts.record import Row
from genkit.blame import label_of
from genkit.errors import DataError, DivergedError, InterruptedRun
from genkit.interfaces import Context, Objective
from genkit.machine import is_of_the_disk
from genkit.plugin.registry import in_words
from genkit.train.diagnostics import PoolReport, is_skewed
from genkit.train.distributed import LOCAL, RankExchange
from genkit.train.pairing import PairStream
from genkit.train.trainer import AVERAGED, Trainer
from genkit_stages.callbacks import Callbacks, is_due
from genkit_stages.loss_by_sigma import ROWS, by_sigma

MAX_POOL_ROWS = 10_000
"""Maximum number of pools of a training run that logs every pool. Longer runs log evenly spaced
pools, fewer than twice this number. Chosen, not tuned."""

_PENDING = "pending_callbacks"
"""Key of a checkpoint's numbers: size of the last batch if its callbacks were not all called."""

_READ_SECONDS = 1.0  # between two readings of the loss, each of which synchronizes with the device
_FIRST_PLOTS = 30.0  # seconds of training before the first plots; chosen, not tuned
_PLOT_SHARE = 0.01  # maximum share of the training time spent on plots; chosen, not tuned


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Train on all pairs of a stream. Collective: every rank runs the same loop.

    Attributes:
        context: context of the stage.
        trainer: trainer, new or restored from a checkpoint.
        objective: objective of the trainer.
        stream: pairs to train on.
        batch_size: batch size of an optimizer step.
        pools_ahead: number of pools coupled ahead of training.
        checkpoint_seconds: time between checkpoints, in seconds.
        callbacks: callbacks of the stage, not yet bound.
        pending: number of images of the last batch before the checkpoint if its callbacks are to be
            called again, see :func:`restore`; otherwise 0.
        file: function that returns the file of the averaged network, for checkpoints.
        draw: function that draws the plots from all rows logged so far.
    """

    context: Context
    trainer: Trainer
    objective: Objective
    stream: PairStream
    batch_size: int
    pools_ahead: int
    checkpoint_seconds: float
    callbacks: Callbacks
    pending: int
    file: Callable[[], NetworkFile]
    draw: Callable[[], None]

    def run(self) -> None:
        """Train, write a checkpoint at the end, and draw the plots.

        Raises:
            DivergedError: a loss or a gradient was not finite; nothing was saved after it.
            InterruptedRun: the user requested a stop; everything is saved.
        """
        trainer, total, group = self.trainer, self.stream.total, self.context.world.new_group()
        # 200 rows per training run, and at least one every 50,000 images so that a long run can be
        # monitored.
        every = max(1, min(total // 200, 50_000) // self.batch_size)
        first_image, loss = trainer.images, None
        self.callbacks.bind()
        if self.pending:
            self._call(self.callbacks.due(first_image, self.pending), self.pending)
        saved = read = self._clock()
        next_plots = saved + _FIRST_PLOTS
        losses = _Losses(trainer)
        exchange = RankExchange(group) if group else LOCAL
        batches = self.stream.batches(self.batch_size, first_image, self.pools_ahead, exchange)
        with closing(batches):
            for batch, noise, pools in batches:
                self._log_pools([pool for pool in pools if pool.images >= first_image])
                losses.waited += sum(pool.seconds_waited for pool in pools)
                trainer.step(batch, noise)
                now, done = self._clock(), trainer.images >= total
                stop = self.context.stop_requested() and not done
                due = stop or done or now - saved >= self.checkpoint_seconds
                row, snapshot = due or trainer.steps % every == 0, self._snapshot_is_due(len(batch))
                callbacks = self.callbacks.due(trainer.images, len(batch))
                if row or snapshot or callbacks or now - read >= _READ_SECONDS:
                    with self._advise_on_divergence():
                        loss, read = losses.read(), now
                if row:
                    loss = self._log(losses.row())
                if self._by_sigma_is_due(every):
                    self._log_by_sigma()
                self.context.advance(trainer.images, total, "images", loss, trainer.steps)
                if self.context.world.is_main and snapshot:
                    trainer.average.snapshot(self.context.folder, trainer.images)
                # Called before the checkpoint: a resumed run would log rows after it again.
                if callbacks:
                    called_at = self._clock()
                    self._call(callbacks, len(batch))
                    losses.exclude(self._clock() - called_at)
                if due:
                    self._save()
                saved = now if due else saved
                if due and not done and not stop and now >= next_plots:
                    seconds = self._draw()
                    losses.exclude(seconds)
                    next_plots = now + seconds / _PLOT_SHARE
                if stop:
                    raise InterruptedRun(f"{trainer.images:,} of {total:,} images")
        self._draw(final=True)

    def _save(self, pending: int = 0) -> None:
        """Write a checkpoint; collective.

        Args:
            pending: number of images of the last batch if its callbacks are to be called again.
        """
        network = {**self.file().metadata(), "prefix": AVERAGED}
        tensors, numbers = self.trainer.state()
        numbers |= {_PENDING: pending} if pending else {}
        self.context.record.checkpoint(tensors, numbers, network)

    def _call(self, due: Sequence[int], count: int) -> None:
        """Call callbacks after a batch of ``count`` images, and save if they end the run.

        If a callback raises an error, all callbacks of this batch are called again when the run is
        resumed. With several processes nothing is saved then, because the other ranks wait for
        rank 0; the run resumes from the checkpoint before. Collective.
        """
        try:
            stop = self.callbacks.call(due)
        except Exception:
            if self.context.world.size == 1:
                self._save(pending=count)
            raise
        if stop is not None:
            self._save()
            raise stop

    def _draw(self, *, final: bool = False) -> float:
        """Draw the plots on rank 0, and return the seconds that this took, equal on all ranks.

        An error is only logged as a warning, because a plot must not end a training run. If a disk
        fails at its end, the error is raised, because the next call draws the final plots then.
        """
        start = self._clock()
        if self.context.world.is_main:
            try:
                self.draw()
            except Exception as error:
                if final and is_of_the_disk(error):
                    raise
                rows = self.context.record.path(METRICS)
                hint = (
                    f"; {rows} may be damaged" if isinstance(error, (KeyError, TypeError)) else ""
                )
                self.context.warn(f"the plots were not drawn: {in_words(error)}{hint}")
        return self._clock() - start

    def _clock(self) -> float:
        """Return the time of rank 0 in seconds, so that all ranks make the same decisions."""
        return self.context.world.broadcast(time.monotonic())

    def _log_pools(self, pools: list[PoolReport]) -> None:
        """Log pools; in a long run only every n-th, because the whole file is read at the end."""
        interval = max(1, -(-self.stream.total // self.stream.pool_size) // MAX_POOL_ROWS)
        for pool in pools:
            if pool.pool % interval == 0:
                self._log(pool.row())
                # Only when the number of rows has doubled, because a check reads all rows.
                if (pool.pool // interval + 1).bit_count() == 1:
                    self._warn_about_skew()

    def _warn_about_skew(self) -> None:
        """Warn once if the assigned noise is not N(0, I) although the coupler declares it."""
        coupler, shape = self.stream.coupler, self.stream.data.data.shape[1:]
        rows = [row for row in self.context.record.rows if "noises" in row]
        expected = not coupler.preserves_noise_marginal
        # The first half of the rows was checked before; if it was skewed, a warning was logged.
        warned = is_skewed(rows[: len(rows) // 2], shape)
        if not expected and not warned and is_skewed(rows, shape):
            self.context.warn(
                f"{label_of(coupler)} declares preserves_noise_marginal, but the noise that it "
                "assigns is not N(0, I), see noise_mean, noise_variance and noise_worst in "
                "metrics.jsonl; correct the coupler or its declaration"
            )

    def _log(self, row: dict[str, Any]) -> float | None:
        """Log a row, and return its loss if it has one."""
        self.context.record.log(row)
        return row.get("loss")

    def _by_sigma_is_due(self, every: int) -> bool:
        """Return whether the loss by noise level is to be logged, which is done ``ROWS`` times.

        This is at steps that log a row, because their losses are known to be finite.

        Args:
            every: number of steps between two logged rows.
        """
        images, total = self.trainer.images, self.stream.total
        has_row = self.trainer.steps % every == 0 or images >= total
        return has_row and is_due(-(-total // ROWS), images, every * self.batch_size, total)

    def _log_by_sigma(self) -> None:
        """Log the mean loss at each noise level since the last such row; collective."""
        losses = by_sigma(self.objective, self.trainer.by_quantile.sums())
        self.trainer.by_quantile.begin()
        if losses:
            self._log({"images": self.trainer.images, "loss_by_sigma": losses})

    def _snapshot_is_due(self, count: int) -> bool:
        """Return whether a snapshot is due after a batch of ``count`` images."""
        every = self.trainer.average.snapshot_images
        return every > 0 and is_due(every, self.trainer.images, count, self.stream.total)

    @contextmanager
    def _advise_on_divergence(self) -> Iterator[None]:
        """If training diverges, add remedies to the error, and whether a checkpoint exists."""
        try:
            yield
        except DivergedError as error:
            kept = "kept" if (self.context.folder / CHECKPOINT).exists() else "not yet written"
            rate = self.trainer.settings.learning_rate
            hint = f"optimizer.learning_rate below {rate:g}, or optimizer.gradient_clip = 1.0"
            if self.trainer.finite_images == 0:
                hint = "other noise levels or data, since the weights are still the initial ones"
            text = f"{error}: the last good checkpoint is {kept}; try {hint}"
            raise DivergedError(text) from error


def restore(trainer: Trainer, record: Record) -> int:
    """Restore a trainer and the valid rows from the newest checkpoint, if there is one.

    Returns:
        Number of images of the last batch if its callbacks are to be called again, and their rows
        are removed; otherwise 0.

    Raises:
        DataError: all checkpoints are corrupt, or from a different version of genkit.
    """
    checkpoint = record.restore()
    pending = 0
    try:
        if checkpoint is not None:
            trainer.restore(checkpoint.tensors, checkpoint.numbers)
            pending = int(checkpoint.numbers.get(_PENDING, 0))
    except (KeyError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{record.path(CHECKPOINT)} must be a checkpoint of this stage, but is corrupt or from "
            f"a different version of genkit: {error}; delete all checkpoints to restart the stage"
        ) from error
    record.resume(lambda row: _precedes(row, trainer.images, bool(pending)))
    return pending


def _precedes(row: Row, images: int, pending: bool) -> bool:
    """Return whether a row was logged before a checkpoint at ``images`` images.

    The row of a pool that begins at the checkpoint does not count, because it is logged again. The
    same holds for the rows of callbacks at the checkpoint if their calls are ``pending``.
    """
    again = "pool" in row or (pending and "callback" in row)
    return bool(images and row.get("images", math.inf) + again <= images)


class _Losses:
    """Accumulate losses and times since the last row.

    Args:
        trainer: trainer whose losses are read.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._begin()

    def _begin(self) -> None:
        self.waited = 0.0
        self._sum = 0.0
        self._start_time, self._start_images = time.monotonic(), self._trainer.images
        self._start_step = self._last_step = self._trainer.steps

    def exclude(self, seconds: float) -> None:
        """Exclude ``seconds`` from the training time."""
        self._start_time += seconds

    def read(self) -> float:
        """Return the mean loss since the last reading."""
        loss = self._trainer.mean_loss()
        self._sum += loss * (self._trainer.steps - self._last_step)
        self._last_step = self._trainer.steps
        return loss

    def row(self) -> dict[str, Any]:
        """Return a row with the mean of the losses read, and start the next row."""
        images, seconds = self._trainer.images, time.monotonic() - self._start_time
        row = {
            "images": images,
            "loss": self._sum / (self._last_step - self._start_step),
            "images_per_second": round((images - self._start_images) / seconds, 1),
            "seconds_waited_for_pairs": round(self.waited, 4),
        }
        self._begin()
        return row
