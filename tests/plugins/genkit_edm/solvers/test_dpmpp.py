"""DPM-Solver++ against the paper's algorithms in the paper's own terms, alpha and sigma of VP."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from genkit.interfaces import Solver
from genkit.testing import ClosedForm
from genkit_edm.edm import EdmSchedule
from genkit_edm.solvers.dpmpp import Dpmpp2m, Dpmpp2s
from genkit_edm.vp import VpSchedule

POINTS = torch.tensor([[0.5, -1.0], [0.25, 0.75], [-1.0, 0.0]], dtype=torch.float64)
START = torch.tensor([[1.0, -0.3], [0.2, 0.8], [-1.4, 2.0]], dtype=torch.float64)
Floats = NDArray[np.float64]


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of three points."""
    distance = (x[:, None] - POINTS).square().sum(-1)
    return torch.softmax(-distance / (2 * sigma**2), dim=1) @ POINTS


def predict(x: Floats, lam: float) -> Floats:
    """The data prediction of the VP process at half-log-SNR ``lam``."""
    alpha = 1 / np.sqrt(1 + np.exp(-2 * lam))
    level = torch.tensor(np.exp(-lam), dtype=torch.float64)
    return denoise(torch.from_numpy(x / alpha), level).numpy()


def alpha_sigma(lam: float) -> tuple[float, float]:
    """VP: alpha^2 + sigma^2 = 1 and lambda = log(alpha / sigma)."""
    return 1 / np.sqrt(1 + np.exp(-2 * lam)), 1 / np.sqrt(1 + np.exp(2 * lam))


def first_order(x: Floats, data: Floats, start: float, end: float) -> Floats:
    """Eq. 9 of the paper with k = 1."""
    (_, sigma_start), (alpha, sigma) = alpha_sigma(start), alpha_sigma(end)
    return sigma / sigma_start * x - alpha * np.expm1(start - end) * data


def paper_2m(x: Floats, lambdas: list[float]) -> Floats:
    """Algorithm 2."""
    steps = list(pairwise(lambdas))
    previous: Floats | None = None
    for i, (start, end) in enumerate(steps):
        data = predict(x, start)
        mixed = data
        if previous is not None:
            r = (start - lambdas[i - 1]) / (end - start)
            mixed = (1 + 1 / (2 * r)) * data - 1 / (2 * r) * previous
        x, previous = first_order(x, mixed, start, end), data
    return x


def paper_2s(x: Floats, lambdas: list[float]) -> Floats:
    """Algorithm 1 with r = 1/2."""
    r = 0.5
    for start, end in pairwise(lambdas):
        data = predict(x, start)
        middle = start + r * (end - start)
        inner = predict(first_order(x, data, start, middle), middle)
        x = first_order(x, (1 - 1 / (2 * r)) * data + 1 / (2 * r) * inner, start, end)
    return x


@pytest.mark.parametrize(("solver", "paper"), [(Dpmpp2m(), paper_2m), (Dpmpp2s(), paper_2s)])
@pytest.mark.parametrize("schedule", [VpSchedule(steps=12), EdmSchedule(steps=12)])
def test_states_are_those_of_the_paper(solver: Solver, paper, schedule) -> None:
    sigmas = schedule.sigmas()
    lambdas = (-sigmas[:-1].log()).tolist()
    alpha = alpha_sigma(lambdas[0])[0]
    states = list(solver.solve(ClosedForm(denoise), START * sigmas[0], sigmas, torch.randn_like))
    for k in (1, 2, 3, 6, 11):
        ended = paper(alpha * (START * sigmas[0]).numpy(), lambdas[: k + 1])
        expected = torch.from_numpy(ended / alpha_sigma(lambdas[k])[0])
        torch.testing.assert_close(states[k].x, expected, rtol=1e-11, atol=1e-11)
    # The last step, to 0, where lambda has no bound, is of first order: it ends at D.
    torch.testing.assert_close(states[-1].x, states[-2].denoised)


@pytest.mark.parametrize("solver", [Dpmpp2m(), Dpmpp2s()])
def test_a_constant_denoiser_is_solved_exactly(solver: Solver) -> None:
    point = torch.tensor([0.3, -0.7], dtype=torch.float64)
    sigmas = torch.tensor([80.0, 5.0, 0.1, 0.0], dtype=torch.float64)
    constant = ClosedForm(lambda x, sigma: point.expand_as(x))
    states = list(solver.solve(constant, START * 80, sigmas, torch.randn_like))
    for state in states:
        expected = point + state.sigma / 80 * (START * 80 - point)
        torch.testing.assert_close(state.x, expected)
