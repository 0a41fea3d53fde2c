"""Each law is broken here once, by a component that is sound but for that."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from genkit import interfaces
from genkit.artifacts import Samples
from genkit.errors import Code, DataError, UsageError
from genkit.random import generator
from genkit.testing import check_augmentation, check_dataset
from genkit.types import Batch, DataSpec
from raising import breaks, raises_code

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
        return DataSpec((1, 4, 4), 2, realness=True, embeddings=3)

    def load(self, inputs):
        return self.batch()

    def batch(self):
        return IMAGES


@pytest.mark.parametrize(
    ("batch", "law"),
    [
        (IMAGES[:0], "has-items"),
        (replace(IMAGES, data=IMAGES.data[..., :3]), "spec-shape"),
        (replace(IMAGES, data=IMAGES.data.double()), "data-type"),
        (replace(IMAGES, data=IMAGES.data * 255), "image-range"),
        (replace(IMAGES, labels=None), "spec-attributes"),
        (replace(IMAGES, embeddings=None), "spec-attributes"),
        (replace(IMAGES, embeddings=torch.zeros(6, 2)), "embeddings"),
        (replace(IMAGES, labels=IMAGES.labels.int()), "class-indices; labels is int64"),
        (replace(IMAGES, labels=IMAGES.labels + 1), "class-indices; 1 to 2"),
        (replace(IMAGES, realness=IMAGES.realness + 1), "class-indices; realness is int64"),
    ],
)
def test_datasets(batch, law):
    check_dataset(Dataset())
    broken = type("Broken", (Dataset,), {"batch": lambda self: batch})
    with breaks(law):
        check_dataset(broken())


@pytest.mark.parametrize(
    ("batch", "item"),
    [
        (replace(IMAGES, embeddings=torch.zeros(6, 3) / 0), "embedding 0"),
        (replace(IMAGES, data=IMAGES.data / 0), "item 0"),
    ],
)
def test_numbers_of_a_dataset_are_finite(batch, item):
    broken = type("Broken", (Dataset,), {"batch": lambda self: batch})
    with raises_code(DataError, Code.NOT_FINITE, item):
        check_dataset(broken())


def test_the_number_of_items_is_that_of_the_items_or_none():
    for count in (None, 6):
        check_dataset(type("Sound", (Dataset,), {"item_count": lambda self, n=count: n})())
    broken = type("Broken", (Dataset,), {"item_count": lambda self: 7})
    with breaks("item-count"):
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

    with breaks("data-type"):
        check_dataset(Vectors())


def test_a_data_set_that_changes_is_found_out():
    batches = iter([IMAGES, IMAGES.with_data(-IMAGES.data)])
    broken = type("Broken", (Dataset,), {"batch": lambda self: next(batches)})
    with breaks("same-again"):
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
        (lambda self, b, sign: b[:4], "keeps-images"),
        (lambda self, b, sign: replace(b, labels=None), "keeps-attributes; labels"),
        (
            lambda self, b, sign: replace(b, realness=b.realness.flip(0)),
            "keeps-attributes; realness",
        ),
        (lambda self, b, sign: b.with_data(b.data * 255), "image-range"),
        (lambda self, b, sign: replace(b, augment_labels=torch.zeros(16, 1)), "augment-labels"),
        (lambda self, b, sign: b.with_data(b.data.neg_()), "leaves-inputs; data was modified"),
        (lambda self, b, sign: b.with_data(b.data * torch.rand(())), "own-generator"),
    ],
)
def test_augmentations(change, law):
    check_augmentation(Augmentation())
    broken = type("Broken", (Augmentation,), {"change": change})
    with breaks(law):
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
    with breaks("augment-labels"):
        check_augmentation(Broken())


def test_an_augmentation_with_a_generator_of_its_own_is_found_out():
    own = generator(0, "own")

    class Own(Augmentation):
        def change(self, batch, sign):
            return batch.with_data(batch.data * torch.rand((), generator=own))

    with breaks("same-again"):
        check_augmentation(Own())
