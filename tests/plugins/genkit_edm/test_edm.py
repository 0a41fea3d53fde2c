from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from genkit.errors import Code, SettingError
from genkit.interfaces import Preconditioned
from genkit_edm.edm import EdmPreconditioner, EdmSchedule, LogLinearSchedule, LogNormal
from raising import raises_code

SIGMA = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_network_input_and_target_have_unit_variance(sigma_data: float) -> None:
    c = EdmPreconditioner(sigma_data=sigma_data).coefficients(SIGMA)
    # Var[c_in (y + n)] and Var[(y - c_skip (y + n)) / c_out], for y and n independent.
    variance_in = c.c_in**2 * (sigma_data**2 + SIGMA**2)
    variance_target = ((1 - c.c_skip) ** 2 * sigma_data**2 + c.c_skip**2 * SIGMA**2) / c.c_out**2
    torch.testing.assert_close(variance_in, torch.ones_like(SIGMA))
    torch.testing.assert_close(variance_target, torch.ones_like(SIGMA))


def test_c_skip_minimises_c_out() -> None:
    sigma_data = 0.5
    c = EdmPreconditioner(sigma_data=sigma_data).coefficients(SIGMA)
    for other in (c.c_skip - 1e-3, c.c_skip + 1e-3):
        amplified = ((1 - other) ** 2 * sigma_data**2 + other**2 * SIGMA**2).sqrt()
        assert bool((amplified > c.c_out).all())


def test_c_noise_is_a_quarter_of_the_logarithm() -> None:
    c = EdmPreconditioner().coefficients(SIGMA)
    torch.testing.assert_close(c.c_noise, torch.log(SIGMA) / 4)


def test_weight_undoes_c_out() -> None:
    preconditioner = EdmPreconditioner(sigma_data=0.7)
    product = preconditioner.weight(SIGMA) * preconditioner.coefficients(SIGMA).c_out ** 2
    torch.testing.assert_close(product, torch.ones_like(SIGMA))


def test_denoiser_becomes_the_identity_as_noise_vanishes() -> None:
    class Anything(torch.nn.Module):
        def forward(self, x: torch.Tensor, c_noise: torch.Tensor, labels: None) -> torch.Tensor:
            return torch.cos(3 * x) + c_noise[:, None]

    denoiser = Preconditioned(Anything(), EdmPreconditioner())
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = [
        (denoiser(x, torch.full((4,), sigma, dtype=torch.float64)) - x).abs().max()
        for sigma in (1e-2, 1e-4, 1e-6)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4


def test_sigma_data_must_be_positive() -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, "sigma_data"):
        EdmPreconditioner(sigma_data=0.0)


@pytest.mark.parametrize(("p_mean", "p_std"), [(-1.2, 1.2), (0.4, 2.0)])
def test_quantiles_are_those_of_scipy(p_mean: float, p_std: float) -> None:
    u = np.concatenate([[1e-15, 1e-9], np.linspace(0.01, 0.99, 21), [1 - 1e-9]])
    expected = scipy.stats.lognorm(s=p_std, scale=np.exp(p_mean)).ppf(u)
    found = LogNormal(p_mean=p_mean, p_std=p_std).quantile(torch.from_numpy(u))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_the_median_is_exp_p_mean() -> None:
    median = LogNormal().quantile(torch.tensor([0.5], dtype=torch.float64))
    assert float(median) == pytest.approx(np.exp(-1.2), rel=1e-14)


def test_float32_fractions_are_widened() -> None:
    assert LogNormal().quantile(torch.tensor([0.25])).dtype == torch.float64


def test_p_std_must_be_positive() -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, "p_std"):
        LogNormal(p_std=0.0)


@pytest.mark.parametrize("steps", [2, 3, 18, 256])
@pytest.mark.parametrize("rho", [1.0, 7.0, 90.0])
def test_ends_and_order(steps: int, rho: float) -> None:
    sigmas = EdmSchedule(steps=steps, rho=rho).sigmas()
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float64
    assert float(sigmas[0]) == pytest.approx(80.0, rel=1e-12)
    assert float(sigmas[-2]) == pytest.approx(0.002, rel=1e-12)
    assert float(sigmas[-1]) == 0.0
    assert bool((sigmas.diff() < 0).all())


def test_levels_follow_equation_5() -> None:
    n, rho, low, high = 5, 3.0, 0.01, 20.0
    sigmas = EdmSchedule(steps=n, rho=rho, sigma_min=low, sigma_max=high).sigmas()
    expected = [
        (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        for i in range(n)
    ]
    torch.testing.assert_close(
        sigmas[:-1], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_a_single_step_goes_from_the_top_to_zero() -> None:
    assert EdmSchedule(steps=1).sigmas().tolist() == pytest.approx([80.0, 0.0])


@pytest.mark.parametrize("rho", [1e-3, 1e-300])
def test_a_rho_whose_powers_leave_float64_is_reported(rho: float) -> None:
    (problem,) = EdmSchedule(rho=rho).check({})
    assert (problem.key, problem.code) == (("rho",), Code.CONFLICT)
    assert "1 to 100" in problem.hint


def test_a_rho_at_which_rounding_moves_the_levels_is_refused() -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, "rho"):
        EdmSchedule(rho=1e7)
    sigmas = EdmSchedule(rho=1e6).sigmas()
    torch.testing.assert_close(sigmas, LogLinearSchedule().sigmas(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("rho", [1, 7, 90])
def test_usual_settings_are_allowed(rho: float) -> None:
    for steps in (1, 14, 1000):
        assert list(EdmSchedule(rho=rho, steps=steps).check({})) == []


@pytest.mark.parametrize("setting", ["sigma_min", "sigma_max", "rho", "steps"])
def test_settings_must_be_positive(setting: str) -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, setting):
        EdmSchedule(**{setting: 0})
