"""The best denoiser of a finite data set against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from genkit.random import generator
from genkit.train.by_quantile import BINS
from genkit.types import Batch
from genkit_edm.denoising import Denoising
from genkit_edm.edm import EdmPreconditioner, LogNormal
from genkit_stages.ideal_denoiser import IdealDenoiser, draws_for, ideal_losses

PRECONDITIONER = EdmPreconditioner(sigma_data=0.5)
LEVELS = LogNormal(p_mean=0.0, p_std=0.7)
OBJECTIVE = Denoising(noise_distribution=LEVELS)


def ideal(data, labels=None):
    return IdealDenoiser(torch.tensor(data), labels, PRECONDITIONER)


def losses_of(data, draws, labels=None):
    batch = Batch(torch.tensor(data), labels)
    found = ideal_losses(OBJECTIVE, ideal(data, labels), batch, draws, generator(0, "test"))
    assert found[1].tolist() == [draws / BINS] * BINS
    return (found[0] / found[1]).numpy()


def test_one_point_is_known_at_every_noise_level():
    x = torch.randn((5, 1, 2, 2), generator=generator(0))
    point = torch.tensor([[[[0.3, -1.0], [2.0, 0.25]]]])
    found = IdealDenoiser(point, None, PRECONDITIONER)(x, torch.logspace(-3, 3, 5))
    torch.testing.assert_close(found, point.expand(x.shape))
    assert losses_of([[0.3, -1.0]], 2048) == pytest.approx(np.zeros(BINS), abs=1e-12)


def test_the_mean_is_that_of_the_posterior():
    data = torch.randn((40, 3), generator=generator(1), dtype=torch.float64) + 5
    x = torch.randn((6, 3), generator=generator(2), dtype=torch.float64) + 5
    sigma = torch.tensor([0.01, 0.1, 0.5, 1.0, 5.0, 80.0], dtype=torch.float64)
    densities = np.array(
        [
            [np.prod(np.exp(-((a - y) ** 2) / 2 / s**2)) for y in data.numpy()]
            for a, s in zip(x.numpy(), sigma.numpy(), strict=True)
        ]
    )
    known = densities.sum(1) > 1e-300  # at the lowest levels the plain formula is 0 / 0
    expected = (densities @ data.numpy())[known] / densities.sum(1)[known, None]
    assert known.sum() >= 4
    found = IdealDenoiser(data, None, PRECONDITIONER)(x, sigma)
    np.testing.assert_allclose(found.numpy()[known], expected, rtol=1e-9)
    nearest = (x[0] - data).square().sum(1).argmin()
    torch.testing.assert_close(found[0], data[nearest])


def weighted_loss(a, sigma):
    """Loss of ``a tanh(a x / sigma^2)``, the mean of the points a and -a given x."""

    def density(n):
        error = a * math.tanh(a * (a + sigma * n) / sigma**2) - a
        return error**2 * math.exp(-(n**2) / 2) / math.sqrt(2 * math.pi)

    weight = float(PRECONDITIONER.weight(torch.tensor(sigma, dtype=torch.float64)))
    return weight * quad(density, -10, 10, points=[-a / sigma, 0], limit=200)[0]


def test_the_loss_of_two_points_is_that_of_quadrature():
    a, inside = 0.7, 8
    quantile = (torch.arange(BINS * inside, dtype=torch.float64) + 0.5) / (BINS * inside)
    exact = [weighted_loss(a, float(sigma)) for sigma in LEVELS.quantile(quantile)]
    expected = np.array(exact).reshape(BINS, inside).mean(1)
    found = losses_of([[a], [-a]], 2**18)  # 8,192 draws in a bin
    # The lowest levels rarely have an error, of great weight.
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.05)
    assert found.mean() == pytest.approx(expected.mean(), rel=0.01)


def test_the_class_is_known_where_items_have_labels():
    data, labels = [[1.0], [-1.0]], torch.tensor([0, 1])
    found = ideal(data, labels)(torch.zeros(2, 1), torch.full((2,), 80.0), labels)
    assert found.tolist() == data
    without = ideal(data)(torch.zeros(2, 1), torch.full((2,), 80.0), labels)
    torch.testing.assert_close(without, torch.zeros(2, 1))
    assert losses_of(data, 2048, labels) == pytest.approx(np.zeros(BINS), abs=1e-12)


def test_equal_generators_give_equal_bits():
    assert (
        losses_of([[0.5], [-1.0], [0.1]], 1024).tolist()
        == losses_of([[0.5], [-1.0], [0.1]], 1024).tolist()
    )


@pytest.mark.parametrize(
    ("count", "values", "images", "low", "high"),
    [
        (500, 2, 10**9, 2**15, 2**15),
        (500, 2, 600, 576, 576),  # no more than the training, in whole rounds of the bins
        (500, 2, 500, 0, 0),  # fewer than 16 a bin
        (5_000, 3_072, 10**9, 512, 1024),
        (50_000, 3_072, 10**9, 0, 0),
    ],
)
def test_draws_are_as_many_as_seconds_allow(count, values, images, low, high):
    found = draws_for(count, values, images)
    assert low <= found <= high
    assert found % BINS == 0
