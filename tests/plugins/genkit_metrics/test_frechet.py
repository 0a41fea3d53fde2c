from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from genkit.artifacts.statistics import Statistics
from genkit.errors import Code, DataError
from genkit.random import generator
from genkit.testing import subject_of
from genkit.types import Batch, DataSpec
from genkit_data.handwritten import Digits
from genkit_metrics.classes import InceptionScore
from genkit_metrics.classifier import CnnClassifier
from genkit_metrics.extractors import ClassifierFeatures, Pixels
from genkit_metrics.frechet import Frechet, FrechetByClass
from genkit_metrics.gaussians import expected_bias, frechet_distance
from genkit_metrics.inception import Inception
from genkit_metrics.kernel_distances import Kid
from genkit_metrics.memorization import Nearest
from raising import raises_code


def closed_form(first, second):
    """|m1 - m2|^2 + tr(S1 + S2 - 2 sqrt(S1 S2))."""
    a, b = first.double().flatten(1).numpy(), second.double().flatten(1).numpy()
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    moved = np.square(a.mean(0) - b.mean(0)).sum()
    return moved + np.trace(one + two - 2 * sqrtm(one @ two).real)


def measure(extractor, samples, reference, context):
    subject = subject_of(context, Batch(samples), Batch(reference))
    return Frechet(extractor=extractor).measure(subject, context)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (Frechet(extractor=Pixels()), ["Fréchet distance, pixels"]),
        (Frechet(extractor=Inception()), ["FID"]),
        (
            FrechetByClass(extractor=Pixels()),
            [f"{which} Fréchet distance within a class, pixels" for which in ("mean", "largest")],
        ),
        (Kid(extractor=Pixels()), ["KID, pixels"]),
        (InceptionScore(extractor=Inception()), ["inception score"]),
        (Nearest(extractor=Pixels()), ["nearest, pixels", "authentic, pixels"]),
    ],
)
def test_scores_in_words(metric, words):
    assert [metric.words(score) for score in metric.scores] == words


@pytest.fixture
def vectors():
    draw = generator(0, "images")
    return torch.randn(400, 6, generator=draw), 0.3 + 0.5 * torch.randn(600, 6, generator=draw)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_is_the_closed_form_in_pixels(vectors, fake_context, offset):
    samples, reference = (items + offset for items in vectors)
    found = measure(Pixels(), samples, reference, fake_context())
    # An offset would drown the distance in rounding if sums were kept in float32.
    assert found.scores == {"frechet_pixels": pytest.approx(closed_form(samples, reference), 1e-6)}
    assert found.facts == {"features": "6", "reference": "600"}


def test_is_the_closed_form_in_features_of_8_bit_images(fake_context):
    settings = CnnClassifier(channels=4, features=5)
    draw = generator(0, "images")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = settings.build(DataSpec((1, 8, 8), classes=3)).eval()
    samples, reference = torch.randn(2, 300, 1, 8, 8, generator=draw) * torch.tensor(
        [0.3, 2.0]
    ).reshape(2, 1, 1, 1, 1)
    extractor = ClassifierFeatures(classifier="judge")
    found = measure(extractor, samples, reference, fake_context({"judge": network}))
    rounded = [
        (items * 127.5 + 128).clamp(0, 255).floor() / 127.5 - 1 for items in (samples, reference)
    ]
    with torch.no_grad():
        wanted = closed_form(*map(network.features, rounded))
    assert found.scores == {"frechet_classifier": pytest.approx(wanted, rel=1e-5)}


def test_too_few_items_are_refused(vectors, fake_context):
    samples, reference = vectors
    with raises_code(DataError, Code.WRONG_LENGTH):
        measure(Pixels(), samples[:1], reference, fake_context())
    with raises_code(DataError, Code.WRONG_LENGTH):
        measure(Pixels(), samples, reference[:1], fake_context())
    few = measure(Pixels(), samples[:2], reference, fake_context())
    assert few.scores["frechet_pixels"] > 0


def test_other_numbers_of_features_are_refused(vectors, fake_context):
    samples, reference = vectors
    with raises_code(DataError, Code.WRONG_SHAPE):
        measure(Pixels(), samples, reference[:, :5], fake_context())


def test_the_expected_bias_holds_for_the_features_of_digits(fake_context):
    extractor = ClassifierFeatures(file="digits")
    context = fake_context()
    digits = Digits().load(context)
    subject = subject_of(context, digits, digits)
    features, draw = subject.features.of_samples(extractor), generator(0, "draws")
    exact = subject.features.statistics(extractor)
    for count in (512, 2048):
        found = [
            frechet_distance(
                exact,
                Statistics.of(features[torch.randint(len(features), (count,), generator=draw)]),
            )
            for _ in range(10)
        ]
        # The features are not normal.
        assert np.mean(found) == pytest.approx(expected_bias(exact, count), rel=0.2)


class Root(nn.Module):
    def features(self, x):
        return x.flatten(1).sqrt()


def test_features_that_are_not_finite_are_refused(vectors, fake_context):
    extractor = ClassifierFeatures(classifier="root")
    context = fake_context({"root": Root()})
    positive, other = (items.abs() for items in vectors)
    other[300] *= -1
    with raises_code(DataError, Code.NOT_FINITE, "the features of reference item 300", "nan"):
        measure(extractor, positive, other, context)
    with raises_code(DataError, Code.NOT_FINITE, "the features of sample 300", "nan"):
        measure(extractor, other, positive, context)


@pytest.mark.parametrize(("count", "warned"), [(2047, True), (2048, False)])
def test_fewer_than_2048_samples_have_a_warning_with_their_bias(count, warned, fake_context):
    samples, reference = torch.randn(2, 3000, 3, generator=generator(0, "items"))
    found = measure(Pixels(), samples[:count], reference, fake_context())
    bias = expected_bias(Statistics.of(reference), count)
    assert [f"{bias:.2g}" in warning for warning in found.warnings] == [True] * warned


@pytest.fixture
def labeled(vectors):
    samples, reference = vectors
    draw = generator(0, "labels")
    return [
        Batch(items, torch.randint(0, 3, (len(items),), generator=draw) * 2)
        for items in (samples, reference)
    ]


def test_by_class_compares_inside_each_class(labeled, fake_context):
    samples, reference = labeled
    subject = subject_of(fake_context(), samples, reference)
    found = FrechetByClass(extractor=Pixels()).measure(subject, fake_context())
    wanted = [
        closed_form(samples.data[samples.labels == k], reference.data[reference.labels == k])
        for k in (0, 2, 4)
    ]
    assert found.scores == {
        "frechet_pixels_by_class": pytest.approx(np.mean(wanted), rel=1e-6),
        "frechet_pixels_by_class_max": pytest.approx(max(wanted), rel=1e-6),
    }
    (curve,) = found.curves.values()
    assert curve.x == (0, 2, 4)
    assert curve.y == pytest.approx(wanted, rel=1e-6)
    assert len(found.warnings) == 1
    relabeled = Batch(reference.data, labels=reference.labels.roll(1))
    subject = subject_of(fake_context(), samples, relabeled)
    other = FrechetByClass(extractor=Pixels()).measure(subject, fake_context())
    assert other.facts["labels"] != found.facts["labels"]


@pytest.mark.parametrize("side", [0, 1])
def test_by_class_refuses_items_without_labels(labeled, side, fake_context):
    labeled[side] = Batch(labeled[side].data)
    with raises_code(DataError, Code.MISSING_ATTRIBUTE):
        FrechetByClass(extractor=Pixels()).measure(
            subject_of(fake_context(), *labeled), fake_context()
        )


def test_by_class_refuses_a_class_that_is_not_drawn(labeled, fake_context):
    samples, reference = labeled
    without = samples[samples.labels != 2]
    with raises_code(DataError, Code.WRONG_LENGTH, "class 2"):
        FrechetByClass(extractor=Pixels()).measure(
            subject_of(fake_context(), without, reference), fake_context()
        )


def test_the_reference_is_decomposed_once_for_all_sets(vectors, fake_context, monkeypatch):
    decompose, sizes = torch.linalg.eigh, []
    monkeypatch.setattr(
        torch.linalg, "eigh", lambda matrix: sizes.append(len(matrix)) or decompose(matrix)
    )
    samples, reference = vectors
    subject = subject_of(fake_context(), Batch(samples), Batch(reference))
    for part in (slice(0, 200), slice(200, 400)):
        features = replace(subject.features, part=part)
        Frechet(extractor=Pixels()).measure(replace(subject, features=features), fake_context())
    assert len(sizes) == 3  # of the reference, and of each set
