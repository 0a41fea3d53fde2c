from __future__ import annotations

import pytest
import torch

from genkit.artifacts.statistics import Statistics
from genkit.errors import Code, DataError
from genkit.random import generator
from genkit.testing import subject_of
from genkit.types import Batch
from genkit_metrics.extractors import Pixels
from genkit_metrics.spread import Spread, spread
from raising import raises_code


@pytest.fixture
def data():
    draw = generator(0, "data")
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=draw, dtype=torch.float64))
    deviations = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    return 4 + torch.randn(300, 6, generator=draw, dtype=torch.float64) * deviations @ basis


def test_is_the_factor_by_which_each_principal_direction_is_shrunk(data):
    statistics = Statistics.of(data)
    _, _, directions = torch.linalg.svd(data - data.mean(0), full_matrices=False)
    factors = torch.tensor([0.9, 0.8, 1.2, 0.5, 2.0, 1.0], dtype=torch.float64)
    samples = 7 + (data - data.mean(0)) @ directions.T * factors @ directions
    assert spread(samples, statistics, 3) == pytest.approx([0.9, 0.8, 1.2], rel=1e-9)
    # There is no sixth direction: the data does not vary along it.
    assert spread(samples, statistics, 9) == pytest.approx([0.9, 0.8, 1.2, 0.5, 2.0], rel=1e-9)


def test_samples_that_are_the_data_have_spread_1_and_those_without_variance_0(data, fake_context):
    metric, items = Spread(directions=4, extractor=Pixels()), Batch(data)
    for samples, ratio in ((data, 1.0), (data[:1].expand(5, -1), 0.0)):
        found = metric.measure(subject_of(fake_context(), Batch(samples), items), fake_context())
        assert found.scores == {"spread_pixels": pytest.approx(ratio, abs=1e-6)}
        (curve,) = found.curves.values()
        assert curve.x == (1, 2, 3, 4)
        assert found.facts == {"features": "6", "reference": "300"}
        assert curve.y == pytest.approx([ratio] * 4, abs=1e-6)


def test_other_numbers_of_features_and_equal_items_are_refused(data):
    statistics = Statistics.of(data)
    with raises_code(DataError, Code.WRONG_SHAPE):
        spread(data[:, :5], statistics, 2)
    with raises_code(DataError, Code.CONFLICT):
        spread(data, Statistics.of(torch.ones(9, 6)), 2)


def test_one_sample_is_refused(data, fake_context):
    subject = subject_of(fake_context(), Batch(data[:1]), Batch(data))
    with raises_code(DataError, Code.WRONG_LENGTH):
        Spread(extractor=Pixels()).measure(subject, fake_context())
