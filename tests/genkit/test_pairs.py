"""What a coupler returns is checked in every pool, and that its arguments are unchanged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from genkit.errors import Code, DataError
from genkit.independent import Random
from genkit.interfaces import Coupler, DatasetCoupler
from genkit.random import generator
from genkit.train.pairing import PairStream
from genkit.types import Batch, Pairs
from raising import raises_code

ALL = torch.arange(512)


def pool_of(coupler):
    """Return a pool of 512 numbered images."""
    images = Batch(torch.arange(1000.0)[:, None], labels=torch.arange(1000))
    streamed = PairStream(
        images, coupler, coupler, None, 512, 1700, lambda *purpose: generator(0, *purpose)
    )
    return streamed.pool(0)


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (None, ("Pairs", "NoneType")),
        ((ALL, ALL), ("Pairs", "tuple")),
        (Pairs(ALL[:256], ALL[:256]), ("image indices", "int64", [256])),
        (Pairs(ALL, ALL.tolist()), ("noise indices", "list")),
        (Pairs(ALL, ALL.float()), ("512 int64", "torch.float32")),
        (Pairs(ALL, ALL[:, None]), ([512, 1],)),
        (Pairs(ALL, ALL.to("meta")), ("CPU", "meta")),
        (Pairs(ALL, ALL + 1), ("0 to 511", "512", "pair 511")),
        (Pairs(ALL - 1, ALL), ("image indices", "0 to 511", "-1", "pair 0")),
        (Pairs(ALL, torch.zeros(512).long()), ("noise 0 512",)),
        (Pairs(ALL.clamp(min=3), ALL), ("image 0 0",)),
        (Pairs(ALL, ALL, gap="little"), ("gap", "'little'")),
        (Pairs(ALL, ALL, gap=math.nan), ("gap", "nan")),
        (Pairs(ALL, ALL, entropy=1.5), ("entropy", "1.5")),
        (Pairs(ALL, ALL, entropy="high"), ("entropy", "'high'")),
        (Pairs(ALL, ALL, parts=[512]), ("parts", [512])),
        (Pairs(ALL, ALL, parts=(500,)), ("parts", "sum is 512", 500)),
    ],
)
def test_what_a_coupler_returns_is_checked(returned, reason):
    coupler = type("Odd", (Random,), {"pair": lambda *arguments: returned})()
    with raises_code(DataError, Code.INVALID_RESULT, "pool 0", "Odd", *reason):
        pool_of(coupler)


def test_a_coupler_that_declares_no_bijection_may_repeat_noise():
    repeated = Pairs(ALL, torch.zeros(512).long())
    settings = {"pair": lambda *arguments: repeated, "bijective": False}
    assert len(pool_of(type("Free", (Random,), settings)()).noise) == 512


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda batch, noise: batch.data.mul_(2), "images"),
        (lambda batch, noise: batch.labels.add_(1), "images"),
        (lambda batch, noise: batch.labels.numpy().fill(0), "labels of the images"),
        (lambda batch, noise: noise.mul_(2), "noise"),
        (lambda batch, noise: noise.numpy().sort(axis=0), "data of the noise"),
    ],
)
def test_a_coupler_that_changes_its_arguments_is_caught(change, named):
    def pair(self, batch, noise, generator):
        change(batch, noise)
        return Pairs(ALL, ALL)

    coupler = type("Scaling", (Random,), {"pair": pair})()
    with raises_code(DataError, Code.CHANGED, "pool 0", "Scaling", named):
        pool_of(coupler)


@pytest.mark.parametrize("name", ["data", "labels"])
def test_a_dataset_coupler_that_changes_the_data_set_is_caught(name):
    def choose(self, data, noise, generator):
        getattr(data, name).add_(1)
        return ALL

    coupler = type("Adding", (DatasetCoupler,), {"choose": choose})()
    with raises_code(DataError, Code.CHANGED, "pool 0", "Adding", "images"):
        pool_of(coupler)


def test_plugin_and_distribution_of_a_coupler_are_named(monkeypatch):
    monkeypatch.setattr(Random, "pair", lambda *arguments: Pairs(ALL, ALL.roll(1) * 0 + 7))
    with raises_code(
        DataError,
        Code.INVALID_RESULT,
        "pool 0",
        'coupler "random"',
        "genkit-diffusion",
        "noise 0 0",
    ):
        pool_of(Random())


def choosing(found):
    """Return a dataset coupler that chooses what it is given."""
    return type("Chooses", (DatasetCoupler,), {"choose": lambda *arguments: found})()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, ("image indices", "NoneType")),
        (ALL[:3], ("512 int64", [3])),
        (ALL + 489, ("0 to 999", "1000", "pair 511")),
    ],
)
def test_what_a_dataset_coupler_returns_is_checked(found, reason):
    assert len(pool_of(choosing(ALL + 488)).noise) == 512
    with raises_code(DataError, Code.INVALID_RESULT, "pool 0", "Chooses", *reason):
        pool_of(choosing(found))


def test_a_coupler_that_declares_nothing_guarantees_nothing():
    @dataclass(frozen=True, kw_only=True)
    class Bare(Coupler):
        pair = Random.pair

    bare = Bare()
    assert (bare.bijective, bare.preserves_noise_marginal) == (False, False)
    assert bare.preserves_conditional_prior == bare.requires == frozenset()
