"""The score of real items against other real items, which is a fact of every score."""

from __future__ import annotations

import json
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

import genkit
from genkit.artifacts import Scores
from genkit.artifacts.statistics import Statistics
from genkit.errors import InterruptedRun
from genkit.parts.no_stages import NoStages
from genkit.random import generator
from genkit.types import Batch, Measurement
from genkit.world import World
from genkit_metrics.frechet import Frechet
from genkit_metrics.gaussians import frechet_distance
from genkit_stages import scores as scoring
from genkit_stages.floor import SEED, _Part, _RealFeatures, measure_floors

pytestmark = pytest.mark.slow

SCORES = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
sets = 2
metrics = [
    { use = "frechet" },
    { use = "prdc", neighbors = 2 },
    { use = "truncation", count = 4, steps = [2], schedule = { use = "edm", steps = 4 } },
]
"""
SWEEP = """
[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
count = 12
vary.schedule.steps = [2, 3]
metrics = [{ use = "frechet" }]
"""


def scores_of(tiny, text, *settings):
    tiny.run(tiny.sample + text, *settings)
    (path,) = tiny.folder.glob("*/scores.json")
    return Scores.load(path)


def test_the_floor_is_the_score_of_as_many_real_items_against_all_others(tiny):
    scores = scores_of(tiny, SCORES)
    data = genkit.component("dataset", "moons", items=200).load(NoStages()).data
    order = torch.randperm(200, generator=generator(SEED, "floor"))
    real, others = Statistics.of(data[order[12:]]), Statistics.of(data[order[:12]])
    assert scores.floor("frechet_pixels") == pytest.approx(frechet_distance(real, others), rel=1e-5)
    assert scores.facts["recall_pixels"]["measured.floor_items"] == "12 against 188"
    assert 0 <= scores.floor("coverage_pixels") <= 1
    assert scores.floor("truncation_2_steps") is None  # calls the denoiser


@pytest.mark.parametrize(("count", "has_floor"), [(200, True), (202, False)])
def test_the_floor_requires_twice_as_many_items_as_samples(tiny, count, has_floor):
    scores = scores_of(tiny, SCORES, f"samples.count={count}")
    assert (scores.floor("frechet_pixels") is not None) is has_floor


def test_the_floor_changes_no_score(tiny, monkeypatch):
    rows = scores_of(tiny, SCORES).rows
    monkeypatch.setattr(scoring, "measure_floors", lambda *_: {})
    tiny.folder = tiny.folder.parent / "without"
    without = scores_of(tiny, SCORES)
    assert without.floor("frechet_pixels") is None
    assert without.rows == rows


def test_a_floor_that_cannot_be_computed_is_a_warning(tiny, monkeypatch):
    def broken(self, extractor):
        raise RuntimeError("no features")

    monkeypatch.setattr(_Part, "statistics", broken)
    scores = scores_of(tiny, SCORES)
    assert scores.floor("frechet_pixels") is None
    assert scores.floor("recall_pixels") is not None
    warnings = map(json.loads, tiny.bytes_of("warnings.jsonl").splitlines())
    (warning,) = (row["warning"] for row in warnings if "no features" in row["warning"])
    assert "frechet_pixels" in warning


@pytest.mark.parametrize("scores", [{"frechet_pixels": float("nan")}, {"other": 1.0}])
def test_a_floor_of_an_invalid_result_is_a_warning(tiny, monkeypatch, scores):
    original = Frechet.measure

    def measure(self, subject, context):
        real = isinstance(subject.features, _RealFeatures)
        return Measurement(scores) if real else original(self, subject, context)

    monkeypatch.setattr(Frechet, "measure", measure)
    found = scores_of(tiny, SCORES)
    assert found.floor("frechet_pixels") is found.floor("other") is None
    assert b"of real items cannot be computed" in tiny.bytes_of("warnings.jsonl")


def measured_by(world, error=None, stopped=False):
    """Return floors of a metric that fails if a rank other than 0, or not alone, computes it."""

    def compute(subject, context):
        assert context.world.size == 1
        if error:
            raise error
        return Measurement({"frechet_pixels": 1.0})

    features = torch.randn(8, 2)
    reference = SimpleNamespace(
        batch=Batch(features), identity="reference", features=lambda _: features
    )
    context = mock.Mock(world=world)
    context.stop_requested.return_value = stopped
    context.single_process.return_value = SimpleNamespace(world=World())
    bound = SimpleNamespace(measure=compute)
    metrics = [(genkit.component("metric", "frechet"), bound)]
    return measure_floors(metrics, reference, None, 4, context), context.warn.call_count


class Second(World):
    """Rank 1 of two, which receives the result of rank 0."""

    def broadcast(self, value):
        assert value is None
        return {"frechet_pixels": 2.0}


def test_only_the_main_process_computes_the_floor():
    failure = RuntimeError("on this rank alone")
    floors, warnings = measured_by(Second(rank=1, size=2), failure)
    assert (floors["frechet_pixels"]["measured.floor"], warnings) == ("2", 0)
    assert measured_by(World(), failure) == ({}, 1)


def test_a_stop_is_no_result_without_a_floor():
    with pytest.raises(InterruptedRun):
        measured_by(World(), stopped=True)
    assert measured_by(World())[0]["frechet_pixels"]["measured.floor"] == "1"


def test_the_floor_of_a_sweep_is_computed_once(tiny):
    with mock.patch.object(scoring, "measure_floors", wraps=scoring.measure_floors) as measured:
        scores = scores_of(tiny, SWEEP)
    assert measured.call_count == 1
    assert scores.floor("frechet_pixels") > 0
