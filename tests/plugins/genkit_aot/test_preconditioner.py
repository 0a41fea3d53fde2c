"""The preconditioner for assigned noise against moments and EDM's own coefficients."""

from __future__ import annotations

import pytest
import torch

import genkit
from genkit.errors import Code

SIGMAS = torch.logspace(-2, 2, 9, dtype=torch.float64)
DATA, COVARIANCE = 0.5, 0.2


def coupled(covariance: float = COVARIANCE):
    return genkit.component("preconditioner", "coupled", sigma_data=DATA, covariance=covariance)


def test_input_and_target_of_paired_gaussians_have_unit_variance() -> None:
    # E y^2 = s^2, E n^2 = 1 and E y n = a, so every mean square is a quadratic form in closed form.
    moments = torch.tensor([[DATA**2, COVARIANCE], [COVARIANCE, 1.0]], dtype=torch.float64)
    for sigma in SIGMAS:
        c = coupled().coefficients(sigma[None])
        state = torch.tensor([1.0, float(sigma)], dtype=torch.float64)
        image = torch.tensor([1.0, 0.0], dtype=torch.float64)
        rest = (image - c.c_skip * state) / c.c_out
        assert float(c.c_in**2 * (state @ moments @ state)) == pytest.approx(1, rel=1e-12)
        assert float(rest @ moments @ rest) == pytest.approx(1, rel=1e-9)
        # What the network learns is not correlated with x: the best multiple of x is passed on.
        assert float(rest @ moments @ state) == pytest.approx(
            0, abs=1e-9 * float(sigma + 1 / sigma)
        )


def test_without_covariance_it_is_edms() -> None:
    edm = genkit.component("preconditioner", "edm", sigma_data=DATA)
    found, expected = coupled(0.0).coefficients(SIGMAS), edm.coefficients(SIGMAS)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(coupled(0.0).weight(SIGMAS), edm.weight(SIGMAS))


def test_the_weight_is_that_of_the_target() -> None:
    c = coupled().coefficients(SIGMAS)
    torch.testing.assert_close(coupled().weight(SIGMAS) * c.c_out**2, torch.ones_like(SIGMAS))


@pytest.mark.parametrize("covariance", [0.5, -0.6])
def test_a_correlation_beyond_1_is_refused(covariance: float) -> None:
    (problem,) = coupled(covariance).check({})
    assert (problem.code, problem.key) == (Code.OUT_OF_RANGE, ("covariance",))
