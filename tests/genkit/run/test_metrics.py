"""Scores of a run: what metrics return is checked."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from genkit.errors import (
    Code,
    DataError,
    RecipeError,
)
from genkit.types import Curve, Measurement
from raising import raises_code

pytestmark = pytest.mark.slow


SCORES = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "curvature", count = 4 }]
"""


def test_two_scores_of_one_name_are_refused(tiny):
    metric = '{ use = "curvature", count = 4 }'
    other = '{ use = "curvature", count = 5 }'  # another metric, with a score of the same name
    text = tiny.sample + SCORES.replace(metric, f"{metric}, {other}")
    with raises_code(RecipeError, Code.DUPLICATE, "scores.metrics.1"):
        tiny.load(text)


def test_scores_that_were_not_declared_are_refused(tiny, monkeypatch):
    monkeypatch.setattr("genkit_metrics.curvature.Curvature.scores", ())
    with raises_code(DataError, Code.INVALID_RESULT, "stage scores", "curvature"):
        tiny.run(tiny.sample + SCORES)


NAMED = "stage scores", 'metric "curvature"', "genkit-diffusion"


@pytest.mark.parametrize("argument", ["samples", "reference"])
def test_a_metric_that_changes_what_later_metrics_see_is_refused(tiny, monkeypatch, argument):
    def measure(self, subject, context):
        getattr(subject, argument).data[:2].mul_(2)  # a view
        return Measurement({"curvature": 1.0})

    monkeypatch.setattr("genkit_metrics.curvature.Curvature.measure", measure)
    with raises_code(DataError, Code.CHANGED, *NAMED, argument):
        tiny.run(tiny.sample + SCORES)


def measuring(monkeypatch, found):
    monkeypatch.setattr("genkit_metrics.curvature.Curvature.measure", lambda *arguments: found)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, ("Measurement", None)),
        (Measurement(1.0), ("Measurement",)),
        (Measurement({"curvature": float("nan")}), ('score "curvature"', "nan")),
        (Measurement({"curvature": float("inf")}), ('score "curvature"', "inf")),
        (Measurement({"curvature": None}), ('score "curvature"', None)),
        (Measurement({"curvature": torch.ones(2)}), ('score "curvature"',)),
        (Measurement({"curvature": 1.0}, facts={"n": torch.ones(1)}), ("facts",)),
        (Measurement({"other": 1.0}), ("curvature", "other")),
        (
            Measurement({"curvature": 1.0}, {"c": Curve((1.0,), (1.0, 2.0), "x", "y")}),
            ('curve "c"',),
        ),
        (
            Measurement({"curvature": 1.0}, {"c": Curve((1.0,), (math.nan,), "x", "y")}),
            ("curves",),
        ),
    ],
)
def test_an_invalid_result_of_a_metric_is_refused(tiny, monkeypatch, found, reason):
    measuring(monkeypatch, found)
    code = Code.NOT_FINITE if {"nan", "inf"} & set(reason) else Code.INVALID_RESULT
    with raises_code(DataError, code, *NAMED, *reason):
        tiny.run(tiny.sample + SCORES)
    assert not list(tiny.folder.rglob("scores.json"))


@pytest.mark.parametrize("one", [np.float32(1), torch.ones(()), 1])
def test_a_score_becomes_a_float(tiny, monkeypatch, one):
    measuring(monkeypatch, Measurement({"curvature": one}))
    tiny.run(tiny.sample + SCORES)
    (row,) = json.loads(tiny.bytes_of("scores.json"))["rows"]
    assert isinstance(row["curvature"], float)
