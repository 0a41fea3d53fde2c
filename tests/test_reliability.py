"""Mutated recipes and extreme settings end in genkit's own errors: the short form of a benchmark.

The long form is `benchmarks/reliability_recipes.py`.
"""

from __future__ import annotations

import itertools
import math
import os
from functools import partial
from pathlib import Path

import pytest

from genkit.field_types import Number
from genkit.fields import fields_of
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


def _break() -> None:
    raise ValueError("a broken law")


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (partial(max, itertools.repeat(0)), "no end after 0.5 s"),  # Python hears no signal
        (partial(os._exit, 3), "ended with 3"),
        (_break, "ValueError: a broken law"),
        (int, ""),
    ],
)
def test_a_check_that_does_not_end_is_a_failure(check, reason):
    import reliability_recipes

    outcome = reliability_recipes.Outcome()
    with outcome.check("toy"):
        reliability_recipes.end_within(0.5, check)
    assert (len(outcome.failures), outcome.accepted) == ((1, 0) if reason else (0, 1))
    assert all(reason in failure for failure in outcome.failures)


BOUNDED = {
    "memory": "attention channels channel_mult channel_mult_emb channel_mult_noise "
    "channels_per_head classes count features items multipliers shape width",
    "check": "first_seed images_per_class micro_batch neighbors sets steps",
    "data": "directions",
    "any value": "every half_life learning_rate_decay learning_rate_ramp seed snapshot_images",
}
"""Names of integers without an upper bound in their declaration, by what bounds their effect."""


def test_integers_have_an_upper_bound():
    known = {name for names in BOUNDED.values() for name in names.split()}
    registry = PLUGINS.registry
    unbounded = {
        field.name
        for entry in registry.entries()
        for field in fields_of(registry.load(entry))
        for number in _integers(field.type)
        if number.setting.at_most is None and number.setting.below is None
    }
    assert unbounded == known


def _integers(kind):
    """Yield the integers in a type of a field."""
    if isinstance(kind, Number) and kind.integer:
        yield kind
    inner = getattr(kind, "inner", ())
    for part in inner if isinstance(inner, tuple) else (inner,):
        yield from _integers(part)


def test_extreme_settings_of_all_components():
    import reliability_recipes
    import simplest_components

    simplest = simplest_components.Simplest(PLUGINS)
    with reliability_recipes.files_of_recipes(PLUGINS):
        for entry in PLUGINS.registry.entries():
            check_settings(simplest.component(entry), simplest.stages, VALUES)
