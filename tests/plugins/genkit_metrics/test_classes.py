from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from genkit.errors import Code, DataError
from genkit.interfaces import Extractor
from genkit.random import generator
from genkit.testing import subject_of
from genkit.types import Batch
from genkit_metrics.classes import ClassAgreement, InceptionScore, inception_score
from genkit_metrics.extractors import Pixels
from raising import raises_code


@dataclass(frozen=True, kw_only=True)
class Logits(Extractor):
    """Vectors that are logits themselves."""

    label = "toy"
    classifies = True

    def bind(self, inputs):
        module = nn.Flatten()
        module.head = nn.Identity()
        return module

    def identity(self, inputs):
        return "toy"


@dataclass(frozen=True, kw_only=True)
class LikeInception(Logits):
    label = "inception"


@pytest.fixture
def logits():
    return 3 * torch.randn(205, 7, generator=generator(0, "logits"))


def measured(metric, samples, context):
    return metric.measure(subject_of(context, samples, Batch(samples.data)), context)


def test_inception_score_is_the_mean_over_parts_of_the_exponential_of_the_information(logits):
    shuffled = logits[torch.randperm(205, generator=torch.Generator().manual_seed(0))].double()
    scores = []
    for part in np.array_split(torch.softmax(shuffled, 1).numpy(), range(21, 205, 21)):
        marginal = part.mean(0)
        scores.append(np.exp((part * np.log(part / marginal)).sum(1).mean()))
    mean, deviation = inception_score(logits.double())
    assert len(scores) == 10
    assert mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert deviation == pytest.approx(np.std(scores, ddof=1), rel=1e-12)


def test_inception_score_leaves_the_global_generator_alone(logits, fake_context):
    state = torch.get_rng_state()
    found = measured(InceptionScore(extractor=Logits()), Batch(logits), fake_context())
    assert torch.equal(torch.get_rng_state(), state)
    assert found == measured(InceptionScore(extractor=Logits()), Batch(logits), fake_context())
    assert found.scores == {"inception_score_toy": inception_score(logits.double())[0]}


def test_inception_score_is_computed_by_one_of_several_processes_alone(logits, monkeypatch):
    alone = inception_score(logits)
    # Without a group to talk over, a synchronization fails; with one it waits for the others.
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert inception_score(logits) == alone


def test_only_inceptions_score_has_no_label():
    assert InceptionScore(extractor=LikeInception()).scores == ("inception_score",)


def test_too_few_samples_for_the_parts_are_refused(logits, fake_context):
    with raises_code(DataError, Code.WRONG_LENGTH):
        measured(InceptionScore(extractor=Logits()), Batch(logits[:99]), fake_context())


def test_agreement_is_the_share_of_samples_of_the_requested_class(logits, fake_context):
    labels = logits.argmax(1)
    labels[:41] = (labels[:41] + 1) % 7
    found = measured(ClassAgreement(extractor=Logits()), Batch(logits, labels), fake_context())
    assert found.scores == {"class_agreement_toy": pytest.approx(164 / 205)}
    (curve,) = found.curves.values()
    right = (logits.argmax(1) == labels).double()
    assert curve.x == tuple(range(7))
    assert curve.y == tuple(float(right[labels == k].mean()) for k in range(7))


def test_samples_without_labels_or_of_other_classes_are_refused(logits, fake_context):
    metric = ClassAgreement(extractor=Logits())
    others = torch.full((205,), 7)
    for labels, code in ((None, Code.MISSING_ATTRIBUTE), (others, Code.CONFLICT)):
        with raises_code(DataError, code):
            measured(metric, Batch(logits, labels), fake_context())


@pytest.mark.parametrize("metric", [InceptionScore, ClassAgreement])
def test_an_extractor_that_is_no_classifier_is_refused_before_anything_runs(metric):
    assert list(metric(extractor=Logits()).check({})) == []
    (problem,) = metric(extractor=Pixels()).check({})
    assert problem.key == ("extractor",)
    assert problem.code is Code.CONFLICT


def test_an_extractor_without_logits_is_refused(logits, fake_context):
    samples = Batch(logits, torch.zeros(205, dtype=torch.int64))
    with pytest.raises(DataError):
        measured(ClassAgreement(extractor=Pixels()), samples, fake_context())


def test_the_classes_of_inception_are_not_those_of_the_data():
    metric = ClassAgreement(extractor=Logits())
    assert list(metric.check({})) == []
    (problem,) = replace(metric, extractor=LikeInception()).check({})
    assert problem.key == ("extractor",)
    assert problem.code is Code.CONFLICT
