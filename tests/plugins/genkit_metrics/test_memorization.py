from __future__ import annotations

import io

import pytest
import torch
from PIL import Image
from torch import nn
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

from genkit.artifacts.statistics import Statistics
from genkit.errors import Code, DataError
from genkit.random import generator
from genkit.testing import subject_of
from genkit.types import Batch
from genkit_metrics.extractors import Pixels
from genkit_metrics.gaussians import frechet_distance
from genkit_metrics.memorization import Mifid, Nearest
from raising import raises_code


def measured(metric, samples, reference, context):
    return metric.measure(subject_of(context, Batch(samples), Batch(reference)), context)


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_a_sample_farther_than_the_gap_of_its_nearest_item_is_authentic(fake_context):
    real = column(0, 1, 10, 13, 14)
    # 0.4 is nearer to 0 than 1 is; 3 is 2 from 1, whose gap is 1; 12 is 1 from 13, and so is 14.
    samples = column(0.4, 3, 12, 13)
    found = measured(Nearest(extractor=Pixels()), samples, real, fake_context())
    assert found.scores == {
        "nearest_pixels": pytest.approx((0.4 + 2 + 1 + 0) / 4, rel=1e-6),
        "authentic_pixels": 0.25,
    }
    assert found.pictures == {}


def test_copies_are_not_authentic_even_of_duplicates(fake_context):
    real = torch.randn(50, 400, generator=generator(0, "items")) * 30 + 100
    real[7] = real[8]
    found = measured(Nearest(extractor=Pixels()), real[5:10], real, fake_context())
    assert found.scores["authentic_pixels"] == 0
    assert found.scores["nearest_pixels"] == 0


def test_half_of_new_data_is_authentic(fake_context):
    real, new = torch.randn(2, 2000, 4, generator=generator(0, "items"))
    found = measured(Nearest(extractor=Pixels()), new, real, fake_context())
    assert found.scores["authentic_pixels"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_picture_shows_the_closest_samples_first(channels, fake_context):
    draw = generator(0, "images")
    real = torch.randint(0, 256, (30, channels, 8, 8), generator=draw, dtype=torch.uint8)
    samples = torch.randint(0, 256, (12, channels, 8, 8), generator=draw, dtype=torch.uint8)
    found = measured(Nearest(extractor=Pixels()), samples, real, fake_context())
    again = measured(Nearest(extractor=Pixels()), samples, real, fake_context())
    assert list(found.pictures) == ["nearest_pixels"]
    assert found.pictures == again.pictures
    picture = Image.open(io.BytesIO(found.pictures["nearest_pixels"]))
    assert picture.height > 1.5 * picture.width  # 8 rows of 4


def test_mifid_is_that_of_torchmetrics_with_the_sets_exchanged(fake_context):
    draw = generator(0, "items")
    real = 5 + torch.randn(80, 6, generator=draw)
    samples = real[:60] + 0.5 * torch.randn(60, 6, generator=draw)
    found = measured(Mifid(extractor=Pixels()), samples, real, fake_context())
    theirs = MemorizationInformedFrechetInceptionDistance(feature=nn.Identity())
    theirs.update(samples.double(), real=True)  # see mean_cosine_distance
    theirs.update(real.double(), real=False)
    assert found.scores == {"mifid_pixels": pytest.approx(float(theirs.compute()), rel=1e-8)}


def test_mifid_of_samples_that_are_far_is_the_frechet_distance(fake_context):
    samples, real = torch.randn(2, 60, 40, generator=generator(0, "items"))
    found = measured(Mifid(extractor=Pixels()), samples, real, fake_context())
    plain = frechet_distance(*map(Statistics.of, (samples, real)))
    assert found.scores == {"mifid_pixels": pytest.approx(plain, rel=1e-12)}


def test_copies_have_a_higher_mifid_than_their_frechet_distance(fake_context):
    real = 3 + torch.randn(60, 4, generator=generator(0, "items"))
    found = measured(Mifid(extractor=Pixels()), real[:30], real, fake_context())
    plain = frechet_distance(*map(Statistics.of, (real[:30], real)))
    assert found.scores["mifid_pixels"] > 1e10 * plain


@pytest.mark.parametrize("side", [0, 1])
def test_features_without_a_direction_are_refused(side, fake_context):
    sets = list(1 + torch.rand(2, 20, 3, generator=generator(0, "items")))
    sets[side][11] = 0
    with raises_code(DataError, Code.OUT_OF_RANGE, "11"):
        measured(Mifid(extractor=Pixels()), *sets, fake_context())


def test_too_few_items_are_refused(fake_context):
    few, many = torch.rand(3, 2), torch.rand(4, 2)
    measured(Nearest(extractor=Pixels()), many, many, fake_context())
    for sets in ((few, many), (many, few)):
        with raises_code(DataError, Code.WRONG_LENGTH):
            measured(Nearest(extractor=Pixels()), *sets, fake_context())
