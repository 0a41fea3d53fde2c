"""Tests of the assigned noise, on noise whose law is known."""

import pytest
import scipy.stats
import torch

from genkit.parts.principal import Directions
from genkit.random import generator
from genkit_audit.noise import class_skew, gaussianity

COUNT, WIDTH = 4000, 30


def gaussian(seed=0):
    return torch.randn(COUNT, WIDTH, generator=generator(seed, "noise"))


def directions():
    scales = 0.8 ** torch.arange(WIDTH)
    return Directions.of(scales * gaussian(1), 20)


def test_gaussian_noise_is_taken_for_gaussian():
    for seed in range(20):
        found = gaussianity(gaussian(seed), directions(), COUNT)
        assert not found.violations


def test_moments_are_those_of_numpy():
    noise = gaussian()

    found = gaussianity(noise, directions(), COUNT)

    values = noise.double().numpy()
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    assert found.variance == pytest.approx(values.var(), rel=1e-9)
    assert abs(found.worst_mean) == pytest.approx(abs(values.mean(0)).max(), rel=1e-9)
    along = values @ directions().axes.numpy()[:, :16]
    kurtosis = scipy.stats.kurtosis(along, axis=0)
    assert found.kurtosis == pytest.approx(kurtosis[abs(kurtosis).argmax()], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "moment"),
    [
        (lambda noise: noise + 0.02, "mean"),
        (lambda noise: noise * 1.02, "variance"),
        (lambda noise: noise + 0.12 * torch.eye(WIDTH)[3], "worst_mean"),
        (lambda noise: noise.sign() * noise.abs().clamp(max=2), "kurtosis"),
    ],
)
def test_other_noise_is_not(change, moment):
    assert moment in gaussianity(change(gaussian()), directions(), COUNT).violations


def test_repeated_noise_is_no_evidence():
    repeated = gaussian()[:40].repeat(COUNT // 40, 1)

    assert gaussianity(repeated, directions(), COUNT).violations
    assert not gaussianity(repeated, directions(), 40).violations


def test_skew_of_gaussian_classes_is_a_standard_normal_number():
    errors = [
        class_skew(gaussian(seed), torch.zeros(COUNT, dtype=torch.int64), directions(), 1.0).error
        for seed in range(2, 62)  # noise 1 gave the directions
    ]

    assert scipy.stats.kstest(errors, "norm").pvalue > 1e-3


def test_the_class_that_is_skewed_most_is_found():
    labels = torch.arange(COUNT) % 5
    shift = 0.4 * directions().axes[:, 2].float()
    noise = gaussian() + shift * (labels == 3)[:, None]

    found = class_skew(noise, labels, directions(), 1.0)

    assert (found.label, found.count) == (3, COUNT // 5)
    assert found.error > found.limit
    assert found.length == pytest.approx(0.4, rel=0.3)
