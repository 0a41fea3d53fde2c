from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from genkit import component
from genkit.artifacts import Coupling
from genkit.errors import Code, DataError, SettingError
from genkit.interfaces import Design, Trained
from genkit.networks import bind_guidance
from genkit.parts.vp_sde import VpSde, vp_mean
from genkit.random import generator, seeded
from genkit.sample import GuidedDenoiser
from genkit.start import sampling_warnings
from genkit.tensors import network_digest
from genkit.testing import check_component
from genkit.types import DataSpec
from genkit_dg.boosting import BoostedDiscriminator
from genkit_dg.guidance import BoundDiscriminator, DiscriminatorGuidance
from genkit_dg.mlp_discriminator import MlpDiscriminator
from raising import raises_code


class GoldenDiscriminator(nn.Module):
    """The reference's, called with x and sigma rather than with VP-scaled x and VP time."""

    def __init__(self, direction):
        super().__init__()
        self.direction = nn.Parameter(direction)

    def forward(self, x, sigma, labels):
        scaled = (vp_mean(sigma)[:, None, None, None] * x).flatten(1)
        return 0.1 * scaled @ self.direction + VpSde().time(sigma) - 0.3


class Counting(nn.Module):
    """log(d / (1 - d)) = 3 sum(x)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.calls = 0

    def forward(self, x, sigma, labels):
        self.calls += 1
        self.seen = x.dtype
        return self.scale * x.sum(1)


def bound(network, **settings):
    inputs = SimpleNamespace(network=lambda stage: Trained(None, None, {"d": network}[stage]))
    return bind_guidance(DiscriminatorGuidance(discriminator="d", **settings), inputs, None)


def guided(guidance, x, sigma, labels=None):
    """Return the correction as the driver adds it, for a denoiser that returns 0."""
    return GuidedDenoiser(lambda x, sigma, labels: torch.zeros_like(x), labels, [guidance])(
        x, sigma
    )


def design(shape, classes, conditional=False):
    network = MlpDiscriminator(class_conditional=conditional)
    return Design(network, DataSpec(shape, classes=classes))


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_correction_is_that_of_the_reference(dg_golden, weight):
    network = GoldenDiscriminator(dg_golden["direction"])
    x, sigma = dg_golden["x"], dg_golden["sigma"]
    assert_close(network(x, sigma, None), dg_golden["log_ratio"], rtol=1e-4, atol=1e-5)
    guidance = bound(network, weight=weight, sigma_min=1e-3, sigma_max=100.0)
    drift = -guidance.correction(x, sigma, None, torch.zeros_like(x)) / sigma[:, None, None, None]
    wanted = weight * dg_golden["grad_term"] / sigma[:, None, None, None]
    assert_close(drift, wanted, rtol=1e-5, atol=1e-9)


def test_gradient_is_that_of_finite_differences():
    with seeded(0):
        network = MlpDiscriminator(width=16).build(DataSpec((3,))).eval()
    draw = generator(0, "x")
    x = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.5, 1.0, 4.0], dtype=torch.float64)
    found = bound(network, weight=1.0).correction(x, sigma, None, torch.zeros_like(x))
    wide, step = network.double(), 1e-5
    for pixel in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[pixel]
        # The embedding's frequencies are float32, so compare to float32's precision only.
        slope = (wide(x + shift, sigma) - wide(x - shift, sigma)).detach() / (2 * step)
        assert_close(found[:, pixel], sigma.square() * slope, rtol=1e-3, atol=1e-5)


def test_computes_in_float32_and_answers_in_the_type_of_x():
    network = Counting()
    x = torch.full((2, 4), 0.5, dtype=torch.float64)
    with torch.no_grad():
        found = bound(network, weight=0.5).correction(x, torch.tensor([1.0, 2.0]), None, 7 * x)
    assert network.seen == torch.float32
    assert found.dtype == torch.float64
    assert not found.requires_grad
    assert_close(found, 0.5 * 3 * torch.tensor([[1.0], [4.0]]).double().expand(2, 4))
    assert network.scale.grad is None
    assert not x.requires_grad


def test_counts_one_evaluation_a_call():
    network = Counting()
    guidance = bound(network)
    x = torch.ones(5, 2)
    for _ in range(3):
        guidance.correction(x, torch.ones(5), None, x)
    assert guidance.evaluations == network.calls == 3


def test_two_bound_guidances_count_apart():
    settings = DiscriminatorGuidance(discriminator="d")
    inputs = SimpleNamespace(network=lambda _: Trained(None, None, Counting()))
    first, second = settings.bind(inputs, None), settings.bind(inputs, None)
    first.correction(torch.ones(1, 2), torch.ones(1), None, torch.ones(1, 2))
    assert (first.evaluations, second.evaluations) == (1, 0)
    assert isinstance(first, BoundDiscriminator)


@pytest.mark.parametrize(
    ("weight", "sigma"), [(0.0, 1.0), (2.0, 0.049), (2.0, 20.1)], ids=["weight", "low", "high"]
)
def test_does_not_call_where_it_does_not_act(weight, sigma):
    network = Counting()
    guidance = bound(network, weight=weight)
    x = torch.ones(2, 2)
    assert not guided(guidance, x, torch.tensor(sigma)).any()
    assert guidance.evaluations == network.calls == 0


def test_acts_on_those_items_of_a_batch_that_lie_in_its_range():
    guidance = bound(Counting(), sigma_min=0.5, sigma_max=2.0)
    levels = torch.tensor([0.4, 0.5, 2.0, 3.0])[:, None]
    found = guided(guidance, torch.zeros(4, 2), levels)
    assert [bool(row.any()) for row in found] == [False, True, True, False]


def test_range_must_not_be_empty():
    check_component(DiscriminatorGuidance)
    assert not list(DiscriminatorGuidance(discriminator="d").check({}))
    (problem,) = DiscriminatorGuidance(discriminator="d", sigma_min=20.0).check({})
    assert (problem.key, problem.code) == (("sigma_min",), Code.OUT_OF_RANGE)
    with raises_code(SettingError, Code.OUT_OF_RANGE):
        DiscriminatorGuidance(discriminator="d", weight=-1.0)


def test_a_discriminator_that_is_certain_gives_no_gradient():
    guidance = bound(Counting())
    # log(d / (1 - d)) = 3 sum(x); d is clipped at 1e-5, where it is 11.51.
    x = torch.tensor([[3.8, 0.0], [3.9, 0.0], [-3.9, 0.0]])
    found = guidance.correction(x, torch.ones(3), None, x)
    assert_close(found, torch.tensor([[3.0, 3.0], [0.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("boosting", [False, True])
def test_a_correction_waits_for_no_device(boosting):
    """A tensor on the device "meta" has no values: whatever reads one raises."""
    guidance = bound(Counting().to("meta"), boosting=boosting).begin()
    x, sigma = torch.ones(2, 2, device="meta"), torch.ones(2, device="meta")
    for _ in range(7):
        guidance.churn(x, 0.0)
        for inner in (False, True):
            guidance.correction(x, sigma, None, x, inner=inner)
    assert guidance.evaluations == 14


def test_a_log_ratio_of_which_only_the_gradient_has_a_meaning_is_not_clipped():
    x = torch.full((2, 2), 20.0)
    corrections = [
        BoundDiscriminator(Counting(), 1.0, 1.0, gradient_only=only).correction(
            x, torch.ones(2), None, x
        )
        for only in (False, True)
    ]
    assert not corrections[0].any()
    assert_close(corrections[1], torch.full((2, 2), 3.0))


def test_a_correction_that_was_trained_for_the_same_pairs_requires_no_score():
    assigned = Coupling(True, True, frozenset(), independent=False, preserves_score=False)
    found = []
    independent = replace(assigned, independent=True, preserves_score=True)
    for only, coupling in ((False, assigned), (True, assigned), (True, independent), (True, None)):
        denoiser = Trained(None, None, GoldenDiscriminator(torch.ones(2)), assigned)
        digest = network_digest(denoiser.module)
        trained = Trained(
            None, None, Counting(), coupling, gradient_only=only, denoiser_digest=digest
        )
        inputs = SimpleNamespace(network=lambda _, found=trained: found)
        settings = DiscriminatorGuidance(discriminator="d")
        guidance = settings.bind(inputs, denoiser)
        guidance.component = settings
        heun = component("solver", "heun")
        found.append(len([*sampling_warnings("corrected", assigned, heun, [guidance])]))
    assert found == [1, 0, 1, 1]


def test_boosting_requires_a_log_ratio_whose_sign_has_a_meaning():
    guidance = DiscriminatorGuidance(discriminator="d", boosting=True)
    denoiser, fitted = design((3,), 2), replace(design((3,), 2), gradient_only=True)
    assert not list(guidance.check_guided(denoiser, {"d": design((3,), 2)}))
    (problem,) = guidance.check_guided(denoiser, {"d": fitted})
    assert (problem.key, problem.code) == (("boosting",), Code.CONFLICT)


def test_boosting_acts_in_the_interval_alone():
    class Fake(nn.Module):
        def forward(self, x, sigma, labels=None):
            return x.sum(1) - 10

    guide = BoostedDiscriminator(Fake(), 1.0, 0.0).begin()
    guide.interval = (0.5, 1.0)
    x, sigma = torch.ones(3, 2), torch.tensor([0.4, 1.0, 2.0])
    for _ in range(5):
        guide.churn(x, 0.0)
        guide.correction(x, sigma, None, x)
    assert guide.churn(x, 0.0).tolist() == [0.0, 4.0, 0.0]


def test_a_discriminator_guides_the_denoiser_on_which_it_was_trained():
    denoisers = [Trained(None, None, GoldenDiscriminator(torch.ones(k))) for k in (2, 3)]
    trained = Trained(None, None, Counting(), denoiser_digest=denoisers[0].digest)
    inputs = SimpleNamespace(network=lambda _: trained)
    guidance = DiscriminatorGuidance(discriminator="d")
    assert not guidance.bind(inputs, denoisers[0]).warnings
    with raises_code(DataError, Code.CONFLICT, "discriminator"):
        guidance.bind(inputs, denoisers[1])
    unknown = bound(Counting())
    (warning,) = sampling_warnings("noise", None, component("solver", "heun"), [unknown])
    assert "assumed" in warning


def test_each_slope_of_a_step_has_its_weight():
    network = Counting()
    x, sigma = torch.ones(2, 2), torch.ones(2)
    alike, first = bound(network, weight=2.0), bound(network, weight=2.0, second_weight=0.0)
    for guidance, second in ((alike, 6.0), (first, 0.0)):
        assert_close(guidance.correction(x, sigma, None, x), 6 * x)
        assert_close(guidance.correction(x, sigma, None, x, inner=True), second * x)
    assert (alike.evaluations, first.evaluations) == (2, 1)


@pytest.mark.parametrize(
    ("settings", "solver", "keys"),
    [
        ({"second_weight": 0.0}, "heun", []),
        ({"second_weight": 0.0}, "dpmpp-2s", []),
        ({"second_weight": 0.0}, "euler", [("second_weight",)]),
        ({"second_weight": 1.0}, "dpmpp-2m", [("second_weight",)]),
        ({"second_weight": 0.0}, "adaptive", [("second_weight",)]),
        ({"boosting": True}, "euler", []),
        ({"boosting": True}, "dpmpp-2m", [()]),
        ({}, "adaptive", []),
    ],
)
def test_a_solver_without_what_a_setting_requires_is_refused(settings, solver, keys):
    guidance = DiscriminatorGuidance(discriminator="d", **settings)
    problems = list(guidance.check_solver(component("solver", solver)))
    assert [(problem.key, problem.code) for problem in problems] == [
        (key, Code.CONFLICT) for key in keys
    ]


@pytest.mark.parametrize(
    ("lowest", "highest", "steps", "key"),
    [
        (0.05, 20.0, 18, None),
        (0.0, None, 1, None),
        (80.0, 90.0, 2, None),
        (0.05, 20.0, 2, "sigma_min"),
        (3.0, 15.0, 5, "sigma_min"),
        (90.0, 152.2, 18, "sigma_min"),
        (0.0, 0.001, 18, "sigma_max"),
    ],
)
def test_an_interval_without_a_noise_level_is_a_problem(lowest, highest, steps, key):
    levels = component("schedule", "edm", steps=steps).sigmas()[:-1]
    settings = {"discriminator": "d", "sigma_min": lowest, "sigma_max": highest}
    problems = list(DiscriminatorGuidance(**settings).check_levels(levels))
    assert [(*problem.key, problem.code) for problem in problems] == (
        [(key, Code.CONFLICT)] if key else []
    )
    for problem in problems:
        for name, value in re.findall(r"(sigma_m\w+) = (\S+)", problem.hint):
            other = DiscriminatorGuidance(**{**settings, name: float(value)})
            assert not list(other.check_levels(levels))


@pytest.mark.parametrize(
    ("discriminator", "denoiser", "fits"),
    [
        (design((3,), 2, conditional=True), design((3,), 2, conditional=True), True),
        (design((3,), 2), design((3,), 2, conditional=True), True),
        (design((3,), 2, conditional=True), design((3,), 2), False),
        (design((3,), 2, conditional=True), design((3,), 5, conditional=True), False),
        (design((4,), 2), design((3,), 2), False),
    ],
)
def test_a_discriminator_of_other_items_or_classes_cannot_guide(discriminator, denoiser, fits):
    guidance = DiscriminatorGuidance(discriminator="d")
    problems = list(guidance.check_guided(denoiser, {"d": discriminator}))
    assert [problem.key for problem in problems] == ([] if fits else [("discriminator",)])
