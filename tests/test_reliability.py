"""Mutated recipes and extreme settings end in genkit's own errors: the short form of a benchmark.

The long form is `benchmarks/reliability_recipes.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from genkit.plugin.manager import load_plugins
from genkit.testing import check_settings

PLUGINS = load_plugins()

VALUES = (-1, 2**62, 1e30, math.nan, "\0", "x" * 100_000, [10**12], {"use": "x"})
"""One value of each kind that found a mistake."""


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


def test_mutated_recipes():
    import reliability_recipes

    with reliability_recipes.files_of_recipes(PLUGINS):
        outcome = reliability_recipes.mutated_recipes(200, seed=0, plugins=PLUGINS)
    assert outcome.failures == []
    assert 0 < outcome.accepted < outcome.checks == 200
    assert len(outcome.codes) > 8


def test_extreme_settings_of_all_components():
    import reliability_recipes
    import simplest_components

    simplest = simplest_components.Simplest(PLUGINS)
    with reliability_recipes.files_of_recipes(PLUGINS):
        for entry in PLUGINS.registry.entries():
            check_settings(simplest.component(entry), simplest.stages, VALUES)
