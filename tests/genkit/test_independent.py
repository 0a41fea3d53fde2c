from __future__ import annotations

import torch

from genkit.errors import Code, DataError
from genkit.independent import Random
from genkit.random import generator
from genkit.testing import check_coupler
from genkit.types import Batch
from raising import raises_code


def test_laws():
    check_coupler(Random())


def test_noise_meets_the_image_at_its_own_position():
    pairs = Random().pair(Batch(torch.zeros(4, 2)), torch.ones(4, 2), generator(0))
    assert pairs.data.tolist() == pairs.noise.tolist() == [0, 1, 2, 3]


def test_fewer_noises_than_images_are_refused():
    with raises_code(DataError, Code.WRONG_LENGTH, "4 images", "got 3"):
        Random().pair(Batch(torch.zeros(4, 2)), torch.ones(3, 2), generator(0))
