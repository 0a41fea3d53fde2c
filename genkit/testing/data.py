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
"""Max absolute value after augmentation: resampling overshoots [-1, 1] at sharp edges."""


def check_dataset(dataset: Dataset, inputs: Inputs | None = None) -> None:
    """Check every law of a data set.

    Args:
        dataset: data set to check.
        inputs: artifacts of earlier stages to which the data set refers.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    spec, batch = dataset.spec(), dataset.load(inputs or NoStages())
    data = batch.data
    require(len(batch) > 0, dataset, "has-items: there is an item", "none")
    count = dataset.item_count()
    law = "item-count: item_count() is the number of items, or None"
    require(count in (None, len(batch)), dataset, law, f"{count}, {len(batch)} items")
    shape = tuple(data.shape[1:])
    require(shape == spec.shape, dataset, "spec-shape: items have it", f"{shape}, {spec}")
    law = "data-type: data is float32 on the CPU, or uint8 where items are images"
    allowed = {torch.float32, torch.uint8} if spec.is_image else {torch.float32}
    sound = data.dtype in allowed and data.device.type == "cpu"
    require(sound, dataset, law, f"{data.dtype} on {data.device}")
    require_finite(data, "item")
    if spec.is_image and data.is_floating_point():
        low, high = float(data.min()), float(data.max())
        require(low >= -1 and high <= 1, dataset, "image-range: [-1, 1]", f"[{low}, {high}]")
    known = tensors_of(batch).keys() & {"labels", "realness", "embeddings"}
    law = "spec-attributes: labels, realness and embeddings are there exactly as it says"
    require(known == spec.attributes, dataset, law, f"{sorted(known)}, {spec}")
    classes = {"labels": spec.classes, "realness": 2}
    for name, count in classes.items():
        values = getattr(batch, name)
        if values is not None:
            law = f"class-indices: {name} are int64, one for each item, in 0 to {count - 1}"
            kind = values.dtype == torch.int64 and values.shape == (len(batch),)
            require(kind, dataset, law, f"{values.dtype} {list(values.shape)}")
            low, high = int(values.min()), int(values.max())
            require(low >= 0 and high < count, dataset, law, f"{low} to {high}")
    if batch.embeddings is not None:
        law = "embeddings: embeddings are float32, a vector as long as spec() says for each item"
        found = batch.embeddings
        sound = found.dtype == torch.float32 and found.shape == (len(batch), spec.embeddings)
        require(sound, dataset, law, f"{found.dtype} {list(found.shape)}")
        require_finite(found, "embedding")
    again = tensors_of(dataset.load(inputs or NoStages()))
    same = all(torch.equal(value, again[name]) for name, value in tensors_of(batch).items())
    require(same, dataset, "same-again: every load gives the same", "others on a second load")


def check_augmentation(augmentation: Augmentation) -> None:
    """Check every law of an augmentation, on images of 3 channels, 8 by 8.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    g = generator(0, "laws of augmentations")
    data = torch.rand((16, 3, 8, 8), generator=g) * 2 - 1
    batch = Batch(data, torch.arange(16) % 3, torch.arange(16) % 2)
    with require_pure(augmentation, **tensors_of(batch)):
        changed = augmentation.augment(batch, generator(0, "augment"))
    law = "keeps-images: it keeps the number, shape and type of the images"
    kept = changed.data.shape == data.shape and changed.data.dtype == data.dtype
    require(kept, augmentation, law, f"{changed.data.dtype} {list(changed.data.shape)}")
    for name, value in tensors_of(batch).items():
        found = getattr(changed, name)
        if name != "data" and (found is None or not torch.equal(found, value)):
            raise LawBroken(augmentation, f"keeps-attributes: it keeps the {name}", found)
    low, high = float(changed.data.min()), float(changed.data.max())
    inside = low >= -OVERSHOOT and high <= OVERSHOOT
    law = f"image-range: [-1, 1], or up to {OVERSHOOT} where images are resampled"
    require(inside, augmentation, law, f"[{low}, {high}]")
    law = "augment-labels: augment_labels are float32 [N, A] where A is not 0, and else None"
    vectors, length = changed.augment_labels, augmentation.augment_labels
    sound = (vectors is None) == (length == 0) and (
        vectors is None or (vectors.dtype == torch.float32 and vectors.shape == (len(data), length))
    )
    seen = "none" if vectors is None else f"{vectors.dtype} {list(vectors.shape)}"
    require(sound, augmentation, law, f"{seen} where A is {length}")
    again = tensors_of(augmentation.augment(batch, generator(0, "augment")))
    law = "same-again: the same generator state gives the same images"
    same = all(torch.equal(value, again[name]) for name, value in tensors_of(changed).items())
    require(same, augmentation, law, "others on a second call")
