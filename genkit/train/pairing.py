"""Stream of pairs: pools are coupled, and batches are slices of them.

Pool k contains the positions of the stream from k * pool_size on, and batch i those from
i * batch_size on. Neither size must divide the other, and every pair is used once. The pair at a
position is a function of seed and position. So a stream can start at any position, and any rank can
couple the pools in any order.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from genkit.blame import fault, forbid_changes, plugin_errors, require_type
from genkit.errors import DataError
from genkit.interfaces import (
    AnyCoupler,
    Augmentation,
    BoundCoupler,
    BoundDatasetCoupler,
    Coupler,
    DatasetCoupler,
)
from genkit.pairs import pairs_of, require_unchanged
from genkit.tensors import require_finite, to_float
from genkit.train.ahead import prefetch
from genkit.train.diagnostics import PoolReport, report
from genkit.train.distributed import LOCAL, Exchange, Solution
from genkit.train.strata import stratify
from genkit.types import Batch


@dataclass(frozen=True)
class Pool:
    """A pool of images, with the noise assigned to each of them.

    Attributes:
        batch: ``[N]`` items with ``quantile``.
        noise: ``[N, *shape]`` unit-variance noise; sample k is assigned to item k.
        report: measurements of the pairs.
    """

    batch: Batch
    noise: Tensor
    report: PoolReport


@dataclass(frozen=True)
class PairStream:
    """The stream of pairs.

    Attributes:
        data: all items of the data set.
        coupler: coupler of the recipe, with its declarations.
        bound: result of the coupler's ``bind``, which assigns noise samples to images.
        augmentation: augmentation applied before coupling, or None.
        pool_size: number of pairs that are coupled together.
        total: length of the stream in pairs; the last pool may be shorter.
        generator: function of a purpose and an index, such as ``generator("noise", 3)``.
        images_per_class: number of consecutive items of the same class in the order of items; None
            for an order independent of classes.
        device: device of the coupler.
    """

    data: Batch
    coupler: AnyCoupler
    bound: BoundCoupler | BoundDatasetCoupler
    augmentation: Augmentation | None
    pool_size: int
    total: int
    generator: Callable[..., torch.Generator]
    images_per_class: int | None = None
    device: torch.device = torch.device("cpu")  # noqa: RUF009, immutable

    def items(self, start: int, stop: int) -> Tensor:
        """Return the indices of the items at positions [start, stop); every epoch is shuffled."""
        parts = []
        while start < stop:
            epoch, offset = divmod(start, len(self.data))
            parts.append(self._order(epoch)[offset : offset + stop - start])
            start += len(parts[-1])
        return torch.cat(parts)

    def inputs(self, index: int) -> tuple[Batch, Tensor]:
        """Return the coupler's inputs for a pool: images and noise, on the CPU."""
        start, stop = self._span(index)
        if self._over_dataset:
            batch, noises = self._whole, stop - start
        else:
            batch = self._augmented(_decoded(self.data[self.items(start, stop)]), index)
            require_finite(batch.data, "image")
            noises = (stop - start) * self._noises_per_image
        shape = (noises, *batch.data.shape[1:])
        return batch, torch.randn(shape, generator=self.generator("noise", index))

    def solve(self, index: int, batch: Batch, noise: Tensor) -> Solution:
        """Couple the inputs of a pool.

        Raises:
            DataError: an image, a noise sample or a cost is not finite, or the coupler changed its
                arguments or returned pairs that contradict its declarations.
        """
        begun = time.perf_counter()
        with self._own_stream():
            # Copies, so that a coupler that changes its arguments in place cannot affect training.
            whole = self._over_dataset
            images = self._data_there if whole else batch.to(self.device, copy=True)
            there = noise.to(self.device, copy=True)
            generator = self.generator("coupling", index)
            # The whole data set is too large to be copied and compared for every pool.
            with forbid_changes(self.coupler, images=images, noise=there):
                pairs = pairs_of(self.coupler, self.bound, images, there, generator)
        seconds = time.perf_counter() - begun
        require_unchanged(self.coupler, "noise", Batch(there), Batch(noise))
        if not whole:
            require_unchanged(self.coupler, "images", images, batch)
        return Solution(pairs, seconds)

    def assemble(self, index: int, batch: Batch, noise: Tensor, solved: Solution) -> Pool:
        """Return the pool, given its inputs and their pairs."""
        pairs = solved.pairs
        paired, assigned = batch[pairs.data], noise[pairs.noise]
        # Without a coupler, an image would have the first noise sample drawn for it. With a dataset
        # coupler, no noise is drawn for an image; a shift by one gives noise that is independent.
        unpaired = (
            assigned.roll(1, dims=0)
            if self._over_dataset
            else noise[pairs.data * self._noises_per_image]
        )
        start, stop = self._span(index)
        measured = report(index, start, paired.data, unpaired, assigned, pairs, solved.seconds)
        if self._over_dataset:
            paired = self._augmented(paired, index)
        if self.images_per_class is not None:  # otherwise a batch would contain few classes
            mixed = torch.randperm(len(assigned), generator=self.generator("mixing", index))
            paired, assigned = paired[mixed], assigned[mixed]
        quantile = torch.rand(
            stop - start, generator=self.generator("quantile", index), dtype=torch.float64
        )
        tiny = torch.finfo(torch.float64).eps  # torch.rand may return 0, whose noise level is 0
        return Pool(replace(paired, quantile=quantile.clamp(tiny, 1 - tiny)), assigned, measured)

    def pool(self, index: int) -> Pool:
        """Couple one pool.

        Raises:
            DataError: as for :meth:`solve`, with the index of the pool.
        """
        with _named(index):
            batch, noise = self.inputs(index)
            return self.assemble(index, batch, noise, self.solve(index, batch, noise))

    def pools(self, first: int, ahead: int, exchange: Exchange) -> Generator[Future[Pool]]:
        """Yield the futures of the pools from ``first`` on, which threads couple in advance."""

        def prepare(index: int) -> tuple[Batch, Tensor, Solution | Exception | None]:
            with _named(index):
                batch, noise = self.inputs(index)
            if not exchange.solves(index):
                return batch, noise, None
            try:
                with _named(index):  # here: other ranks have no traceback that shows the plugin
                    return batch, noise, self.solve(index, batch, noise)
            # Any error must be broadcast: other ranks wait for the pairs of this pool.
            except Exception as error:  # noqa: BLE001
                return batch, noise, error

        def finish(index: int, prepared: Future[tuple[Batch, Tensor, Any]]) -> Pool:
            batch, noise, result = prepared.result()
            return self.assemble(index, batch, noise, exchange.share(index, result))

        last = -(-self.total // self.pool_size)
        together = exchange is not LOCAL
        self._waiting.append(deque())
        waiting = self._waiting[-1]
        return prefetch(range(first, last), prepare, finish, ahead, together, waiting)

    def settle(self) -> None:
        """Wait until no pool is being coupled. Coupling continues with the next batch."""
        wait([future for waiting in self._waiting for future in waiting])

    def batches(
        self, batch_size: int, start: int = 0, ahead: int = 2, exchange: Exchange = LOCAL
    ) -> Generator[tuple[Batch, Tensor, list[PoolReport]]]:
        """Yield batches from position ``start`` on, while later pools are coupled.

        Args:
            batch_size: number of pairs in a batch; the last may have fewer.
            start: position of the first pair.
            ahead: number of pools coupled in advance besides the one in use, at least 1.
            exchange: exchange of pairs with other ranks.

        Yields:
            Batch, its noise, and the reports of the pools that begin in this batch. Each report
            contains the time for which the caller waited for the pool.
        """
        current, pool = start // self.pool_size - 1, None
        with closing(self.pools(current + 1, ahead, exchange)) as pools:
            for begin in range(start, self.total, batch_size):
                parts: list[tuple[Batch, Tensor]] = []
                reports: list[PoolReport] = []
                position, end = begin, min(begin + batch_size, self.total)
                while position < end:
                    index, offset = divmod(position, self.pool_size)
                    if pool is None or index != current:
                        begun = time.perf_counter()
                        pool, current = next(pools).result(), index
                        waited = time.perf_counter() - begun
                        reports.append(replace(pool.report, seconds_waited=waited))
                    chosen = slice(offset, offset + end - position)
                    parts.append((pool.batch[chosen], pool.noise[chosen]))
                    position += len(parts[-1][1])
                yield _join([b for b, _ in parts]), torch.cat([n for _, n in parts]), reports

    @property
    def _over_dataset(self) -> bool:
        """Whether the coupler chooses images of the whole data set for a pool of noise."""
        return isinstance(self.coupler, DatasetCoupler)

    @property
    def _noises_per_image(self) -> int:
        return self.coupler.noises_per_image if isinstance(self.coupler, Coupler) else 1

    def _span(self, index: int) -> tuple[int, int]:
        """Return the first position of a pool, and the position after its last one."""
        start = index * self.pool_size
        return start, min(start + self.pool_size, self.total)

    def _augmented(self, batch: Batch, index: int) -> Batch:
        """Return the batch on the CPU, augmented on the device of the coupler."""
        if self.augmentation is None:
            return batch
        generator = self.generator("augmentation", index)
        with self._own_stream():
            augmented = self.augmentation.augment(batch.to(self.device), generator)
            changed = require_type(self.augmentation, "augment", augmented, Batch)
            if len(changed) != len(batch):
                got = f"got {len(changed)}"
                raise fault(self.augmentation, f"must return all {len(batch)} items, {got}")
            return changed.to("cpu")

    def _own_stream(self) -> AbstractContextManager[object]:
        """Return a CUDA stream of this thread, so that coupling runs beside the training kernels.

        Each thread reuses its stream, since PyTorch's allocator has a cache for every stream.
        """
        if self.device.type != "cuda":
            return nullcontext()
        if not hasattr(self._streams, "own"):
            self._streams.own = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._streams.own)

    @cached_property
    def _waiting(self) -> list[deque[Future[Pool]]]:
        """Futures that are not yet yielded, for each call of :meth:`pools`."""
        return []

    @cached_property
    def _streams(self) -> threading.local:
        return threading.local()

    @cached_property
    def _whole(self) -> Batch:
        """All items of the data set as float32, on the CPU."""
        return _decoded(self.data)

    @cached_property
    def _data_there(self) -> Batch:
        """All items of the data set as float32, on the device of the coupler."""
        return self._whole.to(self.device)

    @cached_property
    def _order(self) -> Callable[[int], Tensor]:
        """Function from an epoch to the order of its items, with a cache of the last two epochs."""
        return lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> Tensor:
        generator = self.generator("order", epoch)
        order = torch.randperm(len(self.data), generator=generator)
        if self.images_per_class is None or self.data.labels is None:
            return order
        return stratify(order, self.data.labels, self.images_per_class, generator)


def _decoded(batch: Batch) -> Batch:
    return batch.with_data(to_float(batch.data))


@contextmanager
def _named(index: int) -> Iterator[None]:
    """Add the index of the pool to a DataError that is raised in the block."""
    try:
        with plugin_errors():
            yield
    except DataError as error:
        raise DataError(f"pool {index}: {error}", error.code) from error


def _join(batches: list[Batch]) -> Batch:
    """Return the items of several slices as one batch."""

    def joined(name: str) -> Tensor | None:
        parts = [v for batch in batches if (v := getattr(batch, name)) is not None]
        return torch.cat(parts) if parts else None

    names = [field.name for field in fields(Batch) if field.name != "data"]
    return Batch(torch.cat([b.data for b in batches]), **{name: joined(name) for name in names})
