"""Settings that require more memory than the machine has are refused before anything is built."""

from __future__ import annotations

import math
import os

import pytest
import torch

from genkit.errors import Code, RecipeError
from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source
from genkit.types import DataSpec
from genkit_stages.size_checks import sample_problems

RECIPE = """
name = "sizes"
data = { use = "moons", items = 200 }

[[stage]]
id = "denoiser"
use = "train"
images = 1_000_000_000_000
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }
callbacks = [{ use = "preview", every = 1000, count = 4 }]

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 1000

[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
vary.schedule.steps = [5, 7]
metrics = [{ use = "curvature" }]
"""


@pytest.fixture(autouse=True)
def one_gigabyte(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 2**15)  # pages, and bytes of a page
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def mistakes(*overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(Source.parse(RECIPE), load_plugins(), overrides)
    return [(mistake.key, mistake.problem.code) for mistake in caught.value.mistakes]


def test_a_recipe_that_fits_is_accepted():
    load_recipe(Source.parse(RECIPE), load_plugins(), ["denoiser.network.width=1_000"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.items", 10**9),
        ("denoiser.network.width", 10**9),
        ("denoiser.network.width", 2**63 - 1),
        ("denoiser.network.width", 10_000),  # the weights fit, but not their average and gradients
        ("denoiser.callbacks.0.count", 10**9),
        ("samples.count", 10**9),
        ("samples.count", 2**62),
        ("sweep.count", 10**9),
        ("sweep.count", 2**62),
    ],
)
def test_a_setting_that_does_not_fit_is_named(key, value):
    assert mistakes(f"{key}={value}") == [(key, Code.OUT_OF_MEMORY)]


@pytest.mark.parametrize(
    ("key", "value", "memory"),
    [
        ("denoiser.batch_size", 10**6, 2**30),
        ("denoiser.pool_size", 10**7, 2**30),
        ("denoiser.pools_ahead", 1000, 2**22),
    ],
)
def test_pools_that_do_not_fit_are_named(monkeypatch, key, value, memory):
    monkeypatch.setattr(os, "sysconf", lambda name: math.isqrt(memory))
    overrides = ["denoiser.pools_ahead=100", "denoiser.batch_size=500"]
    assert mistakes(*overrides, f"{key}={value}") == [(key, Code.OUT_OF_MEMORY)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("denoiser.images", 10**18),
        ("denoiser.batch_size", 10**18),
        ("denoiser.pool_size", 10**18),
        ("denoiser.pools_ahead", 10**9),
        ("denoiser.callbacks.0.batch_size", 10**18),
        ("samples.batch_size", 10**18),
        ("sweep.metrics.0.count", 10**12),
        ("denoiser.optimizer.learning_rate", 1e300),
        ("denoiser.network.preconditioner.sigma_data", 1e-320),
        ("denoiser.network.preconditioner", '{ use = "vp", beta_d = 1e300 }'),
        ("denoiser.network.preconditioner", '{ use = "vp", beta_d = 1e-300, beta_min = 1e-300 }'),
        ("denoiser.network.preconditioner", '{ use = "iddpm", c_2 = 1e300 }'),
        ("denoiser.objective.noise_distribution", '{ use = "vp", beta_d = 1e300 }'),
        (
            "denoiser.objective.noise_distribution",
            '{ use = "log-normal", p_mean = 20.0, p_std = 20.0 }',
        ),
        (
            "denoiser.objective.noise_distribution",
            '{ use = "coupled", p_mean = -20.0, p_std = 20.0, sigma_max = 80.0 }',
        ),
    ],
)
def test_a_value_without_use_is_refused(key, value):
    ((found, code),) = mistakes(f"{key}={value}")
    assert (found.startswith(key), code) == (True, Code.OUT_OF_RANGE)


def test_a_batch_of_samples_that_does_not_fit_is_named(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 2**11)  # 4 MiB
    overrides = ["samples.count=400_000", "samples.batch_size=400_000"]
    assert mistakes(*overrides) == [("samples.batch_size", Code.OUT_OF_MEMORY)]


def test_blocks_that_do_not_fit_are_named(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 2**11)  # 4 MiB
    overrides = ["denoiser.network.width=50", "denoiser.network.blocks=60"]
    assert mistakes(*overrides) == [("denoiser.network.blocks", Code.OUT_OF_MEMORY)]


def test_samples_of_a_shape_that_no_machine_can_allocate_are_named():
    problems = sample_problems(DataSpec((3, 10**9, 10**9)), count=1, batch_size=1)
    assert [problem.key for problem in problems] == [("count",), ("batch_size",)]


def test_a_varied_count_that_does_not_fit_is_named():
    assert mistakes(f"sweep.vary.count=[10, {10**9}]") == [("sweep.vary.count", Code.OUT_OF_MEMORY)]


def test_memory_is_not_compared_on_a_system_that_does_not_report_it(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    load_recipe(Source.parse(RECIPE), load_plugins(), ["samples.count=1_000_000_000"])
