"""What the stages of a recipe require, against what a run writes and builds."""

from __future__ import annotations

import pytest
import torch

from genkit.artifacts import load_tensors
from genkit.commands.dry_run import _cells, _totals
from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source, read_source
from genkit.run.forecast import Forecast, forecast


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr("genkit.run.forecast.MOST_SECONDS", 0.01)


@pytest.fixture(scope="module")
def plugins():
    return load_plugins()


def test_sizes_are_those_of_a_run(tiny):
    tiny.run(tiny.sample)
    found = forecast(tiny.load(tiny.sample))
    weights, _ = load_tensors(tiny.folder / "01-denoiser" / "denoiser.safetensors")
    parameters = sum(tensor.numel() for tensor in weights.values())
    assert found["denoiser"].parameters == parameters
    # Weights, gradients, two moments of Adam and one average, each in float32.
    assert found["denoiser"].memory == 5 * 4 * parameters
    # The file, and three checkpoints with weights, moments and average: two, and a new one.
    assert found["denoiser"].disk == 4 * parameters * (1 + 3 * 4)
    assert found["samples"] == Forecast(disk=24 * 2 * 4)


def test_time_is_measured_on_request(tiny):
    recipe = tiny.load(tiny.sample + SCORES)
    assert {one.seconds for one in forecast(recipe).values()} == {None}
    found = forecast(recipe, torch.device("cpu"))
    assert found["denoiser"].seconds > 0
    assert found["samples"].seconds > 0
    assert found["scores"].seconds is None  # its work is unknown
    assert found["scores"].unknown == ("seconds",)
    double = tiny.load(tiny.sample, "denoiser.images=1_000_000_000")
    assert forecast(double, torch.device("cpu"))["denoiser"].seconds > found["denoiser"].seconds


SCORES = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = ["frechet"]
"""


@pytest.mark.parametrize("name", ["edm_aot_cond_dg", "digits_classifier", "edm2"])
def test_networks_of_all_kinds_are_measured(plugins, name):
    """Class-conditional denoisers, discriminators and classifiers, and several averages."""
    recipe = load_recipe(read_source(name), plugins)
    found = forecast(recipe, torch.device("cpu"))
    for stage_id, stage in recipe.stages.items():
        if plugins.registry.name_of(stage) == "train":
            one = found[stage_id]
            assert one.parameters > 0
            assert one.memory >= 5 * 4 * one.parameters
            assert one.seconds > 0
        elif plugins.registry.name_of(stage) in ("sample", "sweep"):
            assert found[stage_id].seconds > 0


def test_nothing_is_known_of_a_network_that_fails(plugins, monkeypatch):
    recipe = load_recipe(read_source("smoke"), plugins)

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("genkit_edm.mlp.Mlp.build_network", fail)
    found = forecast(recipe, torch.device("cpu"))
    names = ("parameters", "memory", "disk", "seconds")
    assert found["denoiser"] == Forecast(unknown=names)
    assert found["samples"] == Forecast(disk=2048 * 2 * 4, unknown=("seconds",))
    states = dict.fromkeys(found, "new")
    available = {"memory": None, "disk": None}
    memory, disk, time = _totals(found, states, available, measured=True)
    assert memory.startswith("Memory: unknown for denoiser; for the other stages 0 bytes")
    assert disk.startswith("Disk: unknown for denoiser; for the other stages 1")
    assert time.startswith("Time: unknown for denoiser, samples")
    head, denoiser, samples, *_ = _cells(found)
    assert denoiser == ["denoiser", *["unknown"] * 4]
    assert dict(zip(head, samples, strict=True))["memory"] == ""


def test_a_network_with_a_frozen_network_in_it_is_measured(plugins):
    recipe = load_recipe(Source.parse(GUIDED), plugins)
    found = forecast(recipe, torch.device("cpu"))["discriminator"]
    assert found.parameters > 0
    assert found.memory > 0
    assert found.seconds > 0


GUIDED = """
name = "guided"
data = { use = "digits" }

[[stage]]
id = "denoiser"
use = "train"
images = 256
network = { use = "ddpmpp", channels = 8, channel_mult = [1], blocks = 1, attention = [] }
objective = { use = "denoising" }

[[stage]]
id = "fakes"
use = "sample"
denoiser = "denoiser"

[[stage]]
id = "discriminator"
use = "train"
images = 64
batch_size = 64
data = { use = "real-and-fake", fakes = "fakes" }
network = { use = "denoiser-encoder", denoiser = "denoiser" }
objective = { use = "discrimination" }
coupler = { use = "partitioned", by = ["realness"] }
"""
