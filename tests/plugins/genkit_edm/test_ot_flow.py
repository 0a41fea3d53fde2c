"""The shipped recipe of OT flow matching, with less of everything."""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment

from genkit.api import load_denoiser, run_recipe
from genkit.plugin.manager import load_plugins
from genkit.random import generator
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.types import Batch
from genkit_edm.flow import FlowPreconditioner

TINY = {
    "denoiser.images": 2000,
    "denoiser.batch_size": 100,
    "denoiser.pool_size": 100,
    "denoiser.network.width": 32,
    "samples.count": 100,
    "samples.schedule.steps": 3,
    "scores.metrics.1.count": 16,
    "scores.metrics.1.schedule.use": "edm",
    "scores.metrics.1.schedule.steps": 6,
    "scores.metrics.2.count": 16,
    "scores.metrics.2.schedule.use": "edm",
    "scores.metrics.2.schedule.steps": 6,
    "scores.metrics.2.steps": [5],
    "sweep.count": 80,
    "sweep.vary.schedule.steps": [3, 4],
}


def test_it_runs(tmp_path) -> None:
    result = run_recipe("ot_flow", out=tmp_path / "run", settings=TINY, device="cpu")
    (row,) = result.scores["scores"]
    assert row["nfe"] == 3  # Euler: a call a step
    assert all(math.isfinite(value) for value in row.values())
    assert [row["nfe"] for row in result.scores["sweep"]] == [3, 4]
    denoiser = load_denoiser(tmp_path / "run" / "01-denoiser" / "denoiser.safetensors", "cpu")
    assert denoiser.module.preconditioner == FlowPreconditioner()


def test_pairs_have_the_least_squared_distance_as_in_torchcfm() -> None:
    recipe = load_recipe(read_source("ot_flow"), load_plugins())
    coupler = recipe.stages["denoiser"].coupler
    g = generator(0, "pairs")
    data, noise = torch.rand((40, 6), generator=g) * 2 - 1, torch.randn((40, 6), generator=g)
    pairs = coupler.pair(Batch(data), noise, g)
    cost = torch.cdist(data.double(), noise.double()).square()
    assert torch.equal(pairs.data, torch.arange(40))
    assert pairs.noise.tolist() == linear_sum_assignment(cost.numpy())[1].tolist()
