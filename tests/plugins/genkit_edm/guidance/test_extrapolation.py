"""Classifier-free guidance and autoguidance: what they add, and what they refuse."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from genkit.errors import Code, DataError
from genkit.interfaces import Design, Trained
from genkit.networks import bind_guidance
from genkit.random import generator
from genkit.sample import GuidedDenoiser
from genkit.testing import check_component
from genkit.types import DataSpec
from genkit_dg.bound import BoundDiscriminator
from genkit_edm.edm import EdmPreconditioner
from genkit_edm.guidance.autoguidance import Autoguidance
from genkit_edm.guidance.classifier_free import ClassifierFree
from genkit_edm.mlp import Mlp
from genkit_edm.vp import VpPreconditioner
from raising import raises_code

CLASSES = DataSpec((3,), classes=4)


class ByClass(nn.Module):
    """The denoiser of N(class, spread^2), or of N(-1, spread^2) where no class is given."""

    def __init__(self, spread=1.0):
        super().__init__()
        self.register_buffer("variance", torch.tensor(spread**2, dtype=torch.float64))
        self.labels = []

    def forward(self, x, sigma, labels):
        self.labels.append(labels)
        noise = sigma.square()[:, None]
        mean = -1.0 if labels is None else labels[:, None].float()
        return ((self.variance * x + noise * mean) / (self.variance + noise)).to(x.dtype)


def network(spec=CLASSES, module=None, **settings):
    preconditioner = settings.pop("preconditioner", EdmPreconditioner())
    settings = Mlp(preconditioner=preconditioner, **settings)
    return Design(settings, spec) if module is None else Trained(settings, spec, module)


def batch():
    x = torch.randn(4, 3, generator=generator(0), dtype=torch.float64)
    return x, torch.tensor(2.0, dtype=torch.float64), torch.tensor([0, 1, 2, 3])


def guided(*guidance, denoiser=None):
    x, sigma, classes = batch()
    denoise = GuidedDenoiser(denoiser or ByClass(), classes, guidance)
    return denoise(x, sigma), denoise


def test_classifier_free_guidance_extrapolates_from_no_class():
    denoiser = network(module=ByClass(), class_conditional=True, label_dropout=0.1)
    guide = bind_guidance(ClassifierFree(weight=1.5), None, denoiser)
    found, denoise = guided(guide, denoiser=denoiser.module)
    x, sigma, labels = batch()
    own, none = (ByClass()(x, sigma.expand(4), given) for given in (labels, None))
    assert_close(found, own + 1.5 * (own - none), rtol=1e-6, atol=1e-6)
    assert [given is None for given in denoiser.module.labels] == [False, True]
    assert (denoise.nfe, denoise.guidance_nfe) == (1, 1)


@pytest.mark.parametrize("conditional", [False, True])
def test_autoguidance_extrapolates_from_the_guide(conditional):
    weak = network(module=ByClass(spread=2.0), class_conditional=conditional)
    inputs = SimpleNamespace(network=lambda name: {"weak": weak}[name])
    guide = bind_guidance(Autoguidance(guide="weak", weight=0.5), inputs, network(module=ByClass()))
    found, denoise = guided(guide)
    x, sigma, labels = batch()
    own = ByClass()(x, sigma.expand(4), labels)
    theirs = ByClass(spread=2.0)(x, sigma.expand(4), labels if conditional else None)
    assert_close(found, own + 0.5 * (own - theirs), rtol=1e-6, atol=1e-6)
    assert (denoise.nfe, denoise.guidance_nfe) == (1, 1)


def test_weight_0_calls_no_network():
    weak, denoiser = network(module=ByClass(spread=2.0)), network(module=ByClass())
    inputs = SimpleNamespace(network=lambda _: weak)
    for guidance in (ClassifierFree(weight=0.0), Autoguidance(guide="weak", weight=0.0)):
        found, denoise = guided(bind_guidance(guidance, inputs, denoiser))
        assert denoise.guidance_nfe == 0
        assert torch.equal(found, guided()[0])
    assert weak.module.labels == []


def test_a_denoiser_does_not_guide_itself_under_another_name():
    same = network(module=ByClass())
    inputs = SimpleNamespace(network=lambda _: same)
    with raises_code(DataError, Code.CONFLICT, "guide", '"again"'):
        bind_guidance(Autoguidance(guide="again"), inputs, network(module=ByClass()))


class Judge(nn.Module):
    def forward(self, x, sigma, labels):
        return x.sin().sum(1) + labels * x[:, 0]


def test_the_order_of_guidances_has_no_effect():
    denoiser = network(module=ByClass(), class_conditional=True, label_dropout=0.1)
    weak = network(module=ByClass(spread=2.0), class_conditional=True)
    inputs = SimpleNamespace(network=lambda _: weak)
    several = [
        BoundDiscriminator(Judge(), 0.7, 0.7),
        bind_guidance(ClassifierFree(weight=1.5), None, denoiser),
        bind_guidance(Autoguidance(guide="weak", weight=0.9), inputs, denoiser),
    ]
    found = [guided(*(several[k] for k in order))[0] for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0))]
    for other in found[1:]:
        assert float((other - found[0]).abs().max()) < 1e-6
    plain = guided()[0]
    alone = [guided(guide)[0] - plain for guide in several]
    assert_close(found[0], plain + sum(alone), rtol=1e-5, atol=1e-5)


CONDITIONAL = {"class_conditional": True}


@pytest.mark.parametrize(
    ("denoiser", "codes"),
    [
        (network(**CONDITIONAL, label_dropout=0.1), []),
        (network(**CONDITIONAL), [Code.CONFLICT]),
        (network(), [Code.CONFLICT]),
    ],
)
def test_classifier_free_guidance_requires_hidden_classes(denoiser, codes):
    check_component(ClassifierFree)
    assert [problem.code for problem in ClassifierFree().check_guided(denoiser, {})] == codes


VP = {"preconditioner": VpPreconditioner()}
LIMITED = {"sigma_min": 0.01, "sigma_max": 100.0}


@pytest.mark.parametrize(
    ("guide", "settings", "codes"),
    [
        (network(**CONDITIONAL, width=8), {}, []),
        (network(width=8), {}, []),
        (network(DataSpec((4,), classes=4), **CONDITIONAL), {}, [Code.CONFLICT]),
        (network(DataSpec((3,), classes=5), **CONDITIONAL), {}, [Code.CONFLICT]),
        (network(**VP), {}, [Code.OUT_OF_RANGE]),
        (network(**VP), {"sigma_min": 0.01}, [Code.OUT_OF_RANGE]),
        (network(**VP), LIMITED, []),
    ],
)
def test_a_guide_that_cannot_be_called_where_the_denoiser_is_called_is_refused(
    guide, settings, codes
):
    check_component(Autoguidance)
    guidance = Autoguidance(guide="weak", **settings)
    problems = list(guidance.check_guided(network(**CONDITIONAL), {"weak": guide}))
    assert [(problem.key, problem.code) for problem in problems] == [
        (("guide",), code) for code in codes
    ]


def test_the_interval_that_the_message_proposes_is_accepted():
    guides = {"weak": network(**VP)}
    (problem,) = Autoguidance(guide="weak").check_guided(network(), guides)
    low, high = map(float, re.findall(r"= ([\d.]+)", problem.hint))
    proposed = Autoguidance(guide="weak", sigma_min=low, sigma_max=high)
    assert not list(proposed.check_guided(network(), guides))
    assert (low, high) == pytest.approx(VpPreconditioner().sigma_range(), rel=1e-5)


def test_a_denoiser_does_not_guide_itself():
    denoiser = replace(network(), stage="own")
    (problem,) = Autoguidance(guide="own").check_guided(denoiser, {"own": denoiser})
    assert (problem.key, problem.code) == (("guide",), Code.CONFLICT)
