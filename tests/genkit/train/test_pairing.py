"""The stream of pairs: every pair once, anywhere, whatever the timing."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from genkit.errors import DataError
from genkit.independent import Random
from genkit.interfaces import Augmentation, Coupler
from genkit.random import generator
from genkit.train.pairing import PairStream, core_for_pairing
from genkit.types import Batch, Pairs


@dataclass(frozen=True, kw_only=True)
class Shuffle(Coupler):
    """A random permutation, solved with a random delay."""

    delay: ClassVar[float] = 0.0

    def pair(self, batch, noise, generator):
        time.sleep(self.delay * float(torch.rand(())))
        return Pairs(torch.arange(len(batch)), torch.randperm(len(noise), generator=generator))


@dataclass(frozen=True, kw_only=True)
class Slow(Shuffle):
    """Takes its time."""

    delay: ClassVar[float] = 0.02


@dataclass(frozen=True, kw_only=True)
class Broken(Coupler):
    """Loses half of the pool."""

    def pair(self, batch, noise, generator):
        return Pairs(torch.arange(len(batch) // 2), torch.arange(len(batch) // 2))


@dataclass(frozen=True, kw_only=True)
class Double(Augmentation):
    """Twice the image."""

    def augment(self, batch, generator):
        return batch.with_data(batch.data * 2)


def numbered(count: int) -> Batch:
    return Batch(torch.arange(count, dtype=torch.float32)[:, None], labels=torch.arange(count))


def stream(coupler=None, *, count=1000, pool=512, total=1700, augmentation=None) -> PairStream:
    return PairStream(
        numbered(count),
        coupler or Shuffle(),
        augmentation,
        pool,
        total,
        lambda *purpose: generator(0, *purpose),
    )


def gathered(batches) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batches = list(batches)
    return (
        torch.cat([b.data for b, _, _ in batches]),
        torch.cat([n for _, n, _ in batches]),
        torch.cat([b.quantile for b, _, _ in batches]),
    )


@pytest.mark.parametrize(
    ("pool", "batch", "total"), [(512, 384, 1700), (512, 512, 1024), (7, 5, 23), (512, 300, 100)]
)
def test_every_pair_is_used_exactly_once_in_order(pool, batch, total):
    pairs = stream(pool=pool, total=total)
    pools = [pairs.pool(k) for k in range(-(-total // pool))]
    data, noise, quantile = gathered(pairs.batches(batch))
    assert len(data) == total
    assert torch.equal(data, torch.cat([p.batch.data for p in pools]))
    assert torch.equal(noise, torch.cat([p.noise for p in pools]))
    assert torch.equal(quantile, torch.cat([p.batch.quantile for p in pools]))


def test_all_batches_but_the_last_are_full():
    sizes = [len(n) for _, n, _ in stream(total=1000).batches(384)]
    assert sizes == [384, 384, 232]


def test_a_pool_holds_the_noise_that_was_drawn_for_it():
    pairs = stream(pool=64, total=64)
    drawn = torch.randn((64, 1), generator=generator(0, "noise", 0))
    assert torch.equal(pairs.pool(0).noise.sort(dim=0).values, drawn.sort(dim=0).values)


def test_each_item_appears_once_an_epoch():
    items = stream(count=100).items(0, 300)
    for epoch in items.split(100):
        assert torch.equal(epoch.sort().values, torch.arange(100))
    assert not torch.equal(items[:100], items[100:200])


def test_a_stream_can_start_anywhere():
    whole = list(stream().batches(384))
    rest = list(stream().batches(384, start=768))
    for (a, m, _), (b, n, _) in zip(whole[2:], rest, strict=True):
        assert torch.equal(a.data, b.data)
        assert torch.equal(m, n)
        assert torch.equal(a.quantile, b.quantile)


def test_timing_changes_nothing():
    fast, slow = gathered(stream(Shuffle()).batches(100)), gathered(stream(Slow()).batches(100))
    assert all(torch.equal(a, b) for a, b in zip(fast, slow, strict=True))


def test_labels_travel_with_their_images():
    for batch, _, _ in stream().batches(384):
        assert torch.equal(batch.data[:, 0].long(), batch.labels)


def test_the_next_pool_is_coupled_in_the_background_and_no_further():
    seen: list[tuple[int, str]] = []

    class Watching(PairStream):
        def pool(self, index):
            seen.append((index, threading.current_thread().name))
            return super().pool(index)

    pairs = Watching(**vars(stream(pool=100, total=1000)))
    batches = pairs.batches(100)
    next(batches)
    deadline = time.monotonic() + 10
    while len(seen) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert [index for index, _ in seen] == [0, 1]
    assert all(name.startswith("pairing") for _, name in seen)
    batches.close()


def test_images_are_augmented_before_they_are_paired():
    plain, doubled = stream().pool(0), stream(augmentation=Double()).pool(0)
    assert torch.equal(doubled.batch.data, 2 * plain.batch.data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named_with_pool_and_index(value):
    pairs = stream(Random(), count=1000, pool=100)
    bad = int(pairs.items(300, 400)[17])
    pairs.data.data[bad] = value
    with pytest.raises(DataError, match=r"pool 3: image 17 of 100 contains (nan|inf)"):
        list(pairs.batches(100))


def test_a_coupler_that_loses_images_is_caught():
    with pytest.raises(DataError, match="pool 0: coupler Broken returned 256 images"):
        stream(Broken()).pool(0)


def test_quantiles_lie_strictly_inside_the_unit_interval():
    _, _, quantile = gathered(stream(total=50_000, pool=10_000).batches(10_000))
    assert quantile.dtype == torch.float64
    assert quantile.min() > 0
    assert quantile.max() < 1
    assert abs(float(quantile.mean()) - 0.5) < 0.01


@pytest.mark.parametrize(("cores", "threads", "left"), [(4, 4, 3), (4, 1, 1), (8, 4, 4), (1, 1, 1)])
def test_a_core_is_left_to_the_coupler_where_torch_takes_all(monkeypatch, cores, threads, left):
    now = [threads]
    monkeypatch.setattr("genkit.train.pairing.os.cpu_count", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    with core_for_pairing():
        assert now[-1] == left
    assert now[-1] == threads
