"""What samples are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from genkit.interfaces import Dataset
from genkit.run.stages.scores import load_reference
from genkit.types import Batch, DataSpec


@dataclass(frozen=True, kw_only=True)
class Bytes(Dataset):
    """Images as they are stored, with labels."""

    def spec(self):
        return DataSpec((1, 1, 3), classes=2)

    def load(self, inputs):
        images = torch.tensor([[0, 127, 255], [255, 0, 51]], dtype=torch.uint8)
        return Batch(images.reshape(2, 1, 1, 3), labels=torch.tensor([0, 1]))


def test_images_are_decoded_before_they_are_compared():
    found = load_reference(Bytes(), None)
    assert found.data.dtype == torch.float32
    expected = torch.tensor([[-1, 127 / 127.5 - 1, 1], [1, -1, -0.6]])
    torch.testing.assert_close(found.data.flatten(1), expected)
    assert found.labels.tolist() == [0, 1]
