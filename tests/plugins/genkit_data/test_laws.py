from __future__ import annotations

import pytest
import torch

from genkit.testing import check_augmentation, check_dataset
from genkit.types import Batch
from genkit_data.flip import Flip
from genkit_data.handwritten import Digits
from genkit_data.points import Moons, SwissRoll
from genkit_data.real_and_fake import RealAndFake


@pytest.mark.parametrize(
    "dataset", [Digits(), SwissRoll(), Moons()], ids=lambda d: type(d).__name__
)
def test_datasets(dataset):
    check_dataset(dataset)


@pytest.mark.parametrize("labels", [False, True])
def test_real_and_fake(with_samples, labels):
    samples = with_samples(Batch(torch.zeros(20, 1, 8, 8), torch.arange(20) % 10))
    dataset = RealAndFake(real=Digits(), fakes="fakes", labels=labels)
    check_dataset(dataset, samples)


def test_augmentations():
    check_augmentation(Flip())
