"""Where the samples of a stage start, by the coupling of the training."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest

import genkit
from genkit.artifacts import DenoiserFile, Samples, Scores
from genkit.errors import Code, DataError, RecipeError
from genkit.start import SamplingWarning
from raising import raises_code

pytestmark = pytest.mark.slow

ASSIGNED = 'denoiser.coupler={ use = "hungarian" }'
SCORES = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "truncation", count = 8, steps = [2], schedule = { use = "edm", steps = 4 } }]
"""

TRAINED = """
name = "tiny"
data = {{ use = "moons", items = 200 }}

[[stage]]
id = "denoiser"
use = "load"
path = "{path}"
"""


def drawn(tiny, *overrides):
    progress, told = tiny.recorder(), []
    progress.warn = told.append
    tiny.run(tiny.sample, *overrides, progress=progress)
    (path,) = tiny.folder.glob("[0-9][0-9]-samples/samples.safetensors")
    return Samples.load(path), path.read_bytes(), told


def test_samples_of_assigned_noise_start_corrected(tiny):
    found, automatic, told = drawn(tiny, ASSIGNED)
    assert (found.nfe, found.facts["start"], told) == (6, "corrected", [])
    chosen, corrected, _ = drawn(tiny, ASSIGNED, 'samples.start="corrected"')
    plain, _, _ = drawn(tiny, ASSIGNED, 'samples.start="noise"')
    assert (plain.nfe, plain.facts["start"]) == (5, "noise")
    assert chosen.batch.data.equal(found.batch.data)
    assert not chosen.batch.data.equal(plain.batch.data)
    assert automatic != corrected  # the fact "sampler" says what was chosen


def test_samples_of_independent_noise_start_from_noise(tiny):
    found, _, _ = drawn(tiny)
    plain, _, _ = drawn(tiny, 'samples.start="noise"')
    assert (found.nfe, found.facts["start"]) == (5, "noise")
    assert found.batch.data.equal(plain.batch.data)


def test_trajectories_of_metrics_start_alike(tiny):
    scores = {}
    for start in ("auto", "corrected", "noise"):
        tiny.run(tiny.sample + SCORES, ASSIGNED, f'scores.metrics.0.start="{start}"')
        (path,) = tiny.folder.glob("[0-9][0-9]-scores/scores.json")
        found = Scores.load(path)
        scores[start] = found.rows[0]["truncation_2"]
        expected = "noise" if start == "noise" else "corrected"
        assert found.facts["truncation_2"]["samples.start"] == expected
    assert scores["auto"] == scores["corrected"] != scores["noise"]


def test_trajectories_of_an_unknown_coupling_state_what_is_assumed(tiny, tmp_path):
    tiny.run(tiny.train)
    (path,) = tiny.folder.glob("[0-9][0-9]-denoiser/denoiser.safetensors")
    replace(DenoiserFile.load(path), coupling=None).save(tmp_path / "unknown.safetensors")
    head = TRAINED.format(path=tmp_path / "unknown.safetensors")
    progress, told = tiny.recorder(), []
    progress.warn = told.append
    tiny.run(head + tiny.samples + SCORES, 'samples.start="noise"', progress=progress)
    assert [warning.partition(":")[0] for warning in told] == ["scores"]


def test_fresh_noise_and_a_score_are_warned_of_once(tiny):
    progress, told = tiny.recorder(), []
    progress.warn = told.append
    churn = "samples.solver.s_churn=5.0"
    tiny.run(tiny.sweep, ASSIGNED, churn, progress=progress)
    assert sorted(text.split(":")[0] for text in told) == ["samples", "sweep"]
    told.clear()
    tiny.run(tiny.sample, churn, progress=progress)
    assert told == []


def test_guidance_of_a_velocity_is_warned_of(tiny):
    progress, told = tiny.recorder(), []
    progress.warn = told.append
    tiny.run(tiny.sample + tiny.guided, ASSIGNED, progress=progress)
    assert [text.split(":")[0] for text in told] == ["guided"]


def test_a_start_above_the_range_of_the_network_is_refused(tiny):
    ve = ('denoiser.network.preconditioner={ use = "ve" }', "samples.schedule.sigma_max=200")
    with raises_code(RecipeError, Code.OUT_OF_RANGE, "samples.start", "200"):
        tiny.load(tiny.sample, *ve, 'samples.start="corrected"')
    tiny.load(tiny.sample, *ve)


@pytest.fixture
def denoiser(tiny):
    tiny.run(tiny.train, ASSIGNED)
    (path,) = tiny.folder.glob("[0-9][0-9]-denoiser/denoiser.safetensors")
    return genkit.load_denoiser(path, "cpu"), path


def test_python_chooses_the_start_and_warns_of_what_is_assumed(denoiser):
    loaded, _ = denoiser
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {start: loaded.sample(4, start=start) for start in ("auto", "corrected", "noise")}
    assert found["auto"].equal(found["corrected"])
    assert not found["auto"].equal(found["noise"])
    with pytest.warns(SamplingWarning):
        loaded.sample(4, solver={"use": "heun", "s_churn": 5.0})
    with raises_code(DataError, Code.UNKNOWN_CHOICE):
        loaded.sample(4, start="best")


def test_an_unknown_coupling_is_stated(denoiser):
    loaded, _ = denoiser
    loaded.coupling = None
    with pytest.warns(SamplingWarning):
        found = loaded.sample(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found.equal(loaded.sample(4, start="noise"))


def test_the_command_chooses_the_start(denoiser, tmp_path, genkit_):
    _, path = denoiser

    def files(folder, *options):
        out = tmp_path / folder
        code, _, err = genkit_("sample", path, "--out", out, "--seeds", "0-3", *options)
        assert (code, err) == (0, "")
        return {file.name: file.read_bytes() for file in out.iterdir()}

    automatic = files("a")
    assert automatic == files("b", "--start", "corrected")
    plain = files("c", "--start", "noise")
    samples = [name for name in plain if name.endswith(".npy")]  # a picture may be the same
    assert len(samples) == 4
    assert all(plain[name] != automatic[name] for name in samples)
    code, _, err = genkit_("sample", path, "--out", tmp_path / "a", "--start", "noise")
    assert code == 2  # the folder holds samples of another start
    code, _, err = genkit_("sample", path, "--out", tmp_path / "d", "--start", "best")
    assert code == 2
    assert "start must be" in err


def test_the_command_states_what_it_assumes_once(denoiser, tmp_path, genkit_):
    _, path = denoiser
    unknown = replace(DenoiserFile.load(path), coupling=None)
    unknown.save(tmp_path / "unknown.safetensors")
    arguments = ("--seeds", "0-9", "--batch-size", 4, "--out", tmp_path / "out")
    code, _, err = genkit_("sample", tmp_path / "unknown.safetensors", *arguments)
    assert (code, err.count("Warning:")) == (0, 1)
