from __future__ import annotations

import os

import numpy
import pytest
import torch

from genkit.errors import Code, GenkitError, UsageError
from genkit.plugin.manager import load_plugins
from genkit.types import Batch
from genkit_bench.pools import Pools, complete, load_items
from genkit_bench.synthetic import require_memory, synthetic
from raising import raises_code

CPU = torch.device("cpu")


def test_synthetic_images_are_like_photographs():
    images = synthetic((3, 32, 32), 10, 1000, 0).data
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert 0.4 < images.std() < 0.6
    # A quarter of the variance lies in the mean of an image, and nearly all in common channels.
    assert 0.15 < images.mean(dim=(1, 2, 3)).var() / images.var() < 0.35
    assert torch.corrcoef(images.transpose(0, 1).flatten(1)).min() > 0.8
    # Amplitude falls as 1/f: power at f = 2 is 4 times that at f = 4.
    power = torch.fft.rfft(images, dim=-1).abs().square().mean(dim=(0, 1, 2))
    assert power[1] > 2 * power[2] > 4 * power[4] > 8 * power[8]


def test_classes_lie_apart():
    batch = synthetic((12,), 3, 3000, 0)
    assert sorted(batch.labels.unique().tolist()) == [0, 1, 2]
    means = torch.stack([batch.data[batch.labels == k].mean(dim=0) for k in range(3)])
    assert 0.1 < means.var(dim=0).mean() / batch.data.var() < 0.5


@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (1, 1, 1), (3, 2, 5)])
def test_any_shape_and_no_classes(shape):
    batch = synthetic(shape, 0, 5, 0)
    assert batch.data.shape == (5, *shape)
    assert batch.labels is None
    assert torch.isfinite(batch.data).all()


def test_a_seed_chooses_the_images():
    one, same, other = (synthetic((3, 4, 4), 2, 9, seed) for seed in (0, 0, 1))
    assert torch.equal(one.data, same.data)
    assert not torch.equal(one.data, other.data)


def test_what_a_coupler_may_require_is_made_up_where_it_lacks():
    data, labels = torch.randn(50, 4), torch.arange(50) % 3
    bare = complete(Batch(data), 0)
    assert (bare.labels.dtype, bare.labels.shape) == (torch.int64, (50,))
    assert set(bare.realness.tolist()) == {0, 1}
    assert bare.embeddings.shape[0] == 50
    own = complete(Batch(data, labels, labels % 2, embeddings=data), 0)
    assert own.labels is labels
    assert own.embeddings is data
    assert torch.equal(own.realness, labels % 2)


def test_a_pool_repeats_no_item_before_all_were_used():
    data = torch.arange(10.0)[:, None]
    pools = Pools(Batch(data, torch.arange(10)), 0, CPU)
    small, large = pools.batch(10, 0), pools.batch(25, 0)
    assert sorted(small.labels.tolist()) == list(range(10))
    assert torch.bincount(large.labels).max() == 3
    assert torch.bincount(large.labels).min() == 2
    assert torch.equal(large.data[:, 0].long(), large.labels)


def test_pools_differ_by_seed_and_index_alone():
    data = torch.arange(50.0)[:, None]
    pools = Pools(Batch(data), 0, CPU)
    assert torch.equal(pools.batch(20, 1).data, Pools(Batch(data), 0, CPU).batch(20, 1).data)
    assert not torch.equal(pools.batch(20, 1).data, pools.batch(20, 0).data)
    assert not torch.equal(pools.noise(20, 1), pools.noise(20, 0))
    assert not torch.equal(pools.noise(20, 0), Pools(Batch(data), 1, CPU).noise(20, 0))
    assert pools.noise(20, 0, each=3).shape == (60, 1)


def test_a_registered_data_set_is_loaded():
    batch = load_items(load_plugins().registry, {"use": "digits"}, 64)
    assert batch.data.shape[1:] == (1, 8, 8)


def test_images_that_are_kept_as_bytes_are_decoded(tmp_path):
    numpy.savez(tmp_path / "a.npz", numpy.full((5, 1, 8, 8), 255, numpy.uint8))
    table = {"use": "npz", "path": str(tmp_path / "a.npz"), "labels": False}
    batch = load_items(load_plugins().registry, table, 5)
    assert batch.data.dtype == torch.float32
    assert batch.data.unique().tolist() == [1]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"use": "digit"}, (Code.UNKNOWN_COMPONENT, '"digits"')),
        ({"use": "moons", "items": 0}, (Code.OUT_OF_RANGE, "moons.items")),
        ({"use": "image-folder", "root": "/there is none"}, (Code.NOT_FOUND, "there is none")),
        (
            {"use": "real-and-fake", "real": {"use": "digits"}, "fakes": "samples"},
            (Code.UNKNOWN_STAGE, '"samples"'),
        ),
    ],
)
def test_data_that_cannot_be_had_is_refused(table, told):
    with raises_code(GenkitError, *told):
        load_items(load_plugins().registry, table, 64)


def test_too_much_for_the_machine_is_refused_before_it_is_made():
    with raises_code(UsageError, Code.OUT_OF_MEMORY):
        load_items(load_plugins().registry, {"use": "synthetic", "shape": [3, 10**6, 10**6]}, 64)


def test_a_system_that_does_not_tell_its_memory_is_trusted(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    require_memory(10**9, (10**9,))
