from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from genkit.errors import Code, DataError, PluginError
from genkit.interfaces import Subject
from genkit.random import generator
from genkit.types import Batch, DataSpec
from genkit_metrics.classifier import CnnClassifier
from genkit_metrics.extractors import ClassifierFeatures, Pixels
from genkit_metrics.frechet import Frechet
from raising import raises_code


def closed_form(first, second):
    """|m1 - m2|^2 + tr(S1 + S2 - 2 sqrt(S1 S2))."""
    a, b = first.double().flatten(1).numpy(), second.double().flatten(1).numpy()
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    moved = np.square(a.mean(0) - b.mean(0)).sum()
    return moved + np.trace(one + two - 2 * sqrtm(one @ two).real)


def subject(samples, reference):
    return Subject(samples=Batch(samples), reference=Batch(reference), denoiser=nn.Identity())


@pytest.fixture
def images():
    draw = generator(0, "images")
    samples = torch.randn(400, 1, 2, 3, generator=draw)
    return samples, 0.3 + 0.5 * torch.randn(600, 1, 2, 3, generator=draw)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_is_the_closed_form_in_pixels(images, fake_context, offset):
    samples, reference = (items + offset for items in images)
    found = Frechet(extractor=Pixels()).measure(subject(samples, reference), fake_context())
    # An offset would drown the distance in rounding if sums were kept in float32.
    wanted = closed_form(samples, reference)
    assert found.scores == {"frechet": pytest.approx(wanted, rel=1e-6)}
    assert found.facts == {
        "extractor": "pixels",
        "features": "6",
        "samples": "400",
        "reference": "600",
    }


def test_is_the_closed_form_in_features_and_names_the_classifier(fake_context):
    settings = CnnClassifier(channels=4, features=5)
    draw = generator(0, "images")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = settings.build(DataSpec((1, 8, 8), classes=3)).eval()
    samples, reference = torch.randn(2, 300, 1, 8, 8, generator=draw) * torch.tensor(
        [1.0, 2.0]
    ).reshape(2, 1, 1, 1, 1)
    context = fake_context({"judge": network})
    found = Frechet(extractor=ClassifierFeatures(classifier="judge")).measure(
        subject(samples, reference), context
    )
    with torch.no_grad():
        wanted = closed_form(network.features(samples), network.features(reference))
    assert found.scores["frechet"] == pytest.approx(wanted, rel=1e-5)
    assert found.facts["extractor"] == "classifier sha256:digest-of-judge"


def test_equal_sets_have_distance_zero(images, fake_context):
    found = Frechet(extractor=Pixels()).measure(subject(images[0], images[0]), fake_context())
    assert 0 <= found.scores["frechet"] < 1e-6


def test_too_few_items_are_refused(images, fake_context):
    samples, reference = images
    metric = Frechet(extractor=Pixels())
    with raises_code(DataError, Code.WRONG_LENGTH, "2 samples", "1"):
        metric.measure(subject(samples[:1], reference), fake_context())
    with raises_code(DataError, Code.WRONG_LENGTH, "2 reference items", "0"):
        metric.measure(subject(samples, reference[:0]), fake_context())
    few = metric.measure(subject(samples[:2], reference), fake_context())
    assert few.scores["frechet"] > 0


def test_items_of_other_shapes_or_not_finite_are_refused(images, fake_context):
    samples, reference = images
    metric = Frechet(extractor=Pixels())
    with raises_code(DataError, Code.WRONG_SHAPE, "(1, 2, 3)", "(1, 3, 2)"):
        metric.measure(subject(samples, reference.mT), fake_context())
    samples[3, 0, 1, 1] = torch.inf
    with raises_code(DataError, Code.NOT_FINITE, "sample 3", "inf"):
        metric.measure(subject(samples, reference), fake_context())
    with raises_code(DataError, Code.NOT_FINITE, "reference item 3", "inf"):
        metric.measure(subject(reference, samples), fake_context())


class Root(nn.Module):
    def features(self, x):
        return x.flatten(1).sqrt()


def test_features_that_are_not_finite_are_refused(images, fake_context):
    metric = Frechet(extractor=ClassifierFeatures(classifier="root"))
    context = fake_context({"root": Root()})
    positive, other = (items.abs() for items in images)
    other[300] *= -1
    with raises_code(DataError, Code.NOT_FINITE, "the features of reference item 300", "nan"):
        metric.measure(subject(positive, other), context)
    with raises_code(DataError, Code.NOT_FINITE, "the features of sample 300", "nan"):
        metric.measure(subject(other, positive), context)


def test_torchmetrics_is_imported_only_when_measuring():
    code = "import sys, genkit_metrics.frechet; sys.exit('torchmetrics' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torchmetrics_that_does_not_import_is_told(images, monkeypatch, fake_context):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with raises_code(PluginError, Code.MISSING_PACKAGE, "torchmetrics"):
        Frechet(extractor=Pixels()).measure(subject(*images), fake_context())
