from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from genkit.errors import Code, DataError
from genkit.interfaces import Discriminator, NoiseDistribution
from genkit.random import generator
from genkit.testing import check_component, check_objective
from genkit.types import Batch, DataSpec
from genkit_dg.discrimination import Discrimination
from genkit_dg.mlp_discriminator import MlpDiscriminator
from raising import raises_code


@dataclass(frozen=True, kw_only=True)
class Linear(NoiseDistribution):
    """sigma = 2 u."""

    def quantile(self, u):
        return 2 * u


class Sum(nn.Module):
    """log(d / (1 - d)) = sum(x) + sigma."""

    def forward(self, x, sigma, labels):
        return x.flatten(1).sum(1) + sigma


@pytest.fixture
def batch() -> Batch:
    draw = generator(0, "batch")
    return Batch(
        torch.randn(5, 2, generator=draw),
        realness=torch.tensor([0, 1, 1, 0, 1]),
        quantile=torch.rand(5, generator=draw, dtype=torch.float64),
    )


def test_is_the_cross_entropy_of_noisy_items(batch):
    noise = torch.randn(5, 2, generator=generator(0, "noise"))
    loss = Discrimination(noise_distribution=Linear()).loss(Sum(), batch, noise, generator(0))
    sigma = 2 * batch.quantile
    logit = (batch.data + sigma[:, None] * noise).sum(1) + sigma
    real = torch.sigmoid(logit)
    wanted = -torch.where(batch.realness == 1, real, 1 - real).log()
    assert loss.dtype == torch.float32
    assert_close(loss, wanted.float())


def test_laws_hold(batch):
    check_component(Discrimination)
    model = MlpDiscriminator(width=8).build(DataSpec((2,)))
    check_objective(Discrimination(noise_distribution=Linear()), model, batch)
    assert Discrimination.trains is Discriminator
    assert Discrimination.conditions == {"realness"}


@pytest.mark.parametrize(
    ("missing", "message"), [("realness", '"real-and-fake"'), ("quantile", "Batch.quantile")]
)
def test_incomplete_batches_are_refused(batch, missing, message):
    batch = replace(batch, **{missing: None})
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, message):
        Discrimination(noise_distribution=Linear()).loss(Sum(), batch, batch.data, generator(0))
