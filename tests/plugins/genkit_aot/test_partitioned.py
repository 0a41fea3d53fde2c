from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from genkit import tensors
from genkit.errors import Code, DataError, SettingError, UsageError
from genkit.independent import Random
from genkit.interfaces import Coupler, DatasetCoupler
from genkit.random import generator
from genkit.testing import check_coupler
from genkit.types import Batch, Pairs
from genkit_aot.hungarian import Hungarian
from genkit_aot.partitioned import Partitioned
from raising import breaks, raises_code

DATA = Path(__file__).parents[2] / "data"


@dataclass(frozen=True, kw_only=True)
class Shuffled(Coupler):
    """A permutation drawn from the generator."""

    bijective = True

    def pair(self, batch, noise, generator):
        tensors.pairwise_cost(batch.data, noise)
        tensors.require_same_length(batch, noise)
        return Pairs(torch.arange(len(batch)), torch.randperm(len(batch), generator=generator))


@dataclass(frozen=True, kw_only=True)
class Nearest(Coupler):
    """Each image takes its nearest noise, which skews the noise."""

    def pair(self, batch, noise, generator):
        cost = tensors.pairwise_cost(batch.data, noise)
        return Pairs(torch.arange(len(batch)), cost.argmin(dim=1))


def pool(size=40):
    g = generator(0, "test", size)
    return Batch(
        torch.randn((size, 5), generator=g),
        torch.randint(3, (size,), generator=g),
        torch.randint(2, (size,), generator=g),
    ), torch.randn((size, 5), generator=g)


@dataclass(frozen=True, kw_only=True)
class NearestOfTwo(Nearest):
    """Each image takes the nearer of its two noises."""

    @property
    def noises_per_image(self):
        return 2

    def pair(self, batch, noise, generator):
        tensors.require_same_length(batch, noise, 2)
        cost = tensors.pairwise_cost(batch.data, noise)
        index = torch.arange(len(batch))
        farther = cost[index, 2 * index] > cost[index, 2 * index + 1]
        return Pairs(index, 2 * index + farther)


@dataclass(frozen=True, kw_only=True)
class Told(Shuffled):
    """A permutation with a bound, which follows from the number of images."""

    def pair(self, batch, noise, generator):
        pairs = super().pair(batch, noise, generator)
        known = None if len(batch) == 3 else len(batch) / 100
        return replace(pairs, gap=known, entropy=known)


class Never(Shuffled):
    def pair(self, batch, noise, generator):
        raise AssertionError("there is nothing to choose")


@dataclass(frozen=True, kw_only=True)
class Boasts(Nearest):
    """Declares a bijection and is none."""

    bijective = True


@pytest.mark.parametrize("by", [("label",), ("realness",), ("label", "realness")])
def test_laws(by):
    check_coupler(Partitioned(by=by), minimises="euclidean", another_process=False)


@pytest.mark.parametrize(
    "coupler",
    [
        Partitioned(inner=Shuffled()),
        Partitioned(inner=Nearest()),
        Partitioned(inner=NearestOfTwo()),
        Partitioned(inner=Partitioned(by=("realness",))),
    ],
)
def test_laws_around_other_couplers(coupler):
    check_coupler(coupler, another_process=False)


@pytest.mark.parametrize("size", [64, 200])
def test_pairs_equal_the_reference(size):
    golden, _ = tensors.load(DATA / f"assignment_{size}.safetensors")
    batch = Batch(golden["images"], golden["labels"].argmax(dim=1))
    pairs = Partitioned().pair(batch, golden["noise"], generator(0))
    assert torch.equal(golden["noise"][pairs.noise], golden["paired_noise_by_class"])


@pytest.mark.parametrize("by", [("label",), ("realness",), ("label", "realness")])
@pytest.mark.parametrize("inner", [Hungarian(), Shuffled(), Nearest()])
def test_noise_stays_within_its_part(by, inner):
    batch, noise = pool()
    pairs = Partitioned(by=by, inner=inner).pair(batch, noise, generator(0))
    assert pairs.data.tolist() == list(range(40))
    for name in by:
        values = batch.labels if name == "label" else batch.realness
        assert torch.equal(values[pairs.noise], values)


def test_a_part_is_what_the_inner_coupler_makes_of_it():
    batch, noise = pool()
    pairs = Partitioned().pair(batch, noise, generator(0))
    members = (batch.labels == 1).nonzero()[:, 0]
    alone = Hungarian().pair(batch[members], noise[members], generator(0))
    assert torch.equal(pairs.noise[members], members[alone.noise])


def test_a_part_draws_its_own_random_numbers():
    batch, noise = pool()
    coupler = Partitioned(inner=Shuffled())
    whole = coupler.pair(batch, noise, generator(0))
    members = (batch.labels == 1).nonzero()[:, 0]
    alone = coupler.pair(batch[members], noise[members], generator(0))
    assert torch.equal(whole.noise[members], members[alone.noise])
    other = coupler.pair(batch, noise, generator(1))
    assert not torch.equal(whole.noise, other.noise)


@pytest.mark.parametrize("inner", [Hungarian(), Shuffled()])
def test_threads_change_nothing(inner, monkeypatch):
    batch, noise = pool()
    alone = Partitioned(inner=inner).pair(batch, noise, generator(0))
    started = []

    class Threads(ThreadPoolExecutor):
        def __init__(self, workers, **named):
            started.append(workers)
            super().__init__(workers, **named)

    monkeypatch.setattr("genkit_aot.partitioned.ThreadPoolExecutor", Threads)
    monkeypatch.setattr("genkit_aot.partitioned.os.cpu_count", lambda: 2)
    monkeypatch.setattr("genkit_aot.partitioned.MIN_THREAD_SIZE", 1)
    before = threading.active_count()
    beside = Partitioned(inner=inner).pair(batch, noise, generator(0))
    assert started == [2]
    assert threading.active_count() == before
    assert torch.equal(alone.noise, beside.noise)
    assert (alone.parts, alone.gap) == (beside.parts, beside.gap)


def test_errors_in_threads_are_told_in_the_order_of_the_parts(monkeypatch):
    class Late(Shuffled):
        def pair(self, batch, noise, generator):
            time.sleep(0.02 * (2 - int(batch.labels[0])))
            raise DataError("no")

    monkeypatch.setattr("genkit_aot.partitioned.os.cpu_count", lambda: 3)
    monkeypatch.setattr("genkit_aot.partitioned.MIN_THREAD_SIZE", 1)
    with raises_code(DataError, Code.DATA, "label 0"):
        Partitioned(inner=Late()).pair(*pool(), generator(0))


def test_small_parts_start_no_thread(monkeypatch):
    monkeypatch.setattr("genkit_aot.partitioned.ThreadPoolExecutor", None)
    monkeypatch.setattr("genkit_aot.partitioned.os.cpu_count", lambda: 8)
    Partitioned().pair(*pool(), generator(0))


def test_a_thousand_classes():
    g = generator(0, "test")
    batch = Batch(torch.randn((1500, 4), generator=g), torch.randint(1000, (1500,), generator=g))
    noise = torch.randn((1500, 4), generator=g)
    pairs = Partitioned().pair(batch, noise, g)
    assert torch.equal(batch.labels[pairs.noise], batch.labels)
    assert pairs.noise.sort().values.tolist() == pairs.data.tolist() == list(range(1500))
    assert pairs.parts == tuple(batch.labels.unique(return_counts=True)[1].tolist())
    full = cdist(batch.data, noise) + 1e6 * (batch.labels[:, None] != batch.labels).numpy()
    best = full[linear_sum_assignment(full)].sum()
    np.testing.assert_allclose(full[pairs.data, pairs.noise].sum(), best, rtol=1e-6)


def test_a_part_of_one_needs_no_solver():
    batch, noise = pool(12)
    alone = replace(batch, labels=torch.arange(12))
    pairs = Partitioned(inner=Never()).pair(alone, noise, generator(0))
    assert pairs.noise.tolist() == list(range(12))
    assert pairs.gap == 0


def test_what_is_known_of_the_parts_is_told_of_all():
    batch, noise = pool(10)
    coupler = Partitioned(inner=Told())
    known = coupler.pair(
        replace(batch, labels=torch.tensor([2, 0, 0, 7, 2, 0, 0, 2, 2, 2])), noise, generator(0)
    )
    assert known.parts == (4, 5, 1)
    assert known.gap == 0.05
    nats = 4 * math.log(4) * 0.04 + 5 * math.log(5) * 0.05  # a part of 1 has no choice
    assert known.entropy == pytest.approx(nats / (10 * math.log(10)))
    unknown = coupler.pair(
        replace(batch, labels=torch.tensor([2, 0, 0, 2, 2, 0, 2, 2, 2, 2])), noise, generator(0)
    )
    assert unknown.parts == (3, 7)
    assert (unknown.gap, unknown.entropy) == (None, None)


def test_parts_within_parts_are_each_told():
    batch, noise = pool()
    nested = Partitioned(inner=Partitioned(by=("realness",))).pair(batch, noise, generator(0))
    flat = Partitioned(by=("label", "realness")).pair(batch, noise, generator(0))
    assert nested.parts == flat.parts
    assert torch.equal(nested.noise, flat.noise)


def test_a_part_is_dealt_all_noises_of_its_images():
    batch, _ = pool()
    noise = torch.randn((80, 5), generator=generator(0, "two"))
    coupler = Partitioned(inner=NearestOfTwo())
    assert coupler.noises_per_image == 2
    pairs = coupler.pair(batch, noise, generator(0))
    alone = NearestOfTwo().pair(batch, noise, generator(0))
    assert torch.equal(pairs.noise, alone.noise)
    with raises_code(DataError, Code.WRONG_LENGTH, "draw 2"):
        coupler.pair(batch, noise[:40], generator(0))


def test_bind_binds_the_inner_coupler():
    @dataclass(frozen=True, kw_only=True)
    class Unbound(Coupler):
        bijective = True

        def bind(self, inputs):
            assert inputs == "inputs"
            return Shuffled()

    batch, noise = pool()
    coupler = Partitioned(by=("realness",), inner=Unbound())
    expected = Partitioned(by=("realness",), inner=Shuffled()).pair(batch, noise, generator(0))
    found = coupler.bind("inputs").pair(batch, noise, generator(0))
    assert torch.equal(found.noise, expected.noise)
    with raises_code(UsageError, Code.USAGE, "Unbound", "bind"):
        coupler.pair(batch, noise, generator(0))


def test_a_declared_bijection_of_the_inner_coupler_is_checked_for_each_part():
    batch, noise = pool()
    with raises_code(DataError, Code.INVALID_RESULT, "label 0", "Boasts", "noise"):
        Partitioned(inner=Boasts()).pair(batch, noise, generator(0))
    assert len(Partitioned(inner=Nearest()).pair(batch, noise, generator(0))) == len(batch)


def test_the_inner_coupler_pairs_a_part_and_never_chooses_among_the_whole_data_set():
    @dataclass(frozen=True, kw_only=True)
    class Whole(DatasetCoupler):
        def choose(self, data, noise, generator):
            return torch.zeros(len(noise)).long()

    with raises_code(SettingError, Code.NOT_A_COMPONENT, "inner"):
        Partitioned(inner=Whole())


def test_a_label_blind_coupler_skews_the_noise_of_a_class_and_this_does_not():
    means = {True: [], False: []}
    for index in range(40):
        g = generator(0, "skew", index)
        labels = torch.randint(2, (64,), generator=g)
        batch = Batch(torch.randn((64, 2), generator=g) + 4.0 * labels[:, None] - 2, labels)
        noise = torch.randn((64, 2), generator=g)
        for parted, coupler in ((True, Partitioned()), (False, Hungarian())):
            paired = noise[coupler.pair(batch, noise, g).noise]
            means[parted].append(paired[labels == 1].mean())
    # The mean of 40 * 32 * 2 unit Gaussians has a standard deviation of 0.02.
    assert abs(torch.stack(means[True]).mean()) < 0.08
    assert torch.stack(means[False]).mean() > 0.5


def test_what_is_kept_follows_the_parts_and_the_inner_coupler():
    assert Partitioned().preserves_conditional_prior == {"labels"}
    both = Partitioned(by=("label", "realness"))
    assert both.preserves_conditional_prior == both.requires == {"labels", "realness"}
    assert (
        Partitioned(inner=Random()).preserves_conditional_prior
        == Random().preserves_conditional_prior
    )
    assert Partitioned(inner=Partitioned(by=("realness",))).requires == {"labels", "realness"}
    skewed = Partitioned(inner=Nearest())
    assert not skewed.bijective
    assert not skewed.preserves_noise_marginal
    assert skewed.preserves_conditional_prior == frozenset()


def test_hungarian_without_parts_would_break_the_law_it_keeps_with_them():
    class Boastful(Hungarian):
        @property
        def preserves_conditional_prior(self):
            return frozenset({"labels"})

    with breaks("noise-mean; the paired noise given labels = 0"):
        check_coupler(Boastful(), another_process=False)


@pytest.mark.parametrize(("by", "missing"), [("label", "labels"), ("realness", "realness")])
def test_data_without_the_attribute_is_refused(by, missing):
    batch, noise = pool()
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, by, missing):
        Partitioned(by=(by,)).pair(replace(batch, **{missing: None}), noise, generator(0))


def test_a_bad_value_is_named_by_its_index_in_the_pool():
    batch, noise = pool()
    batch.data[31, 2] = float("nan")
    with raises_code(DataError, Code.NOT_FINITE, "image 31", "nan"):
        Partitioned().pair(batch, noise, generator(0))


def test_a_bad_cost_is_named_with_its_part():
    batch, noise = pool()
    batch.data[31] = 1e30
    with raises_code(DataError, Code.NOT_FINITE, f"label {int(batch.labels[31])}", "cost"):
        Partitioned().pair(batch, noise, generator(0))


@pytest.mark.parametrize(
    ("coupler", "key", "code"),
    [
        (Partitioned(by=()), ("by",), Code.WRONG_LENGTH),
        (Partitioned(by=("label", "label")), ("by", 1), Code.DUPLICATE),
        (Partitioned(inner=Partitioned()), ("inner", "by", 0), Code.DUPLICATE),
    ],
)
def test_mistakes_are_reported_before_a_run(coupler, key, code):
    (problem,) = coupler.check({})
    assert (problem.key, problem.code) == (key, code)
    assert problem.hint


def test_a_sound_recipe_has_no_mistakes():
    assert not list(Partitioned(inner=Partitioned(by=("realness",))).check({}))


def test_an_unknown_part_is_refused():
    with raises_code(SettingError, Code.UNKNOWN_CHOICE, "by.0"):
        Partitioned(by=("labels",))
