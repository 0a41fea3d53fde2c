from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from genkit import tensors
from genkit.errors import DataError, SettingError
from genkit.independent import Random
from genkit.interfaces import Coupler
from genkit.random import generator
from genkit.testing import LawBroken, check_coupler
from genkit.types import Batch, Pairs
from genkit_aot.hungarian import Hungarian
from genkit_aot.partitioned import Partitioned

DATA = Path(__file__).parents[2] / "data"


@dataclass(frozen=True, kw_only=True)
class Shuffled(Coupler):
    """A permutation drawn from the generator."""

    def pair(self, batch, noise, generator):
        tensors.pairwise_cost(batch.data, noise)
        tensors.require_same_length(batch, noise)
        return Pairs(torch.arange(len(batch)), torch.randperm(len(batch), generator=generator))


@dataclass(frozen=True, kw_only=True)
class Nearest(Coupler):
    """Each image takes its nearest noise, which skews the noise."""

    @property
    def bijective(self):
        return False

    @property
    def preserves_noise_marginal(self):
        return False

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


@pytest.mark.parametrize("by", [("label",), ("source",), ("label", "source")])
def test_laws(by):
    check_coupler(Partitioned(by=by), minimises="euclidean")


@pytest.mark.parametrize(
    "coupler",
    [
        Partitioned(inner=Shuffled()),
        Partitioned(inner=Nearest()),
        Partitioned(inner=Partitioned(by=("source",))),
    ],
)
def test_laws_around_other_couplers(coupler):
    check_coupler(coupler)


@pytest.mark.parametrize("size", [64, 200])
def test_pairs_equal_the_reference(size):
    golden, _ = tensors.load(DATA / f"assignment_{size}.safetensors")
    batch = Batch(golden["images"], golden["labels"].argmax(dim=1))
    pairs = Partitioned().pair(batch, golden["noise"], generator(0))
    assert torch.equal(golden["noise"][pairs.noise], golden["paired_noise_by_class"])


@pytest.mark.parametrize("by", [("label",), ("source",), ("label", "source")])
@pytest.mark.parametrize("inner", [Hungarian(), Shuffled(), Nearest()])
def test_noise_stays_within_its_part(by, inner):
    batch, noise = pool()
    pairs = Partitioned(by=by, inner=inner).pair(batch, noise, generator(0))
    assert pairs.data.tolist() == list(range(40))
    for name in by:
        values = batch.labels if name == "label" else batch.sources
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


def test_the_order_of_the_hash_seed_changes_nothing():
    code = (
        "import torch; from genkit.types import Batch; from genkit.random import generator;"
        "from genkit_aot.partitioned import Partitioned; g = generator(0);"
        "b = Batch(torch.randn((30, 2), generator=g), torch.randint(3, (30,), generator=g));"
        "print(Partitioned().pair(b, torch.randn((30, 2), generator=g), g).noise.tolist())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_what_is_kept_follows_the_parts_and_the_inner_coupler():
    assert Partitioned().preserves_conditional_prior == {"labels"}
    both = Partitioned(by=("label", "source"))
    assert both.preserves_conditional_prior == both.requires == {"labels", "sources"}
    assert Partitioned(inner=Random()).preserves_conditional_prior == {"labels", "sources"}
    assert Partitioned(inner=Partitioned(by=("source",))).requires == {"labels", "sources"}
    skewed = Partitioned(inner=Nearest())
    assert not skewed.bijective
    assert not skewed.preserves_noise_marginal
    assert skewed.preserves_conditional_prior == frozenset()


def test_hungarian_without_parts_would_break_the_law_it_keeps_with_them():
    class Boastful(Hungarian):
        @property
        def preserves_conditional_prior(self):
            return frozenset({"labels"})

    with pytest.raises(LawBroken, match="the paired noise given labels 0 has mean 0"):
        check_coupler(Boastful())


@pytest.mark.parametrize(("by", "missing"), [("label", "labels"), ("source", "sources")])
def test_data_without_the_attribute_is_refused(by, missing):
    batch, noise = pool()
    with pytest.raises(DataError, match=f"parted by {by}, and this data has no {missing}"):
        Partitioned(by=(by,)).pair(replace(batch, **{missing: None}), noise, generator(0))


def test_a_bad_value_is_named_by_its_index_in_the_pool():
    batch, noise = pool()
    batch.data[31, 2] = float("nan")
    with pytest.raises(DataError, match=r"^image 31 of 40 contains nan"):
        Partitioned().pair(batch, noise, generator(0))


def test_a_bad_cost_is_named_with_its_part():
    batch, noise = pool()
    batch.data[31] = 1e30
    expected = f"in the part of label {int(batch.labels[31])}: the cost of image"
    with pytest.raises(DataError, match=expected):
        Partitioned().pair(batch, noise, generator(0))


@pytest.mark.parametrize(
    ("coupler", "key", "reason"),
    [
        (Partitioned(by=()), ("by",), "names nothing to part the pool by"),
        (Partitioned(by=("label", "label")), ("by", 1), '"label" is named twice'),
        (Partitioned(inner=Partitioned()), ("inner", "by", 0), 'already parted by "label"'),
    ],
)
def test_mistakes_are_found_before_a_run(coupler, key, reason):
    (problem,) = coupler.check({})
    assert problem.key == key
    assert reason in problem.reason
    assert problem.hint


def test_a_sound_recipe_has_no_mistakes():
    assert not list(Partitioned(inner=Partitioned(by=("source",))).check({}))


def test_an_unknown_part_is_refused():
    with pytest.raises(SettingError, match='"labels" is none of "label", "source"'):
        Partitioned(by=("labels",))
