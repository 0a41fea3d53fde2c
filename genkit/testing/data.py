"""Contract tests of data sets and augmentations."""

from __future__ import annotations

import torch

from genkit.interfaces import Augmentation, Dataset, Inputs
from genkit.parts.no_stages import NoStages
from genkit.random import generator
from genkit.tensors import require_finite
from genkit.testing.laws import LawBroken, require, require_pure, tensors_of
from genkit.types import Batch

OVERSHOOT = 2.0
"""Max absolute value after augmentation: resampling can overshoot [-1, 1] at sharp edges."""


def check_dataset(dataset: Dataset, inputs: Inputs | None = None) -> None:
    """Check every law of a data set.

    Args:
        dataset: data set to check.
        inputs: artifacts of the earlier stages to which the data set refers; None without any.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    spec, batch = dataset.spec(), dataset.load(inputs or NoStages())
    data = batch.data
    require(len(batch) > 0, dataset, "has-items: the data set has at least one item", "no items")
    count = dataset.item_count()
    law = "item-count: item_count() returns the number of items, or None"
    require(count in (None, len(batch)), dataset, law, f"{count}, {len(batch)} items")
    shape = tuple(data.shape[1:])
    law = "spec-shape: items have the shape in spec()"
    require(shape == spec.shape, dataset, law, f"{shape}, {spec}")
    law = "data-type: data is a float32 tensor on the CPU, or uint8 if items are images"
    allowed = {torch.float32, torch.uint8} if spec.is_image else {torch.float32}
    sound = data.dtype in allowed and data.device.type == "cpu"
    require(sound, dataset, law, f"{data.dtype} on {data.device}")
    require_finite(data, "item")
    if spec.is_image and data.is_floating_point():
        low, high = float(data.min()), float(data.max())
        law = "image-range: float32 images have values in [-1, 1]"
        require(low >= -1 and high <= 1, dataset, law, f"[{low}, {high}]")
    present = tensors_of(batch).keys() & {"labels", "realness", "embeddings"}
    law = "spec-attributes: of labels, realness and embeddings, the items have exactly those"
    law += " that spec() declares"
    require(present == spec.attributes, dataset, law, f"{sorted(present)}, {spec}")
    classes = {"labels": spec.classes, "realness": 2}
    for name, count in classes.items():
        values = getattr(batch, name)
        if values is not None:
            law = (
                f"class-indices: {name} is int64, with a value from 0 to {count - 1} for each item"
            )
            kind = values.dtype == torch.int64 and values.shape == (len(batch),)
            require(kind, dataset, law, f"{values.dtype} {list(values.shape)}")
            low, high = int(values.min()), int(values.max())
            require(low >= 0 and high < count, dataset, law, f"{low} to {high}")
    if batch.embeddings is not None:
        law = "embeddings: embeddings is float32, with spec().embeddings values for each item"
        values = batch.embeddings
        sound = values.dtype == torch.float32 and values.shape == (len(batch), spec.embeddings)
        require(sound, dataset, law, f"{values.dtype} {list(values.shape)}")
        require_finite(values, "embedding")
    again = tensors_of(dataset.load(inputs or NoStages()))
    same = all(torch.equal(value, again[name]) for name, value in tensors_of(batch).items())
    law = "same-again: every load returns the same items"
    require(same, dataset, law, "different items on the second load")


def check_augmentation(augmentation: Augmentation) -> None:
    """Check every law of an augmentation, on 16 images of shape [3, 8, 8].

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    g = generator(0, "laws of augmentations")
    data = torch.rand((16, 3, 8, 8), generator=g) * 2 - 1
    batch = Batch(data, torch.arange(16) % 3, torch.arange(16) % 2)
    with require_pure(augmentation, **tensors_of(batch)):
        changed = augmentation.augment(batch, generator(0, "augment"))
    law = "keeps-images: augment keeps the number, shape and dtype of the images"
    kept = changed.data.shape == data.shape and changed.data.dtype == data.dtype
    require(kept, augmentation, law, f"{changed.data.dtype} {list(changed.data.shape)}")
    for name, value in tensors_of(batch).items():
        after = getattr(changed, name)
        if name != "data" and (after is None or not torch.equal(after, value)):
            raise LawBroken(augmentation, f"keeps-attributes: augment keeps the {name}", after)
    low, high = float(changed.data.min()), float(changed.data.max())
    inside = low >= -OVERSHOOT and high <= OVERSHOOT
    law = f"image-range: values are in [-1, 1], or in [-{OVERSHOOT}, {OVERSHOOT}] after resampling"
    require(inside, augmentation, law, f"[{low}, {high}]")
    law = "augment-labels: augment_labels is float32 [N, A] if A is above 0, and otherwise None"
    vectors, length = changed.augment_labels, augmentation.augment_labels
    sound = (vectors is None) == (length == 0) and (
        vectors is None or (vectors.dtype == torch.float32 and vectors.shape == (len(data), length))
    )
    seen = "None" if vectors is None else f"{vectors.dtype} {list(vectors.shape)}"
    require(sound, augmentation, law, f"{seen}, A = {length}")
    again = tensors_of(augmentation.augment(batch, generator(0, "augment")))
    law = "same-again: the same generator state gives the same images"
    same = all(torch.equal(value, again[name]) for name, value in tensors_of(changed).items())
    require(same, augmentation, law, "different images on the second call")
