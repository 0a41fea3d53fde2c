"""Principal directions, against numpy's singular value decomposition."""

import numpy as np
import pytest
import torch

from genkit.parts.principal import Directions
from genkit.random import generator


def items(number, width, seed=0):
    """Items with distinct standard deviations along random directions, off the origin."""
    draws = generator(seed, "items")
    scales = 0.7 ** torch.arange(width, dtype=torch.float64).clamp(max=40)
    turned = torch.linalg.qr(torch.randn(width, width, generator=draws, dtype=torch.float64)).Q
    plain = torch.randn(number, width, generator=draws, dtype=torch.float64)
    return ((plain * scales) @ turned + 3).float()


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (1100, 1050), (1050, 1100)])
def test_directions_are_those_of_the_singular_values(shape):
    given = items(*shape)

    found = Directions.of(given, 8)

    centered = given.double().numpy() - given.double().numpy().mean(0)
    _, values, axes = np.linalg.svd(centered, full_matrices=False)
    expected = values[:8] / np.sqrt(shape[0] - 1)
    np.testing.assert_allclose(found.deviations, expected, rtol=1e-9)
    # Up to the sign.
    agreement = np.abs((found.axes.numpy() * axes[:8].T).sum(0))
    np.testing.assert_allclose(agreement, 1, rtol=1e-9)
    np.testing.assert_allclose(found.project(given).std(0), found.deviations, rtol=1e-9)


@pytest.mark.parametrize("shape", [(300, 40), (30, 40), (1200, 1100)])
def test_constant_values_have_no_direction(shape):
    given = items(*shape)
    given[:, 3:] = 0.1

    found = Directions.of(given, 8)

    assert len(found.deviations) == 3
    assert found.axes[3:].abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(300, 40), (1200, 1100)])
def test_equal_items_have_no_directions(shape):
    found = Directions.of(torch.full(shape, 0.1), 8)

    assert found.deviations.shape == (0,)
    assert found.project(torch.zeros(2, shape[1])).shape == (2, 0)


def test_equal_items_give_equal_bits():
    given = items(1200, 1100)

    one, other = Directions.of(given, 8), Directions.of(given.clone(), 8)

    assert torch.equal(one.axes, other.axes)
    assert torch.equal(one.deviations, other.deviations)
