from __future__ import annotations

import hashlib

import torch

from genkit.types import DataSpec
from genkit_data.handwritten import Digits

# The first image of scikit-learn's load_digits, a zero.
FIRST = [
    [0, 0, 5, 13, 9, 1, 0, 0],
    [0, 0, 13, 15, 10, 15, 5, 0],
    [0, 3, 15, 2, 0, 11, 8, 0],
    [0, 4, 12, 0, 0, 8, 8, 0],
    [0, 5, 8, 0, 0, 9, 8, 0],
    [0, 4, 11, 0, 1, 12, 7, 0],
    [0, 2, 14, 5, 10, 12, 0, 0],
    [0, 0, 6, 13, 10, 0, 0, 0],
]


def test_the_numbers_are_those_of_scikit_learn(inputs):
    batch = Digits().load(inputs)
    grey = (batch.data + 1) * 8
    assert batch.data.shape == (1797, 1, 8, 8)
    assert batch.data.dtype == torch.float32
    assert batch.labels.dtype == torch.int64
    assert grey[0, 0].int().tolist() == FIRST
    assert grey.double().sum() == 561718
    assert grey.double().square().sum() == 6907012
    assert batch.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    by_class = [int(grey[batch.labels == k].double().sum()) for k in range(10)]
    assert by_class == [56415, 57007, 55566, 56151, 56239, 55915, 56336, 54289, 57408, 56392]


def test_order_and_values_match_to_the_byte(inputs):
    batch = Digits().load(inputs)
    images = ((batch.data + 1) * 8).to(torch.uint8).numpy().tobytes()
    labels = batch.labels.to(torch.uint8).numpy().tobytes()
    assert hashlib.sha256(images).hexdigest() == (
        "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    )
    assert hashlib.sha256(labels).hexdigest() == (
        "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"
    )


def test_range_and_spec(inputs):
    data = Digits().load(inputs).data
    assert (data.min(), data.max()) == (-1, 1)
    assert Digits().spec() == DataSpec((1, 8, 8), classes=10)
