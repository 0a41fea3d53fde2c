"""Each law is broken here once, by a component that is sound but for that."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from genkit import interfaces
from genkit.artifacts import Samples
from genkit.errors import Code, DataError, UsageError
from genkit.random import generator
from genkit.testing import LawBroken, check_augmentation, check_dataset
from genkit.types import Batch, DataSpec
from raising import raises_code

IMAGES = Batch(
    torch.rand((6, 1, 4, 4), generator=generator(0)) * 2 - 1,
    torch.arange(6) % 2,
    torch.ones(6).long(),
    embeddings=torch.zeros(6, 3),
)


@dataclass(frozen=True, kw_only=True)
class Dataset(interfaces.Dataset):
    """Sound, where its batch is."""

    def spec(self):
        return DataSpec((1, 4, 4), 2, sources=True, embeddings=3)

    def load(self, inputs):
        return self.batch()

    def batch(self):
        return IMAGES


@pytest.mark.parametrize(
    ("batch", "law"),
    [
        (IMAGES[:0], "there is an item"),
        (replace(IMAGES, data=IMAGES.data[..., :3]), "the shape of spec"),
        (replace(IMAGES, data=IMAGES.data.double()), "float32"),
        (replace(IMAGES, data=IMAGES.data * 255), "in \\[-1, 1\\]"),
        (replace(IMAGES, labels=None), "labels, sources and embeddings are there"),
        (replace(IMAGES, embeddings=None), "labels, sources and embeddings are there"),
        (replace(IMAGES, embeddings=torch.zeros(6, 2)), "a vector as long as spec"),
        (replace(IMAGES, embeddings=torch.zeros(6, 3) / 0), "embedding 0 of 6 contains"),
        (replace(IMAGES, labels=IMAGES.labels.int()), "labels are int64"),
        (replace(IMAGES, labels=IMAGES.labels + 1), "in 0 to 1; seen: 1 to 2"),
        (replace(IMAGES, sources=IMAGES.sources + 1), "sources are int64"),
        (replace(IMAGES, data=IMAGES.data / 0), "item 0 of 6 contains"),
    ],
)
def test_datasets(batch, law):
    check_dataset(Dataset())
    broken = type("Broken", (Dataset,), {"batch": lambda self: batch})
    with pytest.raises((LawBroken, DataError), match=law):
        check_dataset(broken())


def test_the_number_of_items_is_that_of_the_items_or_none():
    for count in (None, 6):
        check_dataset(type("Sound", (Dataset,), {"item_count": lambda self, n=count: n})())
    broken = type("Broken", (Dataset,), {"item_count": lambda self: 7})
    with pytest.raises(LawBroken, match="item_count"):
        check_dataset(broken())


def test_images_may_be_bytes():
    data = torch.arange(96, dtype=torch.uint8).reshape(6, 1, 4, 4)
    bytes_ = type("Bytes", (Dataset,), {"batch": lambda self: replace(IMAGES, data=data)})
    check_dataset(bytes_())


def test_vectors_may_not_be_bytes():
    @dataclass(frozen=True, kw_only=True)
    class Vectors(interfaces.Dataset):
        def spec(self):
            return DataSpec((2,))

        def load(self, inputs):
            return Batch(torch.zeros((6, 2), dtype=torch.uint8))

    with pytest.raises(LawBroken, match="or uint8 where items are images"):
        check_dataset(Vectors())


def test_a_data_set_that_changes_is_found_out():
    batches = iter([IMAGES, IMAGES.with_data(-IMAGES.data)])
    broken = type("Broken", (Dataset,), {"batch": lambda self: next(batches)})
    with pytest.raises(LawBroken, match="the same on every load"):
        check_dataset(broken())


@pytest.mark.parametrize("asks", [("network",), ("read", Samples), ("digest",)])
def test_a_data_set_that_needs_a_stage_is_told_that_there_is_none(asks):
    class NeedsStage(Dataset):
        def load(self, inputs):
            method, *more = asks
            return getattr(inputs, method)("fakes", *more)

    with raises_code(UsageError, Code.UNKNOWN_STAGE, '"fakes"'):
        check_dataset(NeedsStage())


@dataclass(frozen=True, kw_only=True)
class Augmentation(interfaces.Augmentation):
    """Sound: negative or not."""

    def augment(self, batch, generator):
        return self.change(batch, torch.randint(2, (), generator=generator) * 2 - 1)

    def change(self, batch, sign):
        return batch.with_data(batch.data * sign)


@pytest.mark.parametrize(
    ("change", "law"),
    [
        (lambda self, b, sign: b[:4], "number, shape and type"),
        (lambda self, b, sign: replace(b, labels=None), "keeps the labels"),
        (lambda self, b, sign: replace(b, sources=b.sources.flip(0)), "keeps the sources"),
        (lambda self, b, sign: b.with_data(b.data * 255), "in \\[-1, 1\\]"),
        (lambda self, b, sign: replace(b, augment_labels=torch.zeros(16, 1)), "and else None"),
        (lambda self, b, sign: b.with_data(b.data.neg_()), "a changed data"),
        (lambda self, b, sign: b.with_data(b.data * torch.rand(())), "given generator alone"),
    ],
)
def test_augmentations(change, law):
    check_augmentation(Augmentation())
    broken = type("Broken", (Augmentation,), {"change": change})
    with pytest.raises(LawBroken, match=law):
        check_augmentation(broken())


@pytest.mark.parametrize(
    "told", [None, torch.zeros(16, 3), torch.zeros(4, 2), torch.zeros(16, 2).double()]
)
def test_augmentations_that_tell(told):
    class Telling(Augmentation):
        augment_labels = 2

        def change(self, batch, sign):
            return replace(batch, augment_labels=torch.zeros(16, 2))

    class Broken(Telling):
        def change(self, batch, sign):
            return replace(batch, augment_labels=told)

    check_augmentation(Telling())
    with pytest.raises(LawBroken, match="augment_labels are float32"):
        check_augmentation(Broken())


def test_an_augmentation_with_a_generator_of_its_own_is_found_out():
    own = generator(0, "own")

    class Own(Augmentation):
        def change(self, batch, sign):
            return batch.with_data(batch.data * torch.rand((), generator=own))

    with pytest.raises(LawBroken, match="the same images"):
        check_augmentation(Own())
