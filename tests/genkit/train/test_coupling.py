"""Statistics of a coupling, on Gaussian data whose joint law with the noise is known."""

import numpy as np
import pytest
import torch

from genkit.errors import Code, DataError
from genkit.random import generator
from genkit.train.coupling import FEWEST_PAIRS, coupling_statistics
from raising import raises_code

COUNT = 20_000


def linear(correlations, deviations, width, seed=0):
    """Images with deviations along random directions, and noise correlated with each."""
    draws = generator(seed, "linear")
    turn = torch.linalg.qr(torch.randn(width, width, generator=draws, dtype=torch.float64)).Q
    z, fresh = (torch.randn(COUNT, width, generator=draws, dtype=torch.float64) for _ in range(2))
    rho, s = torch.tensor(correlations), torch.tensor(deviations)
    noise = rho * z + (1 - rho.square()).sqrt() * fresh
    return ((s * z) @ turn + 0.3).float(), (noise @ turn).float()


def test_statistics_are_those_of_the_joint_law():
    s, rho = [4.0, 2.0, 1.0, 0.5, 0.25, 0.1], [0.8, -0.6, 0.4, 0.2, 0.0, 0.9]
    images, noise = linear(rho, s, 6)

    found = coupling_statistics(images, noise, 5)

    error = COUNT**-0.5  # standard error of a correlation, at most
    assert (found.pairs, found.pools) == (COUNT, 5)
    np.testing.assert_allclose(found.deviations, s, rtol=5 * error)
    np.testing.assert_allclose(found.correlations, rho, atol=5 * error)
    squares = np.square(s)
    assert found.variance == pytest.approx(squares.sum(), rel=5 * error)
    assert found.covariance == pytest.approx(np.dot(s, rho) / 6, abs=5 * error)
    told = np.square(np.multiply(s, rho)).sum() / squares.sum()
    assert found.share_from_noise == pytest.approx(told, abs=5 * error)
    expected = np.sqrt(squares + 2 * 3 * np.multiply(s, rho) + 9)
    np.testing.assert_allclose(found.spread(3.0), expected, rtol=5 * error)


def test_images_of_any_shape_with_constant_pixels():
    images, noise = linear([0.5] * 16, [2.0] * 4 + [1.0] * 12, 16)
    framed = torch.full((COUNT, 1, 6, 6), -1.0)
    framed[:, :, 1:5, 1:5] = images.reshape(-1, 1, 4, 4)
    around = torch.randn(framed.shape, generator=generator(1, "around"))
    around[:, :, 1:5, 1:5] = noise.reshape(-1, 1, 4, 4)

    found, plain = (
        coupling_statistics(framed, around, 1),
        coupling_statistics(images, noise, 1),
    )

    assert found.deviations == pytest.approx(plain.deviations, rel=1e-9)
    assert found.covariances == pytest.approx(plain.covariances, abs=1e-9)
    assert found.covariance == pytest.approx(plain.covariance * 16 / 36, rel=1e-9)


def test_no_correlation_is_above_1():
    images, _ = linear([0.0] * 3, [3.0, 2.0, 1.0], 3)
    noise = 1.1 * images  # the noise of a sample may vary more than its law

    found = coupling_statistics(images, noise, 1)

    assert max(found.correlations) == 1


def test_too_few_pairs_are_refused():
    images, noise = linear([0.0], [1.0], 1)

    with raises_code(DataError, Code.WRONG_LENGTH):
        coupling_statistics(images[: FEWEST_PAIRS - 1], noise[: FEWEST_PAIRS - 1], 1)


def test_values_are_finite():
    images, noise = linear([0.0], [1.0], 1)
    noise[7] = torch.nan

    with raises_code(DataError, Code.NOT_FINITE):
        coupling_statistics(images, noise, 1)
