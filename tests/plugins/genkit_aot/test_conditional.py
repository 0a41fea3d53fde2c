from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from genkit import tensors
from genkit.errors import Code, DataError, SettingError
from genkit.random import generator
from genkit.testing import check_coupler
from genkit.types import Batch
from genkit_aot.conditional import Conditional, choose_weight
from genkit_aot.hungarian import Hungarian
from genkit_aot.partitioned import Partitioned
from raising import raises_code

DATA = Path(__file__).parents[2] / "data"


def pool(size=60):
    """Images around the directions that their embeddings point in."""
    g = generator(0, "test", size)
    embeddings = torch.nn.functional.normalize(torch.randn((size, 3), generator=g), dim=1)
    data = 3 * embeddings + 0.3 * torch.randn((size, 3), generator=g)
    labels = torch.randint(4, (size,), generator=g)
    return Batch(data, labels, embeddings=embeddings), torch.randn((size, 3), generator=g)


def noise_of(coupler, batch, noise):
    pairs = coupler.pair(batch, noise, generator(0))
    assert pairs.data.tolist() == list(range(len(batch)))
    return pairs.noise


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_laws(cost):
    check_coupler(Conditional(cost=cost), minimises=cost, another_process=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"weight": 1.0},
        {"by": "embedding"},
        {"by": "embedding", "cost": "squared"},
        {"by": "embedding", "weight": 2.0},
    ],
)
def test_laws_with_a_penalty(settings):
    check_coupler(Conditional(**settings), another_process=False)


@pytest.mark.parametrize("size", [64, 200])
def test_pairs_equal_the_reference(size):
    golden, _ = tensors.load(DATA / f"assignment_{size}.safetensors")
    batch = Batch(golden["images"], golden["labels"].argmax(dim=1))
    chosen = noise_of(Conditional(), batch, golden["noise"])
    assert torch.equal(golden["noise"][chosen], golden["paired_noise_by_class"])


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
@pytest.mark.parametrize("by", ["label", "embedding"])
def test_without_weight_it_is_hungarian(by, cost):
    batch, noise = pool()
    chosen = noise_of(Conditional(by=by, cost=cost, weight=0.0), batch, noise)
    assert torch.equal(chosen, noise_of(Hungarian(cost=cost), batch, noise))


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_labels_that_are_never_mixed(cost):
    batch, noise = pool()
    parted = noise_of(Partitioned(inner=Hungarian(cost=cost)), batch, noise)
    assert torch.equal(noise_of(Conditional(cost=cost), batch, noise), parted)
    dear = Conditional(cost=cost, weight=1e4)
    assert torch.equal(noise_of(dear, batch, noise), parted)


@pytest.mark.parametrize("sizes", [(57, 2, 1), (1, 1, 58)])
def test_imbalanced_classes_and_single_members(sizes):
    batch, noise = pool()
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    labels = labels[torch.randperm(60, generator=generator(0))]
    pairs = Conditional().pair(replace(batch, labels=labels), noise, generator(0))
    assert torch.equal(labels[pairs.noise], labels)
    assert pairs.parts == sizes


@pytest.mark.parametrize("size", [60, 300])  # solved in one piece, and arc by arc
@pytest.mark.parametrize(
    ("cost", "metric"), [("euclidean", "euclidean"), ("squared", "sqeuclidean")]
)
def test_the_total_is_scipys_optimum(cost, metric, size):
    batch, noise = pool(size)
    distance = cdist(batch.data.double(), noise.double(), metric)
    for by, apart in (
        ("label", (batch.labels[:, None] != batch.labels).numpy()),
        ("embedding", cdist(batch.embeddings.double(), batch.embeddings.double(), "cosine")),
    ):
        full = distance + 0.7 * distance.std() * apart
        best = full[linear_sum_assignment(full)].sum()
        pairs = Conditional(by=by, cost=cost, weight=0.7).pair(batch, noise, generator(0))
        np.testing.assert_allclose(full[pairs.data, pairs.noise].sum(), best, rtol=1e-6)
        assert pairs.gap < 1e-6


def test_a_large_weight_leaves_each_noise_with_the_nearest_condition():
    batch, noise = pool()
    dear = Conditional(by="embedding", weight=1e4)
    assert noise_of(dear, batch, noise).tolist() == list(range(60))
    # Images with one description in common are free among themselves, as a class would be.
    shared = replace(batch, embeddings=batch.embeddings[batch.labels])
    assert torch.equal(noise_of(dear, shared, noise), noise_of(Partitioned(), batch, noise))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_the_weight_leaves_the_share_of_candidates(share):
    batch, noise = pool(200)
    cost = torch.cdist(batch.data, noise).double()
    apart = torch.from_numpy(cdist(batch.embeddings, batch.embeddings, "cosine"))
    apart.fill_diagonal_(0)
    weight = choose_weight(cost, apart, share)
    assert weight > 0
    candidates = cost + weight * apart <= cost.diagonal()[:, None] + 1e-9
    assert abs(float(candidates.double().mean()) - share) < 2 / 200**2
    own = Conditional(by="embedding", candidates=share)
    told = Conditional(by="embedding", weight=weight / float(cost.std(correction=0)))
    assert torch.equal(noise_of(own, batch, noise), noise_of(told, batch, noise))


def test_the_weight_at_its_ends():
    cost = torch.tensor([[2.0, 1.0], [5.0, 3.0]])
    apart = torch.tensor([[0.0, 0.5], [0.5, 0.0]])
    # The limits are (2 - 1) / 0.5 and (3 - 5) / 0.5; the image's own noise is always a candidate.
    assert choose_weight(cost, apart, 0.75) == 2
    assert choose_weight(cost, apart, 1.0) == 0
    assert choose_weight(cost, apart, 0.01) == 2
    assert choose_weight(cost, torch.zeros(2, 2), 0.5) == 0
    assert choose_weight(cost[:1, :1], apart[:1, :1], 0.5) == 0


def test_fewer_candidates_skew_the_noise_of_a_condition_less():
    def skew(coupler):
        towards = []
        for index in range(4):
            g = generator(0, "skew", index)
            batch, _ = pool(100 + index)
            noise = torch.randn(batch.data.shape, generator=g)
            chosen = noise[coupler.pair(batch, noise, g).noise]
            towards.append((chosen * batch.embeddings).sum(1))
        return float(torch.cat(towards).mean())

    blind = skew(Hungarian())
    loose = skew(Conditional(by="embedding", candidates=0.2))
    tight = skew(Conditional(by="embedding", candidates=0.02))
    assert blind > 1
    assert blind > loose > tight
    # The mean of 406 unit Gaussians has a standard deviation of 0.05.
    assert abs(tight) < 0.3


def test_the_length_of_an_embedding_says_nothing():
    batch, noise = pool()
    coupler = Conditional(by="embedding")
    expected = noise_of(coupler, batch, noise)
    for factor in (1e-30, 1e30):
        scaled = replace(batch, embeddings=batch.embeddings * factor)
        assert torch.equal(noise_of(coupler, scaled, noise), expected)


def test_items_without_a_description_are_alike():
    batch, noise = pool()
    batch.embeddings[:30] = 0
    chosen = noise_of(Conditional(by="embedding", weight=1e4), batch, noise)
    assert chosen[30:].tolist() == list(range(30, 60))
    alone = noise_of(Hungarian(), batch[:30], noise[:30])
    assert torch.equal(chosen[:30], alone)


def test_what_it_keeps_and_needs():
    assert Conditional().preserves_conditional_prior == {"labels"}
    assert Conditional(weight=1e4).preserves_conditional_prior == frozenset()
    assert Conditional().requires == Conditional(weight=1.0).requires == {"labels"}
    continuous = Conditional(by="embedding")
    assert continuous.preserves_conditional_prior == frozenset()
    assert continuous.requires == {"embeddings"}


@pytest.mark.parametrize(
    ("coupler", "missing"),
    [
        (Conditional(), "labels"),
        (Conditional(weight=1.0), "labels"),
        (Conditional(by="embedding"), "embeddings"),
    ],
)
def test_data_without_the_condition_is_refused(coupler, missing):
    batch, noise = pool()
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, missing):
        coupler.pair(replace(batch, **{missing: None}), noise, generator(0))


def test_a_bad_embedding_is_named_by_its_index():
    batch, noise = pool()
    batch.embeddings[31, 2] = float("nan")
    with raises_code(DataError, Code.NOT_FINITE, "embedding 31", "nan"):
        Conditional(by="embedding").pair(batch, noise, generator(0))


def test_a_penalty_that_overflows_is_refused():
    batch, noise = pool()
    batch.data[31] *= 1e18
    with raises_code(DataError, Code.NOT_FINITE, "cost"):
        Conditional(cost="squared", weight=1e4).pair(batch, noise, generator(0))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"weight": -1.0}, (Code.OUT_OF_RANGE, "weight", -1.0)),
        ({"weight": 1e5}, (Code.OUT_OF_RANGE, "weight", 10000)),
        ({"candidates": 0.0}, (Code.OUT_OF_RANGE, "candidates", 0.0)),
        ({"by": "source"}, (Code.UNKNOWN_CHOICE, "by")),
    ],
)
def test_settings_out_of_range_are_refused(wrong, reason):
    with raises_code(SettingError, *reason):
        Conditional(**wrong)


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"by": "label", "candidates": 0.5}, True),
        ({"by": "embedding", "weight": 1.0, "candidates": 0.5}, True),
        ({"by": "embedding", "candidates": 0.5}, False),
        ({"by": "label"}, False),
    ],
)
def test_candidates_where_they_would_be_ignored(settings, refused):
    found = list(Conditional(**settings).check({}))
    assert [problem.key for problem in found] == [("candidates",)] * refused
