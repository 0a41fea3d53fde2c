"""Samples with the settings that a sweep found best: which sweeps do, and what is recorded."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from genkit.artifacts import Samples, Scores
from genkit.errors import Code, RecipeError
from genkit.recipe.encode import resolved
from genkit_stages.best_cell import BestCell
from genkit_stages.sample import Sample
from raising import raises_code

BEST = """
[[stage]]
id = "best"
use = "sample"
denoiser = "denoiser"
count = 4
first_seed = 8
settings_from = { stage = "sweep", score = "truncation_2", rule = "min" }
"""


@pytest.mark.parametrize("rule", ["min", "max"])
def test_the_best_combination_is_sampled_and_recorded(tiny, tmp_path, rule):
    score = score_of(tiny)
    text = tiny.sweep + BEST.replace("truncation_2", score).replace('"min"', f'"{rule}"')
    tiny.run(text, folder=tmp_path / "run")
    sweep, best = (next((tmp_path / "run").glob(f"*-{name}")) for name in ("sweep", "best"))
    rows = Scores.load(sweep / "scores.json").rows
    wanted = (min if rule == "min" else max)(rows, key=lambda row: row[score])
    samples = Samples.load(best / "samples.safetensors")
    fact = json.loads(samples.facts["settings_from"])
    assert fact["candidates"] == len(rows) == 4
    assert (fact["rule"], fact["score"]) == (f"{rule} {score}", wanted[score])
    assert fact["chosen"] == {name: wanted[name] for name in fact["chosen"]}
    steps, rho = fact["chosen"]["schedule.steps"], fact["chosen"]["schedule.rho"]
    sampler = json.loads(samples.facts["sampler"])
    assert (sampler["schedule"]["steps"], sampler["schedule"]["rho"]) == (steps, rho)
    # They are those of a stage in which the settings are written out.
    written = (
        BEST.partition("settings_from")[0] + f"schedule.steps = {steps}\nschedule.rho = {rho}\n"
    )
    written += "schedule.use = 'edm'\n"
    tiny.run(tiny.train + written, folder=tmp_path / "written")
    other = next((tmp_path / "written").glob("*-best/samples.safetensors"))
    assert torch.equal(samples.batch.data, Samples.load(other).batch.data)


def score_of(tiny):
    """Return the name of the one score of the sweep."""
    sweep = tiny.load(tiny.sweep).stages["sweep"]
    return sweep.metrics[0].scores[0]


@pytest.mark.parametrize(
    ("change", "code", "names"),
    [
        ({"first_seed = 8": "first_seed = 7"}, Code.CONFLICT, ["first_seed", "8"]),
        ({"SCORE": "fid"}, Code.UNKNOWN_CHOICE, ["fid"]),
        ({'"min"': '"best"'}, Code.UNKNOWN_CHOICE, ["rule"]),
        ({'"sweep"': '"samples"'}, Code.WRONG_REFERENCE, ["settings_from.stage"]),
        ({'stage = "sweep", ': ""}, Code.MISSING_KEY, ["settings_from.stage"]),
        ({'rule = "min"': "rule = 'min', more = 1"}, Code.UNKNOWN_KEY, ["more"]),
        ({'settings_from = { stage = "sweep"': "settings_from = 3 # {"}, Code.WRONG_TYPE, ["3"]),
    ],
)
def test_mistakes_are_refused_before_anything_runs(tiny, change, code, names):
    text = BEST.replace("truncation_2", "SCORE")
    for old, new in ({"SCORE": score_of(tiny)} | change).items():
        text = text.replace(old, new)
    with raises_code(RecipeError, code, *names):
        tiny.load(tiny.sweep + text)


@pytest.mark.parametrize(
    ("vary", "code"),
    [
        ("vary.first_seed = [0, 100]", Code.CONFLICT),
        ("vary.count = [8, 16]", Code.CONFLICT),
    ],
)
def test_a_sweep_over_the_samples_themselves_chooses_nothing(tiny, vary, code):
    text = tiny.sweep.replace("vary.schedule.rho = [7.0, 20.0]", vary)
    with raises_code(RecipeError, code, "settings_from.stage"):
        tiny.load(text + BEST.replace("truncation_2", score_of(tiny)).replace("= 8", "= 400"))


def test_a_setting_that_does_not_fit_is_refused(tiny):
    text = BEST.replace("truncation_2", score_of(tiny)) + "schedule = { use = 'linear' }\n"
    with raises_code(RecipeError, Code.CONFLICT, "rho"):
        tiny.load(tiny.sweep + text)


def test_settings_are_described_as_a_recipe_writes_them(tiny):
    text = tiny.sweep + BEST.replace("truncation_2", score_of(tiny))
    stage = tiny.load(text).stages["best"]
    assert isinstance(stage, Sample)
    assert stage.settings_from == BestCell(stage="sweep", score=score_of(tiny))
    assert dataclasses.replace(stage, settings_from=None).settings_from is None
    loaded = tiny.load(text, 'best.settings_from.rule="max"').stages["best"]
    assert loaded.settings_from.rule == "max"
    table = next(
        t for t in resolved(tiny.load(text), tiny.plugins.registry)["stage"] if t["id"] == "best"
    )
    assert table["settings_from"] == {"stage": "sweep", "score": score_of(tiny), "rule": "min"}


def test_a_sweep_over_no_list_is_reported_by_the_sweep_alone(tiny):
    with pytest.raises(RecipeError) as caught:
        tiny.load(
            tiny.sweep + BEST.replace("truncation_2", score_of(tiny)), "sweep.vary.schedule.rho=7.0"
        )
    (mistake,) = caught.value.mistakes
    assert (mistake.key, mistake.problem.code) == ("sweep.vary.schedule.rho", Code.WRONG_TYPE)
