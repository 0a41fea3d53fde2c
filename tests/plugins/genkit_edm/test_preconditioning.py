from __future__ import annotations

import pytest
import torch

from genkit.errors import SettingError
from genkit.interfaces import Preconditioned
from genkit_edm.edm import EdmPreconditioner

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
    with pytest.raises(SettingError, match="sigma_data"):
        EdmPreconditioner(sigma_data=0.0)
