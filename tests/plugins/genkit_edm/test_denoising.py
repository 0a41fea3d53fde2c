from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from genkit import component
from genkit.errors import Code, DataError
from genkit.types import Batch
from genkit_edm.denoising import Denoising
from genkit_edm.edm import EdmPreconditioner, LogNormal
from raising import raises_code

OBJECTIVE = Denoising(noise_distribution=LogNormal())


class ClosedForm(nn.Module):
    """The exact denoiser of N(0, 1/4) data; keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.preconditioner = EdmPreconditioner()

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        self.seen = (x, sigma, labels)
        return x * 0.25 / (0.25 + sigma.reshape(-1, 1, 1, 1) ** 2)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_loss_is_that_of_the_reference(edm_golden) -> None:
    golden, _ = edm_golden("loss_edm")
    # The quantiles at which the reference drew its noise levels.
    u = scipy.stats.norm.cdf(golden["uniform_or_normal"].flatten().double().numpy())
    batch = Batch(golden["images"], quantile=torch.from_numpy(u))
    model = ClosedForm()
    loss = OBJECTIVE.loss(model, batch, golden["noise"], generator())
    sigma = golden["sigma"].flatten()
    torch.testing.assert_close(model.seen[1], sigma, rtol=1e-6, atol=0)
    expected = golden["loss"].flatten(1).mean(1)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    with pytest.raises(AssertionError):  # a slightly damaged copy
        torch.testing.assert_close(loss, expected * (1 + 3e-5), rtol=1e-6, atol=0)
    assert loss.dtype == torch.float32


def test_only_denoising_averages_over_elements() -> None:
    """EDM and EDM2 train on the sum over elements; cross-entropies have one term an item."""
    terms = {
        name: component("objective", name).terms((3, 32, 32))
        for name in ("denoising", "uncertainty-denoising", "discrimination", "classification")
    }
    assert terms == {
        "denoising": 3072,
        "uncertainty-denoising": 3072,
        "discrimination": 1,
        "classification": 1,
    }


def test_labels_reach_the_network() -> None:
    data = torch.zeros(3, 1, 2, 2)
    u = torch.full((3,), 0.5, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1])
    model = ClosedForm()
    OBJECTIVE.loss(model, Batch(data, labels=labels, quantile=u), data, generator())
    assert model.seen[2] is labels
    OBJECTIVE.loss(model, Batch(data, quantile=u), data, generator())
    assert model.seen[2] is None


def test_noise_is_scaled_by_the_level_of_each_item() -> None:
    model = ClosedForm()
    u = torch.tensor([0.5, 0.9], dtype=torch.float64)
    data, noise = torch.full((2, 1, 2, 2), 0.25), torch.ones(2, 1, 2, 2)
    OBJECTIVE.loss(model, Batch(data, quantile=u), noise, generator())
    x, sigma, _ = model.seen
    assert float(sigma[0]) == pytest.approx(math.exp(-1.2))
    torch.testing.assert_close(x[:, 0, 0, 0], 0.25 + sigma)


def test_a_batch_without_quantiles_is_refused() -> None:
    data = torch.zeros(2, 1, 2, 2)
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "quantile"):
        OBJECTIVE.loss(ClosedForm(), Batch(data), data, generator())
