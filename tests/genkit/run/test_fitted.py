"""Fitted noise levels, from the stage that fits them to the stages that use them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import genkit
from genkit.artifacts import DenoiserFile, Samples, Scores
from genkit.errors import Code, DataError, RecipeError
from genkit_stages.fitted_levels import FittedLevels
from raising import raises_code

pytestmark = pytest.mark.slow

FIT = """
[[stage]]
id = "fit"
use = "fit-schedule"
denoiser = "denoiser"
steps = 3
"""
FITTED = 'samples.schedule={ use = "fitted", levels = "fit", steps = 3 }'
SCORES = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [
    { use = "frechet" },
    { use = "curvature", count = 8, schedule = { use = "fitted", levels = "fit", steps = 3 } },
]

[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
count = 8
vary.precision = ["float32"]
metrics = [{ use = "frechet" }]
"""
SCHEDULE = {"use": "fitted", "steps": 3}


@pytest.fixture
def recipe(tiny):
    return tiny.train + FIT + tiny.samples


def paths(tiny):
    (denoiser,) = tiny.folder.glob("*-denoiser/denoiser.safetensors")
    (levels,) = tiny.folder.glob("*-fit/levels.json")
    return denoiser, levels


def test_samples_and_metrics_use_the_fitted_levels(tiny, recipe):
    tiny.run(recipe + SCORES, FITTED)
    denoiser, levels = paths(tiny)
    found = json.loads(levels.read_text())
    assert (len(found["levels"]), found["start"]) == (3, "noise")
    assert found["samples"] <= 2000
    (path,) = tiny.folder.glob("*-scores/scores.json")
    scores = Scores.load(path)
    assert scores.curves["curvature"].x == pytest.approx(found["levels"])
    levels_of = [float(level) for level in scores.facts["curvature"]["levels"].split(", ")]
    assert levels_of == pytest.approx([*found["levels"], 0], rel=1e-5)
    drawn = Samples.load(next(tiny.folder.glob("*-samples/samples.safetensors")))
    assert drawn.nfe == 5
    # The same file serves outside of the run, for the weights of the run wherever they lie.
    schedule = {**SCHEDULE, "levels": str(levels)}
    samples = genkit.load_denoiser(denoiser, "cpu").sample(4, schedule=schedule, seed=1)
    assert samples.shape == (4, 2)


def test_a_changed_digit_of_the_levels_is_detected(tiny, recipe):
    tiny.run(recipe, FITTED)
    _, path = paths(tiny)
    assert FittedLevels.load(path).levels
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"levels": [found["levels"][0] + 1, *found["levels"][1:]]}))
    with raises_code(DataError, Code.UNREADABLE, "levels.json"):
        FittedLevels.load(path)


def test_a_fit_is_the_same_bytes_again(tiny, recipe, tmp_path):
    tiny.run(recipe, FITTED)
    tiny.run(recipe, FITTED, folder=tmp_path / "again")
    for name in ("levels.json", "samples.safetensors"):
        assert tiny.bytes_of(name) == tiny.bytes_of(name, tmp_path / "again")


@pytest.mark.parametrize(
    "override",
    [
        'samples.schedule={ use = "fitted", levels = "fit", steps = 4 }',
        'samples.solver={ use = "euler" }',
    ],
)
def test_other_steps_and_solvers_are_refused_before_a_run(tiny, recipe, override):
    with raises_code(RecipeError, Code.CONFLICT, "fit"):
        tiny.load(recipe, FITTED, override)


def test_another_start_is_refused_before_a_run_unless_one_is_auto(tiny, recipe):
    tiny.load(recipe, FITTED, 'samples.start="noise"')
    tiny.load(recipe, FITTED, 'fit.start="noise"')
    tiny.load(recipe, FITTED, 'samples.start="noise"', 'fit.start="noise"')
    with raises_code(RecipeError, Code.CONFLICT, "noise", "corrected"):
        tiny.load(recipe, FITTED, 'samples.start="noise"', 'fit.start="corrected"')


def test_another_denoiser_is_refused_before_a_run(tiny, recipe):
    other = tiny.train.split("[[stage]]")[1].replace('"denoiser"', '"other"', 1)
    with raises_code(RecipeError, Code.CONFLICT, "other"):
        text = f"{tiny.train}[[stage]]{other}{FIT}{tiny.samples}"
        tiny.load(text, FITTED, 'samples.denoiser="other"')


def test_what_the_levels_were_not_fitted_to_is_refused(tiny, recipe, tmp_path):
    tiny.run(recipe, FITTED)
    path, levels = paths(tiny)
    schedule = {**SCHEDULE, "levels": str(levels)}
    denoiser = genkit.load_denoiser(path, "cpu")
    with raises_code(DataError, Code.CONFLICT, "solver"):
        denoiser.sample(1, schedule=schedule, solver="euler")
    with raises_code(DataError, Code.CONFLICT, "steps"):
        denoiser.sample(1, schedule={**schedule, "steps": 4})
    with raises_code(DataError, Code.CONFLICT, "start"):
        denoiser.sample(1, schedule=schedule, start="corrected")
    file = DenoiserFile.load(path)
    name, tensor = next(iter(file.weights.items()))
    other = tmp_path / "other.safetensors"
    replace(file, weights={**file.weights, name: tensor + 1}).save(other)
    with raises_code(DataError, Code.CONFLICT, "denoiser"):
        genkit.load_denoiser(other, "cpu").sample(1, schedule=schedule)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"levels": [1.0, 2.0]}'])
def test_a_damaged_file_is_refused(tiny, recipe, content):
    tiny.run(recipe, FITTED)
    path, levels = paths(tiny)
    levels.write_text(content)
    with raises_code(DataError, Code.UNREADABLE):
        genkit.load_denoiser(path, "cpu").sample(1, schedule={**SCHEDULE, "levels": str(levels)})


def test_levels_that_increase_are_refused(tiny, recipe):
    tiny.run(recipe, FITTED)
    path, levels = paths(tiny)
    found = json.loads(levels.read_text())
    levels.write_text(json.dumps({**found, "levels": found["levels"][::-1]}))
    with raises_code(DataError, Code.UNREADABLE):
        genkit.load_denoiser(path, "cpu").sample(1, schedule={**SCHEDULE, "levels": str(levels)})


def test_where_fitted_levels_cannot_be_used_they_are_refused(tiny, recipe):
    truncation = SCORES.replace('"curvature", count = 8', '"truncation", count = 8, steps = [2]')
    with raises_code(RecipeError, Code.CONFLICT):
        tiny.load(recipe + truncation, FITTED)
    preview = '{ use = "preview", every = 128, schedule = { use = "fitted", levels = "fit" } }'
    second = tiny.train.split("[[stage]]")[1].replace('"denoiser"', '"second"', 1)
    with raises_code(RecipeError, Code.CONFLICT):
        tiny.load(tiny.train + FIT + f"[[stage]]{second}callbacks = [{preview}]\n")


def test_wrong_settings_of_a_fit_are_refused(tiny, recipe):
    with raises_code(RecipeError, Code.OUT_OF_RANGE, "sigma_min"):
        tiny.load(recipe, FITTED, "fit.sigma_min=90.0")
    with raises_code(RecipeError, Code.WRONG_SHAPE, "data"):
        tiny.load(recipe, FITTED, 'fit.data={ use = "digits" }')
