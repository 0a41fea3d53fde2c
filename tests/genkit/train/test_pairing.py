"""The stream of pairs: every pair once, anywhere, whatever the timing."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from genkit.errors import Code, DataError
from genkit.independent import Random
from genkit.interfaces import Augmentation, Coupler, DatasetCoupler
from genkit.random import generator
from genkit.train.ahead import reserve_core
from genkit.train.pairing import PairStream
from genkit.train.strata import stratify
from genkit.types import Batch, Pairs
from raising import raises_code


@dataclass(frozen=True, kw_only=True)
class Shuffle(Coupler):
    """A random permutation, solved with a random delay."""

    bijective = True
    delay: ClassVar[float] = 0.0

    def pair(self, batch, noise, generator):
        time.sleep(self.delay * float(torch.rand(())))
        return Pairs(torch.arange(len(batch)), torch.randperm(len(noise), generator=generator))


@dataclass(frozen=True, kw_only=True)
class Slow(Shuffle):
    """Takes its time."""

    delay: ClassVar[float] = 0.02


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


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_pools_are_coupled_in_the_background_and_no_further_than_asked(ahead):
    seen: list[tuple[int, str]] = []

    class Watching(PairStream):
        def solve(self, index, batch, noise):
            seen.append((index, threading.current_thread().name))
            return super().solve(index, batch, noise)

    pairs = Watching(**vars(stream(pool=100, total=1000)))
    batches = pairs.batches(100, ahead=ahead)
    next(batches)
    expected = list(range(min(10, 1 + ahead)))
    deadline = time.monotonic() + 10
    while len(seen) < len(expected) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert sorted(index for index, _ in seen) == expected
    assert all(name.startswith("pairing") for _, name in seen)
    batches.close()


def test_solving_several_pools_at_a_time_changes_nothing(monkeypatch):
    monkeypatch.setattr("genkit.train.ahead.os.cpu_count", lambda: 8)
    one = gathered(stream(Slow(), pool=50).batches(100, ahead=1))
    many = gathered(stream(Slow(), pool=50).batches(100, ahead=6))
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


def test_a_consumer_that_leaves_ends_the_threads():
    def at_work():
        return [t for t in threading.enumerate() if t.name.startswith(("pairing", "finishing"))]

    batches = stream(Slow(), pool=10).batches(10, ahead=5)
    next(batches)
    assert at_work()
    batches.close()
    deadline = time.monotonic() + 30
    while at_work() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not at_work()


def test_images_are_augmented_before_they_are_paired():
    plain, doubled = stream().pool(0), stream(augmentation=Double()).pool(0)
    assert torch.equal(doubled.batch.data, 2 * plain.batch.data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named_with_pool_and_index(value):
    pairs = stream(Random(), count=1000, pool=100)
    bad = int(pairs.items(300, 400)[17])
    pairs.data.data[bad] = value
    with raises_code(DataError, Code.NOT_FINITE, "pool 3", "image 17"):
        list(pairs.batches(100))


def test_quantiles_lie_strictly_inside_the_unit_interval():
    _, _, quantile = gathered(stream(total=50_000, pool=10_000).batches(10_000))
    assert quantile.dtype == torch.float64
    assert quantile.min() > 0
    assert quantile.max() < 1
    assert abs(float(quantile.mean()) - 0.5) < 0.01


@pytest.mark.parametrize(("cores", "threads", "left"), [(4, 4, 3), (4, 1, 1), (8, 4, 4), (1, 1, 1)])
def test_a_core_is_left_to_the_coupler_where_torch_takes_all(monkeypatch, cores, threads, left):
    now = [threads]
    monkeypatch.setattr("genkit.train.ahead.os.cpu_count", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    with reserve_core():
        assert now[-1] == left
    assert now[-1] == threads


@dataclass(frozen=True, kw_only=True)
class NearestOfThree(Coupler):
    """The nearest of three noises."""

    @property
    def noises_per_image(self):
        return 3

    def pair(self, batch, noise, generator):
        near = (noise.view(-1, 3) - batch.data).abs().argmin(dim=1)
        index = torch.arange(len(batch))
        return Pairs(index, 3 * index + near)


@dataclass(frozen=True, kw_only=True)
class NearestOfAll(DatasetCoupler):
    """The nearest image of the data set for each noise."""

    def choose(self, data, noise, generator):
        return (noise - data.data.T).abs().argmin(dim=1)


def test_a_coupler_may_have_several_noises_for_an_image():
    pairs = stream(NearestOfThree(), pool=50, total=100)
    pool = pairs.pool(0)
    drawn = torch.randn((150, 1), generator=generator(0, "noise", 0)).view(50, 3)
    near = (drawn - pool.batch.data).abs().argmin(dim=1)
    assert torch.equal(pool.noise[:, 0], drawn[torch.arange(50), near])
    first = (pool.batch.data - drawn[:, :1]).abs().mean()
    assert pool.report.cost_before == pytest.approx(float(first), rel=1e-5)


def test_a_coupler_may_choose_among_the_whole_data_set():
    pairs = stream(NearestOfAll(), count=5, pool=64, total=100, augmentation=Double())
    first, last = pairs.pool(0), pairs.pool(1)
    assert (len(first.noise), len(last.noise)) == (64, 36)
    noise = torch.randn((64, 1), generator=generator(0, "noise", 0))
    assert torch.equal(first.noise, noise)
    # The image is chosen as it is and augmented afterwards; its label comes with it.
    chosen = noise.round().clamp(0, 4)
    assert torch.equal(first.batch.data, 2 * chosen)
    assert torch.equal(first.batch.labels, chosen[:, 0].long())


CLASSES = torch.tensor([0] * 40 + [1] * 25 + [2] * 3 + [4] * 12)


def runs_of(labels):
    _, lengths = labels.unique_consecutive(return_counts=True)
    return lengths


def test_stratified_pools_hold_runs_of_a_class_and_every_item_once():
    order = torch.randperm(80, generator=generator(0, "a"))
    found = stratify(order, CLASSES, 8, generator(0, "b"))
    assert torch.equal(found.sort().values, torch.arange(80))
    # Two runs of one class may meet: each is then 8 long, but for the last of the class.
    runs = runs_of(CLASSES[found])
    assert len(runs) <= 5 + 4 + 1 + 2
    assert all(int(length) % 8 in {0, 1, 3, 4} for length in runs)
    again = stratify(order, CLASSES, 8, generator(0, "c"))
    assert not torch.equal(CLASSES[found], CLASSES[again])


def test_runs_of_one_are_a_plain_shuffle_of_whole_classes():
    order = torch.randperm(80, generator=generator(0, "a"))
    found = stratify(order, CLASSES, 1, generator(0, "b"))
    assert torch.equal(found.sort().values, torch.arange(80))
    assert len(runs_of(CLASSES[found])) > 30


def test_a_stratified_pool_gives_parts_worth_solving_and_mixed_batches():
    data = Batch(torch.randn(20_000, 1, generator=generator(0)), torch.arange(20_000) % 1000)

    def labels_of(images_per_class):
        pairs = PairStream(
            data,
            Random(),
            Random(),
            None,
            256,
            20_000,
            lambda *purpose: generator(0, *purpose),
            images_per_class=images_per_class,
        )
        return pairs.pool(3).batch.labels

    assert labels_of(None).bincount().max() < 8
    labels = labels_of(16)
    assert labels.bincount().max() >= 16
    assert len(labels.unique()) <= 2 * 256 // 16
    # A batch of the pool is no block of one class.
    assert len(labels[:64].unique()) > 10


def test_a_report_tells_what_the_coupler_did():
    pairs = stream(Shuffle(), pool=100, total=250)
    *_, last = pairs.batches(100)
    pool = pairs.pool(1)
    drawn = torch.randn((100, 1), generator=generator(0, "noise", 1))
    items = pairs.items(100, 200)[:, None].float()
    told = pool.report
    assert (told.pool, told.images, told.pairs) == (1, 100, 100)
    assert told.cost_before == pytest.approx(float((items - drawn).abs().mean()), rel=1e-6)
    after = (pool.batch.data - pool.noise).abs().mean()
    assert told.cost_after == pytest.approx(float(after), rel=1e-6)
    assert told.noises == 100
    assert told.noise_mean == pytest.approx(float(drawn.mean()), rel=1e-5)
    assert told.noise_variance == pytest.approx(float(drawn.var(correction=0)), rel=1e-5)
    assert told.noise_worst == pytest.approx(10 * abs(float(drawn.mean())), rel=1e-5)
    assert (told.gap, told.parts) == (None, None)
    row = told.row()
    assert row["reduction"] == pytest.approx(1 - told.cost_after / told.cost_before, rel=1e-5)
    (report,) = last[2]
    assert (report.pool, report.pairs) == (2, 50)


@pytest.mark.parametrize("size", [1, 2])
def test_tiny_pools_are_reported(size):
    row = stream(NearestOfAll(), pool=size, total=size).pool(0).report.row()
    assert row["pairs"] == size
    assert all(math.isfinite(v) for v in row.values() if isinstance(v, float))


def test_a_thread_keeps_its_stream_of_the_gpu(monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or len(made))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    on_gpu = PairStream(
        numbered(4), Random(), Random(), None, 2, 4, generator, device=torch.device("cuda", 1)
    )
    assert [on_gpu._own_stream() for _ in range(3)] == [1, 1, 1]
    other = []
    thread = threading.Thread(target=lambda: other.append(on_gpu._own_stream()))
    thread.start()
    thread.join()
    assert other == [2]
    assert made == [torch.device("cuda", 1)] * 2
