from __future__ import annotations

import pytest
import torch

from genkit.errors import Code, DataError, SettingError
from genkit.types import Batch
from genkit_data.flip import Flip
from raising import raises_code


@pytest.fixture
def batch():
    return Batch(
        torch.rand(1000, 3, 4, 5), labels=torch.arange(1000), realness=torch.ones(1000).long()
    )


def draws():
    return torch.Generator().manual_seed(0)


def test_always_mirrors_left_to_right(batch):
    assert torch.equal(Flip(probability=1).augment(batch, draws()).data, batch.data.flip(3))


def test_never(batch):
    assert torch.equal(Flip(probability=0).augment(batch, draws()).data, batch.data)


def test_half_of_the_images_are_mirrored_whole(batch):
    before = batch.data.clone()
    after = Flip().augment(batch, draws())
    mirrored = (after.data == batch.data.flip(3)).flatten(1).all(1)
    kept = (after.data == batch.data).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 430 < int(mirrored.sum()) < 570
    assert torch.equal(batch.data, before)
    assert after.labels is batch.labels
    assert after.realness is batch.realness


def test_the_generator_decides(batch):
    first, again = (Flip().augment(batch, draws()).data for _ in range(2))
    assert torch.equal(first, again)


def test_vectors_have_no_left():
    with raises_code(DataError, Code.WRONG_SHAPE, '"flip"', "(2,)"):
        Flip().augment(Batch(torch.rand(3, 2)), draws())


def test_probability_out_of_range():
    with raises_code(SettingError, Code.OUT_OF_RANGE):
        Flip(probability=1.5)
