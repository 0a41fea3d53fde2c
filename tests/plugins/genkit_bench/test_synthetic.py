from __future__ import annotations

import torch

from genkit.parts.no_stages import NoStages
from genkit.types import DataSpec
from genkit_bench.synthetic import Synthetic


def test_images_of_a_shape():
    data = Synthetic(shape=(3, 4, 6), classes=5, count=40)
    batch = data.load(NoStages(torch.device("cpu")))
    assert data.spec() == DataSpec((3, 4, 6), 5)
    assert batch.data.shape == (40, 3, 4, 6)
    assert batch.data.abs().max() <= 1
    assert set(batch.labels.tolist()) <= set(range(5))
    again = data.load(NoStages(torch.device("cpu")))
    assert torch.equal(batch.data, again.data)


def test_vectors_without_labels():
    data = Synthetic(shape=(7,), classes=0, count=3)
    batch = data.load(NoStages(torch.device("cpu")))
    assert batch.data.shape == (3, 7)
    assert batch.labels is None
    assert data.spec() == DataSpec((7,))
