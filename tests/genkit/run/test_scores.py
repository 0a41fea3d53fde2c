"""What samples are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from genkit.errors import Code, RecipeError
from genkit.interfaces import Dataset
from genkit.types import Batch, DataSpec
from genkit_stages.scores import load_reference
from raising import raises_code


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


CLASSIFIER = """
[[stage]]
id = "digits"
use = "train"
images = 64
data = { use = "digits" }
network = { use = "cnn-classifier" }
objective = { use = "classification" }
"""

SCORES = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "frechet", extractor = { use = "classifier", classifier = "digits" } }]
"""


def test_an_extractor_of_other_items_is_refused_before_anything_runs(tiny):
    with pytest.raises(RecipeError) as caught:
        tiny.load(tiny.sample + CLASSIFIER + SCORES)
    (line,) = caught.value.lines
    assert "scores.metrics.0.extractor.classifier: must be trained on items of the shape" in line


def test_samples_too_few_for_a_metric_are_refused_before_anything_runs(tiny):
    scores = SCORES.replace('"classifier", classifier = "digits"', '"pixels"')
    tiny.load(tiny.sample + scores, "samples.count=2")
    with raises_code(RecipeError, Code.CONFLICT, "2 samples", 1):
        tiny.load(tiny.sample + scores, "samples.count=1")


def test_one_metric_twice_is_refused_before_anything_runs(tiny):
    twice = SCORES.partition("metrics")[0] + 'metrics = [{ use = "frechet" }, { use = "frechet" }]'
    with raises_code(RecipeError, Code.DUPLICATE, "metrics.1"):
        tiny.load(tiny.sample + twice)
