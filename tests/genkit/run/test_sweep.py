"""Sweeps: what is varied, which combinations are refused, and what is written of them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from genkit.errors import Code, DataError, RecipeError
from genkit.interfaces import Metric
from genkit.settings import setting
from genkit.tensors import load
from genkit_metrics.frechet import Frechet
from genkit_stages.sample import Sample
from genkit_stages.sweep import Sweep, apply_cell
from genkit_stages.train import Train
from raising import raises_code

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("vary", "code", "told"),
    [
        ("{}", Code.MISSING_KEY, "sweep.vary"),
        ("{ schedule = { steps = 5 } }", Code.WRONG_TYPE, "got 5"),
        ("{ schedule = { steps = [] } }", Code.WRONG_TYPE, "got []"),
        ("{ schedule = { stepz = [5] } }", Code.UNKNOWN_KEY, 'did you mean "steps"?'),
        ("{ schedule = { steps = [5, 0] } }", Code.OUT_OF_RANGE, "at least 1, got 0"),
        ("{ schedule = { steps = [5, 2.5] } }", Code.WRONG_TYPE, "got 2.5"),
        ("{ schedule = { sigma_max = [80.0, 0.001] } }", Code.CONFLICT, "sigma_max"),
        ("{ guidance = { weight = [0.0, 1.0] } }", Code.UNKNOWN_KEY, "Sample.guidance"),
        ("{ count = { x = [1] } }", Code.UNKNOWN_KEY, "Sample.count"),
        ("{ solver = ['heun'] }", Code.NOT_A_COMPONENT, 'solver, got "heun"'),
        ("{ denoiser = ['other'] }", Code.CONFLICT, "Sample.denoiser"),
    ],
)
def test_mistakes_in_what_a_sweep_varies(tiny, vary, code, told):
    text = (
        tiny.sample
        + f"""
[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
vary = {vary}
metrics = [{{ use = "truncation" }}]
"""
    )
    with pytest.raises(RecipeError) as caught:
        tiny.load(text)
    (mistake,) = caught.value.mistakes
    assert mistake.key.startswith("sweep.vary")
    assert mistake.problem.code == code
    assert told in str(mistake)
    if code in (Code.UNKNOWN_KEY, Code.MISSING_KEY) or told in ("got 5", "got []"):
        assert mistake.problem.hint


def of_combinations(tiny, vary, *lines):
    """Return a recipe whose sweep has a line for each list."""
    kept = [line for line in tiny.sweep.splitlines() if not line.startswith("vary.")]
    at = kept.index('samples = "samples"')
    return "\n".join([*kept[: at + 1], *vary, *kept[at + 1 :], *lines])


@pytest.mark.parametrize(
    ("vary", "key", "reason"),
    [
        (
            ["vary.solver.s_min = [0, 30]", "vary.solver.s_max = [10, 50]"],
            "sweep.vary.solver.s_m",
            'with { "solver.s_min" = 30',
        ),
        (
            ["vary.schedule.sigma_min = [0.002, 2.0]", "vary.schedule.sigma_max = [1.0, 80.0]"],
            "sweep.vary.schedule.sigma_min",
            "sigma_max = 1, got 2",
        ),
        (
            ["vary.solver.path = ['vp']", "vary.schedule.sigma_min = [0.002, 0.5]"],
            "sweep.vary.solver.path",
            "from 0.5 to 80",
        ),
        (
            ["vary.first_seed = [0, 9_223_372_036_854_775_800]", "vary.count = [4, 9]"],
            "sweep.vary.first_seed",
            "must be at most",
        ),
    ],
)
def test_combinations_that_cannot_be_sampled_are_named(tiny, vary, key, reason):
    with pytest.raises(RecipeError) as caught:
        tiny.load(of_combinations(tiny, vary))
    (line,) = caught.value.lines
    assert key in line
    assert reason in line


def test_a_mistake_of_the_sample_stage_hides_none_of_the_values(tiny):
    vary = ["vary.schedule.steps = [5, 0]"]
    with pytest.raises(RecipeError) as caught:
        tiny.load(
            of_combinations(tiny, vary), "samples.solver={ use = 'heun', s_min = 3.0, s_max = 2.0 }"
        )
    reported = [line.split(": ")[1] for line in caught.value.lines]
    assert sorted(reported) == ["samples.solver.s_min", "sweep.vary.schedule.steps"]


def test_values_that_fit_only_together_are_accepted(tiny):
    vary = ["vary.solver.path = ['vp']", "vary.solver.path_range = [[0.002, 80.0], [0.01, 90.0]]"]
    assert len(list(tiny.load(of_combinations(tiny, vary)).stages["sweep"].cells())) == 2


@pytest.mark.parametrize(
    ("vary", "hints"),
    [
        ([], ["count in this stage", "count in this stage"]),
        (["vary.count = [3000, 3001, 6]"], ["count in vary.count"] * 2),
    ],
)
def test_the_count_that_is_scored_is_that_of_the_sweep(tiny, vary, hints):
    lines = ["vary.schedule.steps = [2]", *vary]
    text = of_combinations(tiny, lines).partition("metrics")[0]
    metrics = 'sets = 3\nmetrics = [{ use = "kid" }]\n'
    with pytest.raises(RecipeError) as caught:
        tiny.load(text + metrics, "data.items=1000")
    found = [mistake.problem for mistake in caught.value.mistakes]
    assert {problem.key[-1] for problem in found} == {"sets", 0}
    assert all(hint in problem.hint for hint, problem in zip(hints, found, strict=True))


def test_infinity_is_a_value_of_a_sweep(tiny):
    vary = ["vary.solver.s_max = [1.0, inf]", "vary.solver.s_churn = [2.0]"]
    tiny.run(of_combinations(tiny, vary))
    (path,) = tiny.folder.glob("*-sweep/scores.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["solver.s_max"] for row in rows] == [1.0, "inf"]


def test_the_facts_of_a_sweep_are_those_of_all_cells_and_the_sampler_that_is_varied(tiny):
    metrics = 'sweep.metrics=[{ use = "frechet" }]'
    tiny.run(tiny.sweep, metrics)
    scores = json.loads(tiny.bytes_of("scores.json"))
    (facts,) = scores["facts"].values()
    _, metadata = load(next(tiny.folder.glob("*-samples/samples.safetensors")))
    drawn = json.loads(metadata["facts"])
    assert facts["samples.sampler"] == drawn["sampler"]
    assert json.loads(facts["samples.sampler"])["schedule"]["steps"] == 3
    assert facts["samples.seeds"].startswith("0-7 of ")
    assert {row["schedule.steps"] for row in scores["rows"]} == {2, 3}


def test_a_sweep_states_the_start_of_each_row(tiny):
    text = tiny.sweep.partition("vary")[0] + "vary.schedule.sigma_max = [1000, 80]\n"
    text += 'metrics = [{ use = "frechet" }]'
    tiny.run(text, 'denoiser.coupler={ use = "hungarian" }')
    (facts,) = json.loads(tiny.bytes_of("scores.json"))["facts"].values()
    assert facts["samples.start"] == "noise, corrected"


GUIDES = """
[[stage]]
id = "sweep"
use = "sweep"
samples = "guided"
count = 8
vary.PATH = [0.0, 2.0]
metrics = [{ use = "truncation", count = 4, steps = [2], schedule = { use = "edm", steps = 4 } }]
"""
TWO = 'guidance = [{ use = "discriminator", discriminator = "discriminator" }, '


def of_two_guidances(tiny, path):
    text = tiny.guided.replace("guidance = [", TWO)
    assert text != tiny.guided
    return tiny.sample + text + GUIDES.replace("PATH", path)


def test_one_of_several_guidances_is_varied(tiny):
    recipe = tiny.load(of_two_guidances(tiny, "guidance.1.weight"))
    sweep, guided = recipe.stages["sweep"], recipe.stages["guided"]
    weights = [
        [guidance.weight for guidance in apply_cell(guided, cell).guidance]
        for cell in sweep.cells()
    ]
    own = guided.guidance[0].weight
    assert weights == [[own, 0.0], [own, 2.0]]


@pytest.mark.parametrize("path", ["guidance.weight", "guidance.2.weight", "guidance.0"])
def test_a_path_that_means_several_guidances_or_none_is_refused(tiny, path):
    setting = "SETTING" if path == "guidance.0" else "weight"
    both = (f"guidance.{index}.{setting}" for index in (0, 1))
    with raises_code(RecipeError, Code.UNKNOWN_KEY, "2 items", *both):
        tiny.load(of_two_guidances(tiny, path))


def test_a_setting_that_two_lists_vary_is_refused(tiny):
    text = tiny.sample + tiny.guided + GUIDES.replace("PATH", "guidance.weight")
    other, same = (
        text.replace("metrics", f"vary.guidance.0.{setting} = [1.0, 3.0]\nmetrics")
        for setting in ("second_weight", "weight")
    )
    other = other.replace("guidance.weight", "guidance.0.weight")
    assert len(list(tiny.load(other).stages["sweep"].cells())) == 4
    with raises_code(RecipeError, Code.DUPLICATE, "guidance.weight"):
        tiny.load(same)


def test_every_combination_is_a_cell(tiny):
    stages = tiny.load(tiny.sweep).stages
    assert isinstance(stages["denoiser"], Train)
    assert list(stages["sweep"].cells()) == [
        {"schedule.steps": steps, "schedule.rho": rho} for steps in (2, 3) for rho in (7.0, 20.0)
    ]


def test_more_combinations_than_can_be_checked_are_refused(tiny):
    with raises_code(RecipeError, Code.OUT_OF_RANGE, "1,000 combinations", "1,002"):
        tiny.load(tiny.sweep, f"sweep.vary.schedule.rho={[7.0] * 501}")


@dataclass(frozen=True, kw_only=True)
class Named(Metric):
    """A metric whose score has any name."""

    name: str = setting(doc="name of the score")

    @property
    def scores(self):
        return (self.name,)


@pytest.mark.parametrize("name", ["nfe", "guidance_nfe", "fid_std", "fid_min", "schedule.steps"])
def test_a_score_declared_with_the_name_of_another_column_is_refused(tiny, name):
    earlier = tiny.load(tiny.sample).stages
    vary = {"schedule": {"steps": [2, 3]}}
    data = earlier["denoiser"].data
    sweep = Sweep(samples="samples", data=data, vary=vary, metrics=(Named(name=name),))
    (found,) = sweep.check(earlier)
    assert (found.key, found.code) == (("metrics", 0), Code.INVALID_NAME)


def test_a_warning_of_every_combination_is_printed_once(tiny, caplog):
    text = tiny.sweep.partition('metrics = [{ use = "truncation')[0]
    tiny.run(text + 'metrics = [{ use = "frechet" }]')
    assert len(json.loads(tiny.bytes_of("scores.json"))["rows"]) == 4
    assert (
        len([record for record in caplog.records if "frechet_pixels of 8" in record.message]) == 1
    )


def test_words_for_a_score_must_be_text(tiny, monkeypatch):
    monkeypatch.setattr(Frechet, "words", lambda self, score: 3)
    text = tiny.sweep.partition('metrics = [{ use = "truncation')[0]
    with raises_code(DataError, Code.INVALID_RESULT, "frechet", "words", "int"):
        tiny.run(text + 'metrics = [{ use = "frechet" }]')


def test_a_sampler_that_no_row_states_is_reported(tiny, caplog, monkeypatch):
    text = tiny.sweep.partition('metrics = [{ use = "truncation')[0]
    text += 'metrics = [{ use = "nearest" }]'
    tiny.run(text)
    assert "sampler_fact" not in caplog.text
    monkeypatch.setattr(Sample, "sampler_fact", lambda self, context: None)
    stated = lambda self, context, start: {"seeds": "0", "sampler": f"{self.schedule.steps} steps"}  # noqa: E731
    monkeypatch.setattr(Sample, "_facts", stated)
    tiny.run(text, folder=tiny.folder.parent / "silent")
    assert caplog.text.count("Sample.sampler_fact") == 1
