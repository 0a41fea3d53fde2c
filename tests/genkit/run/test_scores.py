"""What samples are compared with."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest
import tomli_w
import torch

from genkit.artifacts.statistics import Statistics, save_statistics
from genkit.errors import Code, RecipeError
from genkit.recipe.encode import resolved
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
    assert "scores.metrics.0.extractor.classifier: must be trained on items of shape" in line


def test_a_classifier_without_a_file_is_reported_once(tiny):
    scores = SCORES.replace('classifier = "digits"', 'file = "nope"')
    with pytest.raises(RecipeError) as caught:
        tiny.load(tiny.sample + scores)
    (mistake,) = caught.value.mistakes
    assert mistake.key == "scores.metrics.0.extractor.file"


def test_samples_too_few_for_a_metric_are_refused_before_anything_runs(tiny):
    scores = SCORES.replace('"classifier", classifier = "digits"', '"pixels"')
    tiny.load(tiny.sample + scores, "samples.count=2")
    with raises_code(RecipeError, Code.CONFLICT, "2 samples", 1):
        tiny.load(tiny.sample + scores, "samples.count=1")


def test_no_metrics_are_refused_before_anything_runs(tiny):
    with raises_code(RecipeError, Code.WRONG_LENGTH, "scores.metrics"):
        tiny.load(tiny.sample + SCORES.partition("metrics")[0] + "metrics = []")


def test_one_metric_twice_is_refused_before_anything_runs(tiny):
    twice = SCORES.partition("metrics")[0] + 'metrics = [{ use = "frechet" }, { use = "frechet" }]'
    with raises_code(RecipeError, Code.DUPLICATE, "metrics.1"):
        tiny.load(tiny.sample + twice)


def test_two_metrics_with_one_score_are_refused_before_anything_runs(tiny):
    metrics = ('{ use = "frechet" }', '{ use = "prdc" }', '{ use = "prdc", neighbors = 3 }')
    twice = f"{SCORES.partition('metrics')[0]}metrics = [{', '.join(metrics)}]"
    with raises_code(RecipeError, Code.DUPLICATE, "metrics.2", "metrics[1]"):
        tiny.load(tiny.sample + twice)


def test_samples_too_few_for_the_subsets_of_kid_are_refused_before_anything_runs(tiny):
    scores = SCORES.partition("metrics")[0] + 'metrics = [{ use = "kid" }]'
    enough = ("samples.count=1000", "data.items=1000")
    tiny.load(tiny.sample + scores, *enough)
    with raises_code(RecipeError, Code.CONFLICT, "1000 samples", 999):
        tiny.load(tiny.sample + scores, *enough, "samples.count=999")
    with raises_code(RecipeError, Code.CONFLICT, "1000 reference items", 999):
        tiny.load(tiny.sample + scores, *enough, "data.items=999")


def test_more_neighbors_than_items_are_refused_before_anything_runs(tiny):
    scores = SCORES.partition("metrics")[0] + 'metrics = [{ use = "prdc", neighbors = 7 }]'
    enough = ("samples.count=8", "data.items=8")
    tiny.load(tiny.sample + scores, *enough)
    with raises_code(RecipeError, Code.CONFLICT, "8 samples", 7):
        tiny.load(tiny.sample + scores, *enough, "samples.count=7")
    with raises_code(RecipeError, Code.CONFLICT, "8 samples", 7):
        tiny.load(tiny.sample + scores, *enough, "samples.count=14", "scores.sets=2")
    with raises_code(RecipeError, Code.CONFLICT, "8 reference items", 7):
        tiny.load(tiny.sample + scores, *enough, "data.items=7")


@pytest.mark.parametrize("path", ["nowhere.npz", "~nobody-of-this-name/edm.npz"])
def test_a_file_of_statistics_that_does_not_exist_is_refused_before_anything_runs(tiny, path):
    scores = (
        f'{SCORES.partition("metrics")[0]}statistics = "{path}"\nmetrics = [{{ use = "frechet" }}]'
    )
    with raises_code(RecipeError, Code.NOT_FOUND, "scores.statistics", path):
        tiny.load(tiny.sample + scores)


def test_a_file_without_the_statistics_of_a_metric_is_refused_before_anything_runs(tiny, tmp_path):
    file = tmp_path / "a.safetensors"
    text = tiny.sample + SCORES.partition("metrics")[0]
    text += f'statistics = "{file}"\nmetrics = [{{ use = "spread" }}, {{ use = "frechet" }}]'
    file.write_bytes(b"something else")
    with raises_code(RecipeError, Code.UNREADABLE, "scores.statistics", file.name):
        tiny.load(text)
    statistics = Statistics(torch.zeros(2), torch.eye(2), 8, "pixels", "data")
    save_statistics(file, {"fid": statistics})
    with raises_code(RecipeError, Code.WRONG_KIND, "scores.metrics.1.extractor", "frechet_pixels"):
        tiny.load(text)
    with raises_code(RecipeError, Code.WRONG_KIND, "scores.metrics.0.extractor", "frechet_pixels"):
        tiny.load(text)
    save_statistics(file, {"frechet_pixels": statistics})
    tiny.load(text)


def test_statistics_of_another_network_are_refused_before_anything_runs(tiny, tmp_path):
    file = tmp_path / "a.safetensors"
    text = tiny.sample + SCORES.partition("metrics")[0]
    text += f'statistics = "{file}"\nmetrics = [{{ use = "frechet" }}]'
    for extractor, refused in ((None, False), ("pixels", False), ("pixels of others", True)):
        statistics = Statistics(torch.zeros(2), torch.eye(2), 8, extractor, "data")
        save_statistics(file, {"frechet_pixels": statistics})
        at = ("scores.metrics.0.extractor", "pixels of others")
        with raises_code(RecipeError, Code.WRONG_KIND, *at) if refused else nullcontext():
            tiny.load(text)


def test_data_beside_statistics_is_refused_and_that_of_the_recipe_is_left_out(tiny, tmp_path):
    file = tmp_path / "a.safetensors"
    statistics = Statistics(torch.zeros(2), torch.eye(2), 8, "pixels", "data")
    save_statistics(file, {"frechet_pixels": statistics})
    text = tiny.sample + SCORES.partition("metrics")[0] + 'metrics = [{ use = "frechet" }]\n'
    named = f'statistics = "{file}"\n'
    recipe = tiny.load(text + named)
    assert recipe.stages["scores"].data is None
    again = tomli_w.dumps(resolved(recipe, tiny.plugins.registry))
    assert tiny.load(again).stages == recipe.stages
    with raises_code(RecipeError, Code.CONFLICT, "scores.statistics", "data"):
        tiny.load(text + named + 'data = { use = "moons" }\n')


def test_an_extractor_of_other_samples_is_refused_beside_statistics_too(tiny, tmp_path):
    np.savez(tmp_path / "edm.npz", mu=np.zeros(2), sigma=np.eye(2))
    named = SCORES.replace("samples =", f'statistics = "{tmp_path}/edm.npz"\nsamples =')
    with raises_code(RecipeError, Code.CONFLICT, "scores.metrics.0.extractor.classifier"):
        tiny.load(tiny.sample + CLASSIFIER + named)


CONDITIONAL = (
    'denoiser.coupler={ use = "partitioned", by = ["label"] }',
    "denoiser.network.class_conditional=true",
)


def test_a_metric_of_classes_requires_a_denoiser_with_classes(tiny):
    scores = SCORES.partition("metrics")[0] + 'metrics = [{ use = "frechet-by-class" }]'
    tiny.load(tiny.sample + scores, *CONDITIONAL)
    with raises_code(RecipeError, Code.MISSING_ATTRIBUTE, "scores.metrics.0", "denoiser"):
        tiny.load(tiny.sample + scores)


def test_metrics_of_features_are_measured_side_by_side(tiny):
    names = ("frechet", "frechet-by-class", "prdc", "nearest", "mifid", "spread")
    metrics = ", ".join(f'{{ use = "{name}" }}' for name in names)
    scores = SCORES.partition("metrics")[0] + f"sets = 2\nmetrics = [{metrics}]"
    tiny.run(tiny.sample + scores, "samples.count=48", *CONDITIONAL)
    (row,) = json.loads(tiny.bytes_of("scores.json"))["rows"]
    assert {name for name in row if "_pixels" in name and not name.endswith(("_std", "_min"))} == {
        "frechet_pixels",
        "frechet_pixels_by_class",
        "frechet_pixels_by_class_max",
        *(f"{name}_pixels" for name in ("precision", "recall", "density", "coverage")),
        "nearest_pixels",
        "authentic_pixels",
        "mifid_pixels",
        "spread_pixels",
    }
