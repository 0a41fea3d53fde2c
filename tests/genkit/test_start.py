from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import genkit
from genkit.artifacts.coupling import Coupling, CouplingStatistics
from genkit.errors import Code, DataError
from genkit.interfaces import BoundGuidance
from genkit.sample import GuidedDenoiser, sample, trajectory
from genkit.start import choose_start, require_start, sampling_warnings
from genkit.types import Draws
from raising import raises_code

ASSIGNED = Coupling(True, True, (), independent=False, preserves_score=False)
RANDOM = replace(ASSIGNED, independent=True, preserves_score=True)
S = torch.tensor([15.0, 2.0, 0.5, 0.1], dtype=torch.float64)
C = torch.tensor([0.8, 0.6, 0.3, 0.0], dtype=torch.float64) * S


class Linear(nn.Module):
    """E[y | x] of Gaussian data along independent directions, with Cov(y, n) = C."""

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        level = sigma.double()[:, None]
        slope = (S.square() + level * C) / (S.square() + 2 * level * C + level.square())
        return x.double() * slope


def variance(sigma: float) -> Tensor:
    return S.square() + 2 * sigma * C + sigma**2


def draws(count: int) -> Draws:
    latents = torch.randn(count, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Draws(latents, None, torch.zeros_like)


def states(start, steps=3000):
    schedule = genkit.component("schedule", "edm", steps=steps, sigma_min=1e-4)
    solver = genkit.component("solver", "heun")
    return trajectory(
        GuidedDenoiser(Linear()), draws(8), schedule=schedule, solver=solver, start=start
    )


@pytest.mark.parametrize("start", ["noise", "corrected", "corrected-twice"])
def test_the_start_and_the_whole_ode_follow_the_analytic_law(start):
    (first, *_), last = states(start, 1), deque(states(start), maxlen=1)[0]
    n = draws(8).latents
    # The flow of a linear model keeps x / sqrt(Var x(sigma)).
    slope = (S.square() + 80 * C) / variance(80)
    factor = {"noise": 1, "corrected": 1 + slope, "corrected-twice": 1 + slope + slope.square()}
    expected = 80 * n * factor[start]
    torch.testing.assert_close(first.x, expected, rtol=1e-6, atol=0)
    end = expected * S / variance(80).sqrt()
    torch.testing.assert_close(last.x, end, rtol=1e-6, atol=1e-6 * float(S[0]))


def test_the_corrected_start_has_the_right_spread():
    n = draws(8).latents
    noise, corrected, twice = (
        next(iter(states(start, 1))).x / n for start in ("noise", "corrected", "corrected-twice")
    )
    right = variance(80).sqrt()
    assert abs(float(noise[0, 0] / right[0]) - 1) > 0.13
    # Of second order: (C / sigma_max)^2 = 0.0225.
    assert 0.01 < float((corrected[0] / right - 1).abs().max()) < 0.0225
    assert float((twice[0] / right - 1).abs().max()) < 0.15**3


def test_the_correction_is_one_more_call_with_labels_and_guidance():
    class Counts(Linear):
        def forward(self, x, sigma, labels):
            seen.append(labels.tolist())
            return super().forward(x, sigma, labels)

    class Shift(BoundGuidance):
        def correction(self, x, sigma, labels, denoised, *, inner=False):
            self.evaluations += 1
            return torch.ones_like(denoised)

    parts = {
        "schedule": genkit.component("schedule", "edm", steps=1),
        "solver": genkit.component("solver", "euler"),
    }
    drawn = replace(draws(2), labels=torch.tensor([3, 5]))
    for start, calls in (("noise", 1), ("corrected", 2), ("corrected-twice", 3)):
        seen: list[list[int]] = []
        found = sample(Counts(), drawn, guidance=[Shift()], start=start, **parts)
        assert (found.nfe, found.guidance_nfe, seen) == (calls, calls, [[3, 5]] * calls)
    first = next(
        trajectory(GuidedDenoiser(Linear(), None, [Shift()]), drawn, start="corrected", **parts)
    )
    plain = next(trajectory(GuidedDenoiser(Linear()), drawn, start="corrected", **parts))
    torch.testing.assert_close(first.x, plain.x + 1)


def test_auto_corrects_where_noise_was_assigned():
    assert choose_start("auto", None, 80) == "noise"
    assert choose_start("auto", RANDOM, 80) == "noise"
    assert choose_start("auto", ASSIGNED, 80) == "corrected"
    measured = replace(ASSIGNED, statistics=CouplingStatistics(8192, 16, (2.0,), (1.6,), 9.0, 0.1))
    assert choose_start("auto", measured, 80) == "corrected"  # 1.6 / 80 is 2 %
    assert choose_start("auto", measured, 1000) == "noise"
    assert choose_start("auto", measured, 10) == "corrected-twice"
    assert choose_start("auto", measured, 1) == "corrected-twice"  # the nearest of the three
    assert choose_start("noise", ASSIGNED, 80) == "noise"
    assert choose_start("corrected", None, 80) == "corrected"


def test_what_is_assumed_and_what_does_not_hold_is_stated():
    heun = genkit.component("solver", "heun")
    churning = genkit.component("solver", "heun", s_churn=10.0)
    guide = type("Bound", (BoundGuidance,), {"correction": None})()
    guide.component = genkit.component("guidance", "discriminator", discriminator="d")

    def texts(*arguments):
        return len(list(sampling_warnings(*arguments)))

    assert texts("auto", None, churning, [guide]) == 1
    assert texts("noise", None, churning, [guide]) == 0
    assert texts("auto", RANDOM, churning, [guide]) == 0
    assert texts("auto", ASSIGNED, heun) == 1  # of assigned noise without statistics
    assert texts("corrected", ASSIGNED, heun) == 0
    measured = replace(ASSIGNED, statistics=CouplingStatistics(8192, 16, (2.0,), (1.6,), 9.0, 0.1))
    assert texts("auto", measured, heun) == 0
    assert texts("auto", measured, churning) == 1
    assert texts("auto", measured, heun, [guide]) == 1
    for steps, count in ((2, 1), (3, 0)):  # the interval is 0.05 to 20
        levels = genkit.component("schedule", "edm", steps=steps).sigmas()
        assert texts("noise", None, heun, [guide], levels) == count
    scored = replace(measured, preserves_score=True)
    assert texts("auto", scored, heun, [guide]) == 0


def test_a_start_that_cannot_be_is_refused():
    edm = genkit.component("schedule", "edm")
    narrow = genkit.component("preconditioner", "iddpm", m=10)
    with raises_code(DataError, Code.UNKNOWN_CHOICE):
        require_start("auo", edm, None)
    high = replace(edm, sigma_max=1e5)
    with raises_code(DataError, Code.OUT_OF_RANGE, "100000"):
        require_start("corrected", high, narrow)
    require_start("auto", high, narrow)
    require_start("corrected", high, None)
