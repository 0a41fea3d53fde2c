from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from genkit.artifacts.statistics import Statistics
from genkit.errors import Code, DataError
from genkit.random import generator
from genkit_metrics.gaussians import expected_bias, frechet_distance
from raising import raises_code


def normal(mean, covariance):
    return Statistics(torch.as_tensor(mean).double(), torch.as_tensor(covariance).double())


def test_is_the_sum_over_features_where_they_are_independent():
    first = normal([1.0, 0.0, 2.0], torch.diag(torch.tensor([4.0, 1.0, 0.0])))
    second = normal([0.0, 0.0, 0.0], torch.diag(torch.tensor([9.0, 0.0, 0.25])))
    # (m1 - m2)^2 + (s1 - s2)^2 of each feature.
    assert frechet_distance(first, second) == pytest.approx(5 + 1 + 1 + 0.25, rel=1e-14)


def test_equals_the_square_root_of_a_matrix():
    draw = generator(0, "features")
    mix = torch.randn(2, 30, 30, generator=draw, dtype=torch.float64)
    first, second = (Statistics.of(torch.randn(200, 30, generator=draw) @ m.float()) for m in mix)
    root = sqrtm(first.covariance.numpy() @ second.covariance.numpy()).real
    wanted = (first.mean - second.mean).square().sum() + torch.trace(
        first.covariance + second.covariance - 2 * torch.from_numpy(root)
    )
    assert frechet_distance(first, second) == pytest.approx(float(wanted), rel=1e-10)


def test_fewer_items_than_features_lose_no_digits():
    draw = np.random.RandomState(0)
    first, second = draw.randn(40, 200), 0.9 * draw.randn(50, 200) + 0.1
    centered = [(x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (first, second)]
    overlap = np.linalg.norm(centered[0] @ centered[1].T, "nuc")
    traces = sum(np.square(x).sum() for x in centered)
    wanted = np.square(first.mean(0) - second.mean(0)).sum() + traces - 2 * overlap
    found = frechet_distance(*(Statistics.of(torch.from_numpy(x)) for x in (first, second)))
    # Roots of the eigenvalues that rounding leaves in place of 0 take it to 1e-7.
    assert found == pytest.approx(wanted, rel=1e-11)


def test_equal_distributions_have_distance_zero():
    one = Statistics.of(torch.randn(100, 20, generator=generator(0, "features")))
    assert 0 <= frechet_distance(one, one) < 1e-12


def test_what_is_too_large_for_float64_has_no_distance_zero():
    large = normal([0.0, 0.0], 1e308 * torch.eye(2, dtype=torch.float64))
    assert not math.isfinite(frechet_distance(large, large))


def test_other_numbers_of_features_are_refused():
    two, three = normal([0.0] * 2, torch.eye(2)), normal([0.0] * 3, torch.eye(3))
    with raises_code(DataError, Code.WRONG_SHAPE):
        frechet_distance(two, three)


def test_the_bias_of_equal_variances_is_known():
    # tr(S) / n + (F^2 v / 2 + F v / 2) / 2n
    found = expected_bias(normal([0.0] * 10, 3.0 * torch.eye(10)), 500)
    assert found == pytest.approx((30 + (150 + 15) / 2) / 500, rel=1e-12)


def test_directions_without_variance_have_no_bias():
    values = torch.tensor([2.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    whole, part = (normal([0.0] * k, torch.diag(values[:k])) for k in (4, 2))
    assert expected_bias(whole, 100) == pytest.approx(expected_bias(part, 100), rel=1e-14)


def test_the_bias_is_the_mean_distance_of_samples_of_the_distribution_itself():
    values = torch.tensor([5.0, 2.0, 1.0, 0.5, 0.1, 0.01], dtype=torch.float64)
    exact = normal(torch.zeros(6), torch.diag(values))
    draw, count, repeats = generator(0, "samples"), 400, 1000
    found = torch.tensor(
        [
            frechet_distance(exact, Statistics.of(x * values.sqrt()))
            for x in torch.randn(repeats, count, 6, generator=draw, dtype=torch.float64)
        ]
    )
    error = 4 * float(found.std()) / math.sqrt(repeats)
    wanted = expected_bias(exact, count)
    assert error < 0.1 * wanted
    assert float(found.mean()) == pytest.approx(wanted, abs=error)
