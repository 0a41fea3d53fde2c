"""The pool is coupled, the batch is a slice of it.

The pairs form one stream. Pool k holds the positions from k * pool_size on; batch i holds the
positions from i * batch_size on. The two need not divide each other: every pair is used exactly
once. What lies at a position depends on the seed and the position alone, so a stream can start
anywhere and does not depend on timing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genkit.errors import DataError
from genkit.interfaces import Augmentation, Coupler
from genkit.tensors import require_finite
from genkit.types import Batch


@dataclass(frozen=True)
class Pool:
    """Images with the noise that was assigned to each.

    Attributes:
        batch: ``[N]`` items with ``quantile``.
        noise: ``[N, *shape]`` unit noise; noise k belongs to item k.
        seconds: that the coupler took.
    """

    batch: Batch
    noise: Tensor
    seconds: float


@dataclass(frozen=True)
class PairStream:
    """The stream of pairs.

    Attributes:
        data: all items.
        coupler: decides who meets whom.
        augmentation: applied before the pairing, or None.
        pool_size: pairs that are coupled together.
        total: length of the stream; the last pool ends with it.
        generator: of a purpose and an index, such as ``generator("noise", 3)``.
    """

    data: Batch
    coupler: Coupler
    augmentation: Augmentation | None
    pool_size: int
    total: int
    generator: Callable[..., torch.Generator]

    def items(self, start: int, stop: int) -> Tensor:
        """Return which items stand at positions of the stream: shuffled anew in each epoch."""
        count = len(self.data)
        found = []
        while start < stop:
            epoch, offset = divmod(start, count)
            order = torch.randperm(count, generator=self.generator("order", epoch))
            found.append(order[offset : offset + stop - start])
            start += len(found[-1])
        return torch.cat(found)

    def pool(self, index: int) -> Pool:
        """Couple one pool.

        Raises:
            DataError: an image, a noise or a cost is not finite, or the coupler returned
                indices that make no pairs; names the pool.
        """
        start = index * self.pool_size
        items = self.items(start, min(start + self.pool_size, self.total))
        batch = self.data[items]
        try:
            if self.augmentation is not None:
                batch = self.augmentation.augment(batch, self.generator("augmentation", index))
            require_finite(batch.data, "image")
            noise = torch.randn(batch.data.shape, generator=self.generator("noise", index))
            begun = time.perf_counter()
            pairs = self.coupler.pair(batch, noise, self.generator("coupling", index))
            seconds = time.perf_counter() - begun
        except DataError as error:
            raise DataError(f"pool {index}: {error}") from error
        if len(pairs.data) != len(batch) or len(pairs.noise) != len(batch):
            raise DataError(
                f"pool {index}: coupler {type(self.coupler).__name__} returned {len(pairs.data)} "
                f"images and {len(pairs.noise)} noises for a pool of {len(batch)}"
            )
        quantile = torch.rand(
            len(batch), generator=self.generator("quantile", index), dtype=torch.float64
        )
        tiny = torch.finfo(torch.float64).eps
        paired = replace(batch[pairs.data], quantile=quantile.clamp(tiny, 1 - tiny))
        return Pool(paired, noise[pairs.noise], seconds)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[tuple[Batch, Tensor, float]]:
        """Yield batches from position ``start`` on; the next pool is coupled meanwhile.

        Yields:
            A batch, its noise, and the seconds that the caller waited for a pool.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="pairing") as worker:
            upcoming: Future[Pool] | None = None
            pool, held = None, -1
            for begin in range(start, self.total, batch_size):
                parts: list[tuple[Batch, Tensor]] = []
                waited = 0.0
                position, end = begin, min(begin + batch_size, self.total)
                while position < end:
                    index, offset = divmod(position, self.pool_size)
                    if pool is None or index != held:
                        begun = time.perf_counter()
                        future = upcoming or worker.submit(self.pool, index)
                        pool, held = future.result(), index
                        waited += time.perf_counter() - begun
                        more = (index + 1) * self.pool_size < self.total
                        upcoming = worker.submit(self.pool, index + 1) if more else None
                    chosen = slice(offset, offset + end - position)
                    parts.append((pool.batch[chosen], pool.noise[chosen]))
                    position += len(parts[-1][1])
                yield _join([b for b, _ in parts]), torch.cat([n for _, n in parts]), waited


@contextmanager
def core_for_pairing() -> Iterator[None]:
    """Leave one core to the coupler where torch would take all: sharing one slows down both."""
    threads = torch.get_num_threads()
    if threads > 1 and threads >= (os.cpu_count() or 1):
        torch.set_num_threads(threads - 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _join(batches: list[Batch]) -> Batch:
    """Return the items of several slices of the stream, in their order."""

    def joined(parts: list[Tensor | None]) -> Tensor | None:
        known = [part for part in parts if part is not None]
        return torch.cat(known) if known else None

    return Batch(
        torch.cat([batch.data for batch in batches]),
        joined([batch.labels for batch in batches]),
        joined([batch.sources for batch in batches]),
        joined([batch.quantile for batch in batches]),
    )
