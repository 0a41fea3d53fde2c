from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from genkit.errors import Code, DataError, PluginError
from genkit.random import generator
from genkit.testing import subject_of
from genkit.types import Batch
from genkit_metrics import kernels, neighbors
from genkit_metrics.extractors import Pixels
from genkit_metrics.kernel_distances import Cmmd, Kid
from genkit_metrics.kernels import gaussian_mmd, polynomial_mmd
from raising import raises_code

CPU = torch.device("cpu")


@pytest.fixture
def features():
    draw = generator(0, "features")
    return torch.randn(90, 12, generator=draw), 0.3 + 0.8 * torch.randn(70, 12, generator=draw)


@pytest.fixture
def _small_subsets(monkeypatch):
    monkeypatch.setattr(kernels, "SUBSETS", 7)
    monkeypatch.setattr(kernels, "SUBSET_SIZE", 40)


@pytest.mark.usefixtures("_small_subsets")
def test_kid_is_the_mean_of_the_unbiased_mmd_over_the_same_subsets(features):
    real, fake = features
    draw, values = generator(3, "subsets"), []
    for _ in range(7):
        x, y = (
            items[torch.randperm(len(items), generator=draw)[:40]].double().numpy()
            for items in (real, fake)
        )
        xx, yy, xy = ((a @ b.T / 12 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        within = sum(k[~np.eye(40, dtype=bool)].mean() for k in (xx, yy))
        values.append(within - 2 * xy.mean())
    mean, deviation = polynomial_mmd(real, fake, generator(3, "subsets"))
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    assert deviation == pytest.approx(np.std(values), abs=1e-12)


def test_kid_has_equal_bits_twice_and_leaves_the_global_generator_alone(fake_context, monkeypatch):
    monkeypatch.setattr(kernels, "SUBSETS", 4)
    draw = generator(0, "items")
    samples, reference = torch.randn(2, 1100, 3, generator=draw)
    subject = subject_of(fake_context(), Batch(samples), Batch(reference))
    state = torch.get_rng_state()
    found = Kid(extractor=Pixels()).measure(subject, fake_context())
    assert torch.equal(torch.get_rng_state(), state)
    # Another run's seed gives no other subsets, so that runs compare by their samples alone.
    assert Kid(extractor=Pixels()).measure(subject, fake_context(seed=1)) == found
    assert set(found.scores) == {"kid_pixels"}
    assert abs(found.scores["kid_pixels"]) < 0.05


def test_torchmetrics_that_cannot_be_imported_is_named(features, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.kid", None)
    with raises_code(PluginError, Code.MISSING_PACKAGE, "torchmetrics"):
        polynomial_mmd(*features, generator(0))


def test_torchmetrics_is_imported_only_when_measuring():
    pages = "genkit_metrics.kernel_distances, genkit_metrics.classes, genkit_metrics.memorization"
    code = f"import sys, {pages}; sys.exit('torchmetrics' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("counts", [(999, 1000), (1000, 999)])
def test_kid_refuses_fewer_than_1000_items(counts, fake_context):
    samples, reference = (Batch(torch.zeros(count, 2)) for count in counts)
    with raises_code(DataError, Code.WRONG_LENGTH):
        Kid(extractor=Pixels()).measure(
            subject_of(fake_context(), samples, reference), fake_context()
        )


@pytest.mark.parametrize("block", [512, 32])
def test_cmmd_is_the_published_estimator_on_unit_vectors(features, block, monkeypatch):
    monkeypatch.setattr(neighbors, "BLOCK", block)
    x, y = (f.double().numpy() / np.linalg.norm(f.double(), axis=1)[:, None] for f in features)

    def kernel(a, b):
        squared = np.square(a[:, None] - b).sum(2)
        return np.exp(-squared / (2 * 10**2)).mean()

    wanted = 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))
    found = gaussian_mmd(*features, CPU)
    assert found == pytest.approx(wanted, rel=1e-9)
    assert gaussian_mmd(features[0], 7 * features[0], CPU) == pytest.approx(0, abs=1e-9)


def test_cmmd_over_other_features_has_another_name(features, fake_context):
    fake, real = features
    subject = subject_of(fake_context(), Batch(fake), Batch(real))
    found = Cmmd(extractor=Pixels()).measure(subject, fake_context())
    assert found.scores == {"cmmd_pixels": pytest.approx(gaussian_mmd(real, fake, CPU))}
