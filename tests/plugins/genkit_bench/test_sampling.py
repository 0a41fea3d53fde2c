from __future__ import annotations

import pytest
import torch
from torch import nn

import genkit
from genkit.artifacts import Coupling
from genkit.interfaces import Trained
from genkit.types import DataSpec
from genkit_bench.sampling import measure_sampling

CPU = torch.device("cpu")
SPEC = DataSpec((1, 4, 4), classes=3)


def settings():
    return genkit.component("denoiser", "mlp", width=8, blocks=1, class_conditional=True)


@pytest.fixture
def trained():
    return genkit.Denoiser(Trained(settings(), SPEC, settings().build(SPEC).eval()), CPU)


def measured(trained, steps=(2, 3), sizes=(1, 4)):
    told = []
    schedule, solver = genkit.component("schedule", "edm"), genkit.component("solver", "heun")
    found = measure_sampling(trained, schedule, solver, steps, sizes, "bfloat16", 2, told.append)
    return found, told


def test_every_case_is_measured_in_turns(trained):
    found, told = measured(trained)
    assert [(row.steps, row.batch_size) for row in found.rows] == [(2, 1), (2, 4), (3, 1), (3, 4)]
    assert [row.nfe for row in found.rows] == [3, 3, 5, 5]
    assert sum("round 1 of 2" in line for line in told) == 4
    for row in found.rows:
        assert row.images_per_second > 0
        assert row.seconds_network > 0
        assert row.seconds_solver > 0
        assert row.utilization is None
    assert found.parameters == sum(p.numel() for p in trained.module.parameters())
    products = sum(p.numel() for p in trained.module.parameters() if p.ndim == 2)
    assert found.flops == 2 * products


def test_the_start_is_that_of_the_training(trained):
    trained.coupling = Coupling(True, True, (), independent=False, preserves_score=False)
    found, _ = measured(trained, steps=(2,), sizes=(1,))
    assert found.rows[0].nfe == 4


def test_what_does_not_fit_is_noted(trained):
    class Huge(nn.Module):
        preconditioner = trained.module.preconditioner

        def forward(self, x, sigma, labels):
            if len(x) > 2:
                raise torch.OutOfMemoryError("no memory left\nat all")
            return x

    found, _ = measured(genkit.Denoiser(Trained(settings(), SPEC, Huge()), CPU), steps=(2,))
    assert found.rows[0].images_per_second > 0
    assert found.rows[1].images_per_second is None
    assert found.rows[1].note == "no memory left"
