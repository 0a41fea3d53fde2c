"""Samples with the settings that a sweep found best: which sweeps do, and what is recorded."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
import torch

from genkit.artifacts import Samples, Scores
from genkit.errors import Code, RecipeError
from genkit.recipe.encode import resolved
from genkit_stages.best_cell import BestCell
from genkit_stages.sample import Sample
from genkit_stages.sweep import _overlap
from raising import raises_code

pytestmark = pytest.mark.slow

BEST = """
[[stage]]
id = "best"
use = "sample"
denoiser = "denoiser"
count = 4
first_seed = 8
settings_from = { stage = "sweep", score = "truncation_2", rule = "min" }
"""


SPREAD = 'metrics = [{ use = "spread", extractor = { use = "pixels" }, directions = 1 }]\n'


@pytest.mark.parametrize("rule", ["min", "max"])
def test_the_best_combination_is_sampled_and_recorded(tiny, tmp_path, rule):
    swept = tiny.sweep
    if rule == "max":  # by a score of which neither a larger nor a smaller value is better
        swept = swept.partition("metrics")[0] + SPREAD
    (score, *_) = tiny.load(swept).stages["sweep"].metrics[0].scores
    text = swept + BEST.replace("truncation_2", score).replace('"min"', f'"{rule}"')
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
        ({'"min"': '"max"'}, Code.CONFLICT, ["settings_from.rule", 'rule = "min"']),
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
    with raises_code(RecipeError, Code.CONFLICT, "best.schedule", "edm", "linear"):
        tiny.load(tiny.sweep + text)


GUIDES = """[
    { use = "discriminator", discriminator = "discriminator" },
    { use = "autoguidance", guide = "weak" },
]"""
SWAPPED = """[
    { use = "autoguidance", guide = "weak" },
    { use = "discriminator", discriminator = "discriminator" },
]"""


def sampled_with_the_best(tiny, change):
    """Return a recipe with a sweep over two guidances, and with changes of its last stage."""
    weak = tiny.train[tiny.train.index("[[stage]]") :].replace('"denoiser"', '"weak"')
    text = tiny.sample + weak + tiny.guided
    text = text.replace('[{ use = "discriminator", discriminator = "discriminator" }]', GUIDES)
    text += tiny.sweep[len(tiny.sample) :].replace('samples = "samples"', 'samples = "guided"')
    text = text.replace("vary.schedule.steps = [2, 3]", "vary.guidance.0.weight = [0.5, 1.0]")
    best = BEST.replace("truncation_2", score_of(tiny))
    best += f"schedule = {{ use = 'edm', steps = 3 }}\nguidance = {GUIDES}\n"
    for old, new in change.items():
        assert old in best
        best = best.replace(old, new)
    return text + best


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"count = 4": "count = 40\nbatch_size = 7"},
        {"'edm', steps": "'edm', rho = 2.0, steps"},  # varied
        {'discriminator" }': 'discriminator", weight = 9.0 }'},  # varied
    ],
)
def test_the_samples_and_the_varied_settings_may_differ_from_those_of_the_sweep(tiny, change):
    tiny.load(sampled_with_the_best(tiny, change))


@pytest.mark.parametrize(
    ("change", "keys", "names"),
    [
        (
            {GUIDES: SWAPPED},
            ["best.guidance.0", "best.guidance.1"],
            ["guided", "autoguidance", "discriminator"],
        ),
        ({GUIDES: "[]"}, ["best.guidance"], ["autoguidance"]),
        (
            {'discriminator" }': 'discriminator", sigma_max = 5.0 }'},
            ["best.guidance.0.sigma_max"],
            [20.0, 5.0],
        ),
        ({'"weak" }': '"weak", weight = 9.0 }'}, ["best.guidance.1.weight"], [9.0]),
        (
            {'discriminator" }': 'discriminator", second_weight = 0.0 }'},
            ["best.guidance.0.second_weight"],
            [0.0],
        ),
        ({"steps = 3": "steps = 4"}, ["best.schedule.steps"], [3, 4]),
        (
            {"count = 4": "count = 4\nsolver = { use = 'euler' }"},
            ["best.solver"],
            ["heun", "euler"],
        ),
        ({"count = 4": "count = 4\nprecision = 'bfloat16'"}, ["best.precision"], ["float32"]),
        ({"count = 4": "count = 4\nstart = 'noise'"}, ["best.start"], ["auto", "noise"]),
    ],
)
def test_other_settings_than_those_of_the_sweep_are_refused(tiny, change, keys, names):
    with raises_code(RecipeError, Code.CONFLICT, "guided", *names) as caught:
        tiny.load(sampled_with_the_best(tiny, change))
    assert [mistake.key for mistake in caught.value.mistakes] == keys
    assert all(mistake.problem.hint for mistake in caught.value.mistakes)


def test_a_sweep_over_settings_of_another_sweep_is_refused(tiny):
    best = BEST.replace("truncation_2", score_of(tiny))
    again = tiny.sweep[len(tiny.sample) :].replace('id = "sweep"', 'id = "again"')
    again = again.replace('samples = "samples"', 'samples = "best"')
    last = best.replace('"best"', '"last"').replace('"sweep"', '"again"').replace("= 8", "= 88")
    with raises_code(RecipeError, Code.CONFLICT, "last.settings_from.stage", "best") as caught:
        tiny.load(tiny.sweep + best.replace("count", "schedule.steps = 3\ncount") + again + last)
    keys = [mistake.key for mistake in caught.value.mistakes]
    assert keys == [
        *(f"again.vary.schedule.{n}" for n in ("steps", "rho")),
        "last.settings_from.stage",
    ]


@pytest.mark.parametrize(
    ("path", "other", "overlap"),
    [
        ("schedule.steps", "schedule.steps", True),
        ("schedule", "schedule.steps", True),
        ("guidance.weight", "guidance.0.weight", True),
        ("guidance.0.weight", "guidance.1.weight", False),
        ("schedule.steps", "schedule.rho", False),
    ],
)
def test_key_paths_overlap_if_one_contains_the_other(path, other, overlap):
    assert _overlap(path, other) == _overlap(other, path) == overlap


def test_each_combination_is_checked_with_the_samples_to_draw(tiny, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 3_300)  # pages, and bytes of a page: 11 MB
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    sweep = tiny.sweep.replace("schedule.rho = [7.0, 20.0]", "batch_size = [8, 1_000_000]")
    sweep = sweep.replace("vary.schedule.steps = [2, 3]\n", "")
    best = BEST.replace("truncation_2", score_of(tiny)) + "schedule = { use = 'edm', steps = 3 }\n"
    tiny.load(sweep + best)
    with raises_code(RecipeError, Code.OUT_OF_MEMORY, "best.settings_from.stage") as caught:
        tiny.load(sweep + best.replace("count = 4", "count = 900_000"))
    assert len(caught.value.mistakes) == 1


def test_settings_are_described_as_a_recipe_writes_them(tiny):
    text = tiny.sweep + BEST.replace("truncation_2", score_of(tiny))
    stage = tiny.load(text).stages["best"]
    assert isinstance(stage, Sample)
    assert stage.settings_from == BestCell(stage="sweep", score=score_of(tiny))
    assert dataclasses.replace(stage, settings_from=None).settings_from is None
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
