from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from genkit.errors import Code, DataError
from genkit.interfaces import Classifier
from genkit.parts.no_stages import NoStages
from genkit.random import generator, seeded
from genkit.tensors import file_digest, to_float
from genkit.testing import check_classifier, check_objective
from genkit.types import Batch, DataSpec
from genkit_data.handwritten import Digits
from genkit_metrics.classification import Classification
from genkit_metrics.classifier import CnnClassifier
from genkit_metrics.extractors import (
    SHIPPED,
    ClassifierFeatures,
    ClassifierFeaturesModule,
    Pixels,
)
from raising import raises_code

NOBODYS = "~nobody-of-this-name/file"


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 24), (1, 28, 28)])
def test_laws_hold(shape):
    check_classifier(CnnClassifier(channels=4, features=6), DataSpec(shape, classes=3))


def test_features_have_the_size_that_was_set():
    network = CnnClassifier().build(DataSpec((1, 8, 8), classes=10))
    assert network.features(torch.zeros(2, 1, 8, 8)).shape == (2, 64)


def test_vectors_and_data_without_labels_are_refused():
    with raises_code(DataError, Code.WRONG_SHAPE, "(2,)"):
        CnnClassifier().build(DataSpec((2,), classes=2))
    with raises_code(DataError, Code.MISSING_ATTRIBUTE):
        CnnClassifier().build(DataSpec((1, 8, 8)))


def test_a_classifier_is_not_given_the_class():
    assert not list(CnnClassifier().check({}))
    (problem,) = CnnClassifier(class_conditional=True).check({})
    assert problem.key == ("class_conditional",)


def test_classification_is_cross_entropy_and_ignores_the_noise():
    spec = DataSpec((1, 8, 8), classes=3)
    with seeded(0):
        model = CnnClassifier(channels=4).build(spec)
    draw = generator(0, "batch")
    batch = Batch(
        torch.randn(5, 1, 8, 8, generator=draw),
        labels=torch.tensor([0, 1, 2, 1, 0]),
        quantile=torch.rand(5, generator=draw, dtype=torch.float64),
    )
    check_objective(Classification(), model, batch)
    assert Classification.trains is Classifier
    loss = Classification().loss(model, batch, torch.full_like(batch.data, torch.nan), draw)
    wanted = -model(batch.data).softmax(1)[torch.arange(5), batch.labels].log()
    assert_close(loss, wanted)


def test_classification_needs_labels():
    batch = Batch(torch.zeros(2, 1, 8, 8))
    with raises_code(DataError, Code.MISSING_ATTRIBUTE):
        Classification().loss(torch.nn.Identity(), batch, batch.data, generator(0))


def test_extractors(fake_context):
    network = CnnClassifier(channels=4).build(DataSpec((1, 8, 8), classes=3))
    context, x = fake_context({"judge": network}), torch.randn(3, 1, 8, 8, generator=generator(0))
    judge = ClassifierFeatures(classifier="judge")
    assert_close(judge.bind(context)(x), network.features(x))
    assert judge.identity(context) == "classifier sha256:digest-of-judge"
    assert_close(Pixels().bind(context)(x), x.reshape(3, 64))
    assert Pixels().identity(context) == "pixels"


class Headless(torch.nn.Module):
    def features(self, x):
        return x.flatten(1)


def test_logits_follow_from_the_features_of_a_classifier(fake_context):
    network = CnnClassifier(channels=4).build(DataSpec((1, 8, 8), classes=3))
    context, x = fake_context({"judge": network, "headless": Headless()}), torch.ones(2, 1, 8, 8)
    judge = ClassifierFeatures(classifier="judge").bind(context)
    assert isinstance(judge, ClassifierFeaturesModule)
    assert torch.equal(judge.head(judge(x)), network(x))
    headless = ClassifierFeatures(classifier="headless").bind(context)
    assert not isinstance(headless, ClassifierFeaturesModule)
    assert not isinstance(Pixels().bind(context), ClassifierFeaturesModule)


def test_the_classifier_that_genkit_brings_knows_the_digits():
    digits = Digits().load(NoStages())
    module = ClassifierFeatures(file="digits").bind(NoStages())
    logits = module.head(module(to_float(digits.data)))
    assert (logits.argmax(1) == digits.labels).float().mean() > 0.99


def test_its_identity_is_the_hash_of_its_file(tmp_path):
    shipped = ClassifierFeatures(file="digits")
    assert shipped.identity(NoStages()) == f"classifier sha256:{file_digest(SHIPPED['digits'])}"
    copied = shutil.copy(SHIPPED["digits"], tmp_path / "other.safetensors")
    extractor = ClassifierFeatures(file=str(copied))
    assert extractor.identity(NoStages()) == shipped.identity(NoStages())
    content = bytearray(copied.read_bytes())
    content[-1] ^= 1
    copied.write_bytes(content)
    with raises_code(DataError, Code.CHANGED):
        extractor.bind(NoStages())


def test_the_code_of_the_network_in_its_file_counts(monkeypatch, tmp_path):
    before = ClassifierFeatures(file="digits").version()
    assert ClassifierFeatures(file="digits").version() == before
    module = importlib.import_module("genkit_metrics.classifier")
    edited = tmp_path / "edited.py"
    edited.write_text(Path(module.__file__).read_text() + "\n# edited\n")
    monkeypatch.setattr(module, "__file__", str(edited))
    assert ClassifierFeatures(file="digits").version() != before


@pytest.mark.parametrize("settings", [{}, {"file": "digits", "classifier": "stage"}])
def test_a_file_or_a_stage_is_needed_and_not_both(settings):
    (problem,) = ClassifierFeatures(**settings).check({})
    assert problem.key == ("file",)


def test_a_file_that_is_missing_or_of_another_kind_or_shape_is_refused(tmp_path):
    for path in (str(tmp_path / "none.safetensors"), NOBODYS):
        (missing,) = ClassifierFeatures(file=path).check({})
        assert missing.key == ("file",)
    (tmp_path / "none.safetensors").write_bytes(b"no network")
    (other,) = ClassifierFeatures(file=str(tmp_path / "none.safetensors")).check({})
    assert other.key == ("file",)
    (shape,) = ClassifierFeatures(file="digits").check_items(DataSpec((3, 32, 32)), {})
    assert shape.key == ("file",)
