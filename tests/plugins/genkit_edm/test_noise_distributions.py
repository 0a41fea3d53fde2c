"""The training distributions of other papers, and their losses against the reference's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genkit import component
from genkit.errors import Code, SettingError
from genkit.interfaces import NoiseDistribution, Preconditioner
from genkit.types import Batch
from genkit_edm.denoising import Denoising
from genkit_edm.iddpm import IddpmDistribution, iddpm_levels
from genkit_edm.ve import VeDistribution, VePreconditioner
from genkit_edm.vp import VpDistribution, VpPreconditioner
from raising import raises_code


class ClosedForm(nn.Module):
    """The exact denoiser of N(0, 1/4) data; keeps the noise levels that it was called with."""

    def __init__(self, preconditioner: Preconditioner) -> None:
        super().__init__()
        self.preconditioner = preconditioner

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        self.seen = sigma
        return x * 0.25 / (0.25 + sigma.reshape(-1, 1, 1, 1) ** 2)


@pytest.mark.parametrize(
    ("name", "preconditioner", "distribution", "downwards"),
    [
        # The reference's time falls from 1 as its uniform number rises.
        ("vp", VpPreconditioner(), VpDistribution(), True),
        ("ve", VePreconditioner(), VeDistribution(), False),
    ],
)
def test_losses_are_those_of_the_reference(
    name: str,
    preconditioner: Preconditioner,
    distribution: NoiseDistribution,
    downwards: bool,
    edm_golden,
) -> None:
    golden, _ = edm_golden(f"loss_{name}")
    u = golden["uniform_or_normal"].flatten().double()
    batch = Batch(golden["images"], quantile=1 - u if downwards else u)
    model = ClosedForm(preconditioner)
    objective = Denoising(noise_distribution=distribution)
    loss = objective.loss(model, batch, golden["noise"], torch.Generator())
    sigma, expected = golden["sigma"].flatten(), golden["loss"].flatten(1).mean(1)
    torch.testing.assert_close(model.seen, sigma, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    with pytest.raises(AssertionError):  # a slightly damaged copy
        torch.testing.assert_close(loss, expected * (1 + 3e-5), rtol=1e-6, atol=0)


def test_vp_times_are_uniform_from_the_least_to_1() -> None:
    u = torch.linspace(0, 1, 9, dtype=torch.float64)
    t = VpPreconditioner().coefficients(VpDistribution(eps_t=0.2).quantile(u)).c_noise / 999
    torch.testing.assert_close(t, 0.2 + 0.8 * u)


def test_ve_levels_are_log_uniform() -> None:
    u = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    sigma = VeDistribution(sigma_min=0.01, sigma_max=100.0).quantile(u)
    torch.testing.assert_close(sigma, torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64))


def test_iddpm_levels_are_equally_likely() -> None:
    u = (torch.arange(3000, dtype=torch.float64) + 0.5) / 3000
    sigma = IddpmDistribution().quantile(u)
    torch.testing.assert_close(sigma, iddpm_levels().repeat_interleave(3), rtol=0, atol=0)
    edge = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    assert float(IddpmDistribution().quantile(edge)) == float(iddpm_levels()[-1])


def test_a_range_of_ve_that_is_none_is_reported() -> None:
    (problem,) = VeDistribution(sigma_min=3.0, sigma_max=2.0).check({})
    assert problem.key == ("sigma_min",)
    assert list(VeDistribution().check({})) == []


@pytest.mark.parametrize(
    "objective", ["denoising", "uncertainty-denoising", "discrimination", "guided-denoising"]
)
def test_the_old_key_names_the_new_one(objective: str) -> None:
    with raises_code(SettingError, Code.RENAMED_KEY, "write noise_distribution") as caught:
        component("objective", objective, sigma_distribution={"use": "log-normal"})
    assert ("sigma_distribution",) in [problem.key for problem in caught.value.problems]
