"""Samples of EDM's reference on points blurred by 0.35, on which all of its settings show."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from genkit import component
from genkit.interfaces import Schedule, Solver
from genkit.testing import ClosedForm

pytestmark = pytest.mark.slow

CASES = range(35)
LIMIT = 1e-9


class BlurredPoints:
    """The exact denoiser of an equal mixture of N(point, spread^2 I)."""

    def __init__(self, points: Tensor, spread: float) -> None:
        self.points, self.variance = points.flatten(1), spread**2

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        total = self.variance + sigma**2
        distance = (x.flatten(1)[:, None] - self.points).square().sum(2)
        mean = (torch.softmax(-distance / (2 * total), dim=1) @ self.points).reshape(x.shape)
        return mean + self.variance / total * (x - mean)


@pytest.fixture(scope="module")
def cases(edm_golden):
    """The golden file: its tensors, the settings of each case, the denoiser."""
    golden, metadata = edm_golden("sampler_smooth")
    settings = [json.loads(metadata[f"case_{k}"]) for k in CASES]
    return golden, settings, BlurredPoints(golden["points"], float(metadata["spread"]))


def parts(case: dict[str, Any]) -> tuple[Schedule, Solver]:
    """Return genkit's schedule and solver for settings of the reference."""
    given = {name: case[name] for name in ("sigma_min", "sigma_max", "rho") if name in case}
    levels = case.get("discretization", "edm")
    schedule = component("schedule", levels, steps=case["num_steps"], **given)
    settings = {k.lower(): float(v) for k, v in case.items() if k.startswith("S_")}
    settings["path"] = case.get("schedule", "linear")
    settings["scaling"] = case.get("scaling", "none")
    if (name := case.get("solver", "heun")) == "heun":
        settings["alpha"] = case.get("alpha", 1.0)
    solver = component("solver", name, **settings)
    return schedule, solver.between(*schedule.sigma_range(), schedule.sigmas())


def drawn(cases, case: dict[str, Any]) -> Tensor:
    golden, _, denoise = cases
    schedule, solver = parts(case)
    sigmas, noise = schedule.sigmas(), iter(golden["churn_draws"])
    *_, last = solver.solve(
        ClosedForm(denoise), golden["latents"] * sigmas[0], sigmas, lambda x: next(noise)
    )
    return last.x


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max())


@pytest.mark.parametrize("k", CASES)
def test_samples_are_those_of_the_reference(cases, k: int) -> None:
    golden, settings, _ = cases
    found, expected = drawn(cases, settings[k]), golden[f"samples_{k}"]
    assert error(found, expected) < LIMIT
    assert error(found, expected * (1 + 3e-5)) > 1000 * LIMIT


CHURNED, VP = 4, 30
CHANGES = {
    "rho": (0, {"rho": 30}),
    "a high rho": (1, {"rho": 90}),
    "a low rho": (3, {"rho": 7}),
    "steps": (0, {"num_steps": 25}),
    "order": (0, {"solver": "euler"}),
    "alpha": (7, {"alpha": 1.0}),
    "s_churn": (CHURNED, {"S_churn": 2}),
    "s_min": (CHURNED, {"S_min": 0}),
    "s_max": (CHURNED, {"S_max": math.inf}),
    "s_noise": (CHURNED, {"S_noise": 1.0}),
    "sigma_min": (VP, {"sigma_min": 0.01}),
    "sigma_max": (VP, {"sigma_max": 80.0}),
    "levels": (7, {"discretization": "ve"}),
    "path vp": (11, {"schedule": "linear"}),
    "path ve": (9, {"schedule": "linear"}),
    "scaling": (11, {"scaling": "none"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_that_is_ignored_shows(cases, name: str) -> None:
    golden, settings, _ = cases
    k, change = CHANGES[name]
    assert error(drawn(cases, settings[k] | change), golden[f"samples_{k}"]) > 1000 * LIMIT


def test_the_range_of_path_vp_shows(cases) -> None:
    """With the constants of the VP SDE's own range, 19.9 and 0.1, samples differ."""
    golden, settings, denoise = cases
    schedule, solver = parts(settings[11])
    own = component("schedule", "vp").sigma_range()
    fixed = component("solver", "heun", path="vp", alpha=0.5, path_range=own)
    sigmas = schedule.sigmas()
    x = golden["latents"] * sigmas[0]
    bound = fixed.between(*schedule.sigma_range(), sigmas)
    for one, differs in ((solver, False), (bound, True)):
        *_, last = one.solve(ClosedForm(denoise), x, sigmas, torch.randn_like)
        assert (error(last.x, golden["samples_11"]) > 1000 * LIMIT) is differs


def independent(cases, edm_sampler, case: dict[str, Any]) -> Tensor:
    golden, _, denoise = cases
    levels, noise = case.get("discretization", "edm"), iter(golden["churn_draws"])
    ends = edm_sampler.default_range(levels)
    ends = (case.get("sigma_min", ends[0]), case.get("sigma_max", ends[1]))
    sigmas = edm_sampler.levels(levels, case["num_steps"], *ends, rho=case.get("rho", 7.0))
    return edm_sampler.solved(
        denoise, golden["latents"], sigmas, lambda x: next(noise), **case, range=ends
    )


def test_the_independent_sampler_is_the_reference(cases, edm_sampler) -> None:
    golden, settings, _ = cases
    for k in CASES:
        assert error(independent(cases, edm_sampler, settings[k]), golden[f"samples_{k}"]) < LIMIT


@pytest.mark.parametrize("levels", ["vp", "ve", "edm", "iddpm"])
@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("churn", [{}, {"S_churn": 15, "S_min": 0.05, "S_max": 30}])
@pytest.mark.parametrize("ends", [None, (0.01, 50.0), (0.05, 100.0)])
def test_paths_and_scalings_are_those_of_the_range(
    cases, edm_sampler, levels, solver, churn, ends
) -> None:
    case = {"discretization": levels, "solver": solver, "num_steps": 9, **churn}
    if ends:
        case |= dict(zip(("sigma_min", "sigma_max"), ends, strict=True))
    for schedule, scaling in (("vp", "vp"), ("vp", "none"), ("linear", "vp"), ("ve", "vp")):
        case |= {"schedule": schedule, "scaling": scaling}
        found = drawn(cases, case)
        assert error(found, independent(cases, edm_sampler, case)) < LIMIT
