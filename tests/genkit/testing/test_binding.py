"""Each law is broken here once, by a component that is sound but for that."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import genkit
from genkit.plugin import (
    BoundGuidance,
    Curve,
    DataSpec,
    DenoiserRef,
    Extractor,
    Guidance,
    Measurement,
    Metric,
    setting,
)
from genkit.testing import check_extractor, check_guidance, check_metric
from raising import breaks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

SPEC = DataSpec((2,))


@pytest.fixture(scope="module")
def earlier():
    table = {
        "data": {"use": "moons", "items": 60},
        "images": 64,
        "batch_size": 32,
        "network": {"use": "mlp", "width": 8, "blocks": 1},
        "objective": {"use": "denoising"},
    }
    return {"other": genkit.component("stage", "train", **table)}


class Bound(BoundGuidance):
    """Sound: away from another denoiser."""

    def __init__(self, module, weight):
        self.module, self.weight = module, weight

    def correction(self, x, sigma, labels, denoised, *, inner=False):
        if self.weight == 0:
            return torch.zeros_like(denoised)
        self.evaluations += 1
        return self.weight * (denoised - self.module(x, sigma, labels))


@dataclass(frozen=True, kw_only=True)
class Auto(Guidance):
    other: DenoiserRef = setting("other", doc="stage of the other denoiser")
    weight: float = setting(1.0, doc="strength")

    bound = Bound

    def bind(self, inputs, denoiser):
        return self.bound(inputs.network(self.other).module, self.weight)


def guidance(name, correct, bind=None):
    """Return a guidance whose correction is changed: ``correct(bound, correction, arguments)``."""

    class Changed(Bound):
        def correction(self, x, sigma, labels, denoised, *, inner=False):
            found = super().correction(x, sigma, labels, denoised, inner=inner)
            return correct(self, found, {"x": x, "sigma": sigma, "denoised": denoised})

    return type(name, (Auto,), {"bound": Changed})


def uncounted(bound, found, _):
    bound.evaluations = 0
    return found


def in_place(bound, found, arguments):
    arguments["denoised"].add_(1)
    return found


COUNTER = itertools.count(1)

GUIDANCE = [
    (lambda b, f, a: f[:, :1], "like-denoised; False)"),
    (lambda b, f, a: f.double(), "like-denoised; False)"),
    (lambda b, f, a: f.requires_grad_(), "like-denoised; True)"),
    (lambda b, f, a: f / 0, "finite"),
    (lambda b, f, a: f * next(COUNTER), "same-again"),
    (lambda b, f, a: f - f.mean(dim=0), "company"),
    (lambda b, f, a: f + torch.rand(1), "own-generator"),
    (in_place, "leaves-inputs"),
    (uncounted, "counts-evaluations"),
    (lambda b, f, a: f + 1, "weight-0"),
]


@pytest.mark.parametrize(("correct", "law"), GUIDANCE, ids=[law for _, law in GUIDANCE])
def test_guidance(correct, law, earlier):
    with breaks(law):
        check_guidance(guidance("Broken", correct)(), SPEC, earlier)


def test_a_sound_guidance(earlier):
    check_guidance(Auto(), SPEC, earlier)


def test_a_guidance_that_is_not_bound(earlier):
    class Unbound(Auto):
        def bind(self, inputs, denoiser):
            return self

    with breaks("bound-guidance"):
        check_guidance(Unbound(), SPEC, earlier)


class Features(torch.nn.Module):
    def __init__(self, other, change):
        super().__init__()
        self.other, self.change = other, change

    def forward(self, x):
        return self.change(self.other(x, torch.ones(len(x)), None))


@dataclass(frozen=True, kw_only=True)
class OfDenoiser(Extractor):
    """Sound: what a denoiser returns at one noise level."""

    other: DenoiserRef = setting("other", doc="stage of the denoiser")

    def bind(self, inputs):
        return Features(inputs.network(self.other).module, self.change)

    def change(self, features):
        return features

    def identity(self, inputs):
        return inputs.digest(self.other)


def named(text):
    return {"identity": lambda self, inputs: text()}


def changing(change):
    return {"change": lambda self, features: change(features)}


EXTRACTORS = [
    ({"bind": lambda self, inputs: len}, "bound-module"),
    ({"classifies": True}, "has-head"),
    (changing(lambda f: None), "row-per-item"),
    (changing(lambda f: f[:, 0]), "row-per-item"),
    (changing(lambda f: f.long()), "row-per-item"),
    (changing(lambda f: f / 0), "finite"),
    (changing(lambda f: f * next(COUNTER)), "same-again"),
    (changing(lambda f: f - f.mean(dim=0)), "company"),
    (changing(lambda f: f + torch.rand(1)), "own-generator"),
    (named(lambda: str(next(COUNTER))), "identity-is-constant"),
    (named(lambda: ""), "identity-is-constant"),
    (named(lambda: "one name for all"), "identity-of-features; other weights"),
]


@pytest.mark.parametrize(("changed", "law"), EXTRACTORS, ids=[law for _, law in EXTRACTORS])
def test_extractors(changed, law, earlier):
    with breaks(law):
        check_extractor(type("Broken", (OfDenoiser,), changed)(), SPEC, earlier)


def test_features_that_depend_on_the_binding():
    class Counting(OfDenoiser):
        def bind(self, inputs):
            count = next(COUNTER)
            return Features(lambda x, *_: x, lambda features: count * features)

        def identity(self, inputs):
            return "a name"

    with breaks("identity-of-features; different features after a second bind"):
        check_extractor(Counting(), SPEC)


def test_a_sound_extractor(earlier):
    check_extractor(OfDenoiser(), SPEC, earlier)


@dataclass(frozen=True, kw_only=True)
class Mean(Metric):
    """Sound: the distance of the means."""

    scores = ("mean",)

    def measure(self, subject, context):
        distance = (subject.samples.data.mean(0) - subject.reference.data.mean(0)).norm()
        return self.change(float(distance), subject)

    def change(self, score, subject):
        return Measurement({"mean": score})

    def words(self, score):
        return "distance of means"


def calls_the_denoiser(score, subject):
    subject.denoiser(subject.samples.data, torch.ones(len(subject.samples)))
    return Measurement({"mean": score})


def sorts_in_place(score, subject):
    subject.reference.data.copy_(subject.reference.data.sort(0).values)
    return Measurement({"mean": score})


def writes(score, subject):
    Path("scores.txt").write_text(f"{score}")
    return Measurement({"mean": score})


METRICS = [
    (lambda score, subject: score, "measurement"),
    (lambda score, subject: Measurement({"mean": torch.nan}), "finite-scores"),
    (lambda score, subject: Measurement({"mean": torch.ones(1)}), "finite-scores"),
    (lambda score, subject: Measurement({}), "finite-scores"),
    (lambda score, subject: Measurement({"mean_std": score}), "reserved-score"),
    (lambda score, subject: Measurement({"other": score}), "declared-scores"),
    (lambda score, subject: Measurement({"mean": score}, facts={"n": 1}), "facts-are-texts"),
    (
        lambda score, subject: Measurement(
            {"mean": score}, {"line": Curve((1.0, 2.0), (1.0,), "x", "y")}
        ),
        "curve-length",
    ),
    (
        lambda score, subject: Measurement(
            {"mean": score}, {"line": Curve((1.0,), (1.0,), "x", "y", spread=(1.0, 2.0))}
        ),
        "curve-length",
    ),
    (lambda score, subject: Measurement({"mean": score * next(COUNTER)}), "same-again"),
    (
        lambda score, subject: Measurement({"mean": score + float(torch.rand(1))}),
        "own-generator",
    ),
    (calls_the_denoiser, "measures"),
    (sorts_in_place, "leaves-inputs"),
    (writes, "own-folder"),
]


@pytest.mark.parametrize(("change", "law"), METRICS, ids=[law for _, law in METRICS])
def test_metrics(change, law, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broken = type("Broken", (Mean,), {"change": lambda self, *arguments: change(*arguments)})
    with breaks(law):
        check_metric(broken(), SPEC)


@pytest.mark.parametrize("words", [None, "", "two\nlines"])
def test_words_of_a_metric(words):
    broken = type("Broken", (Mean,), {"words": lambda self, score: words})
    with breaks("words"):
        check_metric(broken(), SPEC)


def test_a_sound_metric():
    check_metric(Mean(), SPEC)
