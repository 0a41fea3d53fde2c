"""What samples are compared with."""

from __future__ import annotations

import pytest

from genkit.errors import Code, RecipeError
from raising import raises_code

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
