"""Data loaders whose batches are paired with noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import genkit
from genkit.errors import Code, DataError, SettingError, UnknownComponentError
from genkit.interfaces import Coupler
from genkit.types import Pairs
from raising import raises_code

IMAGES = torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
LABELS = torch.arange(24) % 3


def loader(*tensors, size=8):
    return DataLoader(TensorDataset(*tensors), batch_size=size)


def cost(images, noise):
    return float((images - noise).square().flatten(1).sum(1).sqrt().mean())


def test_pairs_are_closer_than_random_ones():
    paired = genkit.PairedLoader(loader(IMAGES), "hungarian")
    assert len(paired) == 3
    for (images,), noise in paired:
        assert (noise.shape, noise.dtype) == (images.shape, torch.float32)
        assert cost(images, noise) < cost(images, noise.roll(1, 0))


@pytest.mark.parametrize("coupler", ["random", {"use": "hungarian", "cost": "squared"}])
def test_every_item_keeps_its_label(coupler):
    for (images, labels), _ in genkit.PairedLoader(loader(IMAGES, LABELS), coupler):
        for image, label in zip(images, labels, strict=True):
            assert label == LABELS[(image == IMAGES).flatten(1).all(1).nonzero()[0]]


def test_repr_names_the_coupler():
    text = repr(genkit.PairedLoader(loader(IMAGES), "hungarian", seed=3))
    assert text.startswith("PairedLoader(")
    assert "hungarian" in text.lower()
    assert "seed=3" in text


def test_labels_are_passed_to_the_coupler():
    coupler = genkit.component("coupler", "partitioned", by=["label"])
    names = [f"{k}.png" for k in range(24)]
    batches = [{"image": IMAGES, "label": LABELS, "name": names, "meta": [LABELS, names]}]
    ((batch, noise),) = genkit.PairedLoader(batches, coupler)
    where = [(image == IMAGES).flatten(1).all(1).nonzero()[0].item() for image in batch["image"]]
    assert sorted(where) == list(range(24))
    assert batch["label"].tolist() == LABELS[where].tolist() == batch["meta"][0].tolist()
    assert batch["name"] == [names[k] for k in where] == batch["meta"][1]
    # Pairs inside of each class differ from those of the whole batch.
    ((whole, closer),) = genkit.PairedLoader(batches, "hungarian")
    assert cost(whole["image"], closer) < cost(batch["image"], noise)


def test_noise_depends_on_seed_and_epoch_alone():
    def noises(paired):
        return torch.cat([noise for _, noise in paired])

    paired = genkit.PairedLoader(loader(IMAGES), "random", seed=1)
    first, second = noises(paired), noises(paired)
    assert not torch.equal(first, second)
    assert not torch.equal(first[:8], first[8:16])
    assert not torch.equal(first, noises(genkit.PairedLoader(loader(IMAGES), "random")))
    resumed = genkit.PairedLoader(loader(IMAGES), "random", seed=1)
    resumed.epoch = 1
    assert torch.equal(noises(resumed), second)


def test_bytes_are_paired_as_images_in_the_range_of_the_noise():
    images = (IMAGES * 127.5 + 127.5).byte()
    ((batch, noise),) = genkit.PairedLoader([images], "hungarian")
    assert batch.dtype == torch.uint8
    assert cost(batch / 127.5 - 1, noise) < cost(batch / 127.5 - 1, noise.roll(1, 0))


def test_a_coupler_with_several_noise_samples_per_image():
    pytest.importorskip("genkit_immiscible")
    coupler = genkit.component("coupler", "immiscible", candidates=3)
    ((batch, noise),) = genkit.PairedLoader([IMAGES], coupler)
    assert noise.shape == batch.shape


@pytest.mark.parametrize("batch", [[], 3, {"img": IMAGES}, (["a"], LABELS), IMAGES[:, 0, 0, 0]])
def test_a_batch_without_images_is_refused(batch):
    with raises_code(DataError, Code.WRONG_TYPE, "batch 1"):
        list(genkit.PairedLoader([IMAGES, batch], "random"))


@pytest.mark.parametrize("coupler", ["random", "hungarian"])
def test_an_image_that_is_not_finite_is_refused(coupler):
    images = IMAGES.clone()
    images[5, 0, 1, 2] = torch.nan
    with raises_code(DataError, Code.NOT_FINITE, "batch 1", "image 5"):
        list(genkit.PairedLoader([IMAGES, images], coupler))


class Row(NamedTuple):
    image: torch.Tensor
    label: torch.Tensor | None = None
    other: object = None


class Reversed(Coupler):
    bijective = True

    def pair(self, batch, noise, generator):
        order = torch.arange(len(batch))
        return Pairs(order.flip(0), order)


@pytest.mark.parametrize("other", [None, 3, "train", [1, 2], torch.tensor(3), torch.ones(5)])
def test_values_that_are_not_of_items_are_not_changed(other):
    batches = [Row(IMAGES, None, other), (IMAGES, None, other), {"image": IMAGES, "other": other}]
    for batch, _ in genkit.PairedLoader(batches, "hungarian"):
        assert repr(batch["other"] if isinstance(batch, dict) else batch[2]) == repr(other)


def test_a_named_tuple_keeps_its_type():
    ((batch, _),) = genkit.PairedLoader([Row(IMAGES, LABELS, IMAGES.numpy())], Reversed())
    assert isinstance(batch, Row)
    assert torch.equal(batch.image, IMAGES.flip(0))
    assert torch.equal(batch.label, LABELS.flip(0))
    assert np.array_equal(batch.other, batch.image)


@pytest.mark.parametrize("labels", [LABELS[:, None], LABELS[:-1], LABELS / 2])
def test_labels_that_cannot_be_used_are_refused(labels):
    for batch in ((IMAGES, labels), {"image": IMAGES, "label": labels}):
        with raises_code(DataError, Code.WRONG_SHAPE, "batch 0", "labels", "[24]", "pass"):
            list(genkit.PairedLoader([batch], "random"))
    ((_, noise),) = genkit.PairedLoader([{"image": IMAGES, "classes": labels}], "random")
    assert len(noise) == len(IMAGES)


def test_wrong_couplers_are_refused():
    with raises_code(UnknownComponentError, Code.UNKNOWN_COMPONENT, '"hungarian"'):
        genkit.PairedLoader([IMAGES], "hungarain")
    with raises_code(SettingError, Code.UNKNOWN_KEY, "costs"):
        genkit.PairedLoader([IMAGES], {"use": "hungarian", "costs": "squared"})
    for coupler, got in ((3, "int"), (genkit.component("objective", "denoising"), "Denoising")):
        with raises_code(DataError, Code.WRONG_TYPE, "coupler", got, "write"):
            genkit.PairedLoader([IMAGES], coupler)


@pytest.mark.parametrize("seed", ["a", 0.5, None, True])
def test_a_seed_is_an_integer(seed):
    with raises_code(DataError, Code.WRONG_TYPE, "seed", seed):
        genkit.PairedLoader(loader(IMAGES), "random", seed=seed)
    numpy = genkit.PairedLoader([IMAGES], "random", seed=np.int64(3))
    ((_, noise),) = genkit.PairedLoader([IMAGES], "random", seed=3)
    assert torch.equal(next(iter(numpy))[1], noise)


def test_a_loader_has_batches_with_images():
    with raises_code(DataError, Code.WRONG_TYPE, "loader", "int"):
        genkit.PairedLoader(5, "random")
    with raises_code(DataError, Code.WRONG_LENGTH, "batch 1"):
        list(genkit.PairedLoader([IMAGES, IMAGES[:0]], "hungarian"))


def test_batches_and_pairs_are_shown_by_their_shapes():
    batch = genkit.Batch(IMAGES, LABELS)
    assert repr(batch) == "Batch(data=float32[24, 1, 4, 4], labels=int64[24])"
    pairs = Pairs(LABELS, LABELS, gap=0.0)
    assert repr(pairs) == "Pairs(data=int64[24], noise=int64[24], gap=0.0)"
