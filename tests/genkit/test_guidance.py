"""Guidance: what is counted, checked and kept while a batch is drawn."""

from __future__ import annotations

import gc
import math
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import genkit
from genkit.errors import Code, DataError
from genkit.interfaces import BoundGuidance, Guidance
from genkit.networks import bind_guidance
from genkit.random import generator
from genkit.sample import GuidedDenoiser, denoise_fn, trajectory
from raising import raises_code
from toy_sampling import Euler, Gaussian, Halving, Shift, draw, draws


def test_calls_of_guidance_are_counted_apart():
    drawn = draw(range(2), guidance=[Shift(1.0, 0.3), Shift(1.0, 0.6)])
    # Levels 1, 0.5, 0.25, 0.125: the first guidance acts on two of them, the second on one.
    assert (drawn.nfe, drawn.guidance_nfe) == (4, 3)
    assert (draw(range(2)).nfe, draw(range(2)).guidance_nfe) == (4, 0)


def test_guidance_that_was_used_before_starts_its_count_anew():
    guidance = [Shift(1.0, 0.0)]
    for _ in range(2):
        assert draw(range(2), guidance=guidance).guidance_nfe == 4


class Towards(BoundGuidance):
    """Extrapolates from a weaker denoiser: (w - 1) (D - D_weak), as autoguidance does."""

    def __init__(self, weight, weaker):
        self.weight = weight
        self.weaker = weaker

    def correction(self, x, sigma, labels, denoised, *, inner=False):
        return (self.weight - 1) * (denoised - self.weaker)


def test_corrections_are_summed_and_their_order_has_no_effect():
    x, sigma = torch.randn(4, 3, generator=generator(0)), torch.tensor(1.0)
    plain = denoise_fn(Gaussian())(x, sigma)
    first, second = Towards(2.0, 0.3), Towards(2.5, -0.1)
    found = GuidedDenoiser(Gaussian(), guidance=[first, second])(x, sigma)
    # Each sees the estimate without guidance: D + (D - 0.3) + 1.5 (D + 0.1) = 3.5 D - 0.15.
    assert_close(found, 3.5 * plain - 0.15)
    assert torch.equal(found, GuidedDenoiser(Gaussian(), guidance=[second, first])(x, sigma))


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        0.0,
        torch.zeros(3),
        torch.zeros(4, 1),
        torch.zeros(4, 3, dtype=torch.complex64),
        torch.zeros(4, 3, dtype=torch.int64),
        torch.zeros(4, 3, device="meta"),
    ],
)
def test_a_correction_that_cannot_be_added_is_refused(wrong):
    class Odd(BoundGuidance):
        def correction(self, x, sigma, labels, denoised, *, inner=False):
            return wrong

    with raises_code(DataError, Code.INVALID_RESULT, "Odd", "correction", [4, 3], "cpu"):
        GuidedDenoiser(Gaussian(), guidance=[Odd()])(torch.ones(4, 3), torch.tensor(1.0))


@pytest.mark.parametrize("name", ["x", "labels", "denoised"])
def test_guidance_that_changes_its_arguments_is_refused(name):
    class Hasty(BoundGuidance):
        def correction(self, x, sigma, labels, denoised, *, inner=False):
            {"x": x, "labels": labels, "denoised": denoised}[name].mul_(2)
            return torch.zeros_like(x)

    denoise = GuidedDenoiser(Gaussian(), torch.ones(4).long(), [Hasty()])
    with raises_code(DataError, Code.CHANGED, "Hasty", name):
        denoise(torch.ones(4, 3), torch.tensor(1.0))


def test_guidance_acts_in_inference_mode():
    with torch.inference_mode():
        denoise = GuidedDenoiser(Gaussian(), guidance=[Shift(1.0, 0.0)])
        assert denoise(torch.ones(4, 3), torch.tensor(1.0)).shape == (4, 3)


class Watching(BoundGuidance):
    """A guidance that keeps which evaluations are not the first of a step."""

    def __init__(self):
        self.seen = []

    def correction(self, x, sigma, labels, denoised, *, inner=False):
        self.seen.append(inner)
        return torch.zeros_like(x)


def test_guidance_can_tell_the_first_evaluation_of_a_step():
    guide = Watching()
    denoise = GuidedDenoiser(Gaussian(), guidance=[guide])
    x, sigma = torch.ones(1, 3), torch.tensor(1.0)
    for marks in ({}, {"inner": True}, {"inner": False}):
        denoise(x, sigma, **marks)
    assert guide.seen == [False, True, False]


@pytest.mark.parametrize("by", ["settings", "attribute"])
def test_guidance_acts_in_its_interval_alone(by):
    guide = Shift(1.0, 0.0)
    if by == "settings":
        guide = bind_guidance(Shifting(sigma_min=0.25, sigma_max=0.5), None, None)
    else:
        guide.interval = (0.25, 0.5)
    denoise, plain = GuidedDenoiser(Gaussian(), guidance=[guide]), denoise_fn(Gaussian())
    x = torch.ones(4, 3, dtype=torch.float64)

    def shift(level):
        return (denoise(x, level) - plain(x, level))[:, 0].tolist()

    levels = torch.tensor([1.0, 0.5, 0.25, 0.2], dtype=torch.float64)
    assert [shift(level)[0] for level in levels] == pytest.approx([0, 1, 1, 0], abs=1e-6)
    assert denoise.guidance_nfe == 2
    # The next float64 numbers are the same level to a network, which is given float32.
    edges = [np.nextafter(0.5, 1), np.nextafter(0.25, 0)]
    assert [shift(torch.tensor(edge))[0] for edge in edges] == pytest.approx([1, 1], abs=1e-6)
    # Items that differ in their levels are corrected each by itself.
    assert shift(levels[:, None]) == pytest.approx([0, 1, 1, 0], abs=1e-6)


@dataclass(frozen=True, kw_only=True)
class Shifting(Guidance):
    """A guidance without settings of its own."""

    def bind(self, inputs, denoiser):
        return Shift(1.0, 0.0)


@pytest.mark.parametrize("low", [0.5, 0.6])
def test_an_interval_that_is_empty_is_refused(low):
    assert not list(Shifting(sigma_min=0.4, sigma_max=0.5).check({}))
    (problem,) = Shifting(sigma_min=low, sigma_max=0.5).check({})
    assert (problem.key, problem.code) == (("sigma_min",), Code.OUT_OF_RANGE)


class Counting(BoundGuidance):
    """A guidance that keeps its number of steps, as the amount of noise, in a copy."""

    steps = 0

    def begin(self):
        return Counting()

    def churn(self, x, amount):
        self.steps += 1
        return amount + self.steps * torch.ones(len(x))

    def correction(self, x, sigma, labels, denoised, *, inner=False):
        self.evaluations += 1
        return torch.zeros_like(x)


def test_what_guidance_keeps_from_step_to_step_belongs_to_one_batch():
    shared, x = Counting(), torch.ones(2, 3)
    for _ in range(2):
        denoise = GuidedDenoiser(Gaussian(), guidance=[shared, Shift(0.0, 0.0)])
        assert [denoise.churn(x, 0.5).tolist() for _ in range(2)] == [[1.5] * 2, [2.5] * 2]
        denoise(x, torch.tensor(1.0))
        assert denoise.guidance_nfe == 2
    assert (shared.steps, shared.evaluations) == (0, 0)
    assert denoise_fn(Gaussian()).churn(x, 0.5) == 0.5


@pytest.mark.parametrize("method", ["begin", "churn"])
@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "much",
        True,
        -1.0,
        math.nan,
        math.inf,
        torch.ones(3),
        torch.ones(2).long(),
        -torch.ones(2),
    ],
)
def test_what_begin_and_churn_return_is_checked(method, wrong):
    guide = type("Odd", (Shift,), {method: lambda self, *_: wrong})(0.0, 0.0)
    with raises_code(DataError, Code.INVALID_RESULT, "Odd", method):
        GuidedDenoiser(Gaussian(), guidance=[guide]).churn(torch.ones(2, 3), 0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"interval": (80.0, 1.0)}, {"interval": None}, {"interval": (1.0,)}, {"evaluations": None}],
)
def test_attributes_of_a_bound_guidance_are_checked(wrong):
    guide = type("Odd", (Shift,), wrong)(0.0, 0.0)
    with raises_code(DataError, Code.INVALID_RESULT, "Odd", *wrong):
        GuidedDenoiser(Gaussian(), guidance=[guide])


def test_evaluations_of_the_start_are_those_of_no_step():
    guide = Watching()
    draw(range(1), steps=2, start="corrected-twice", guidance=[guide])
    assert guide.seen == [True, True, False, False]


@dataclass(frozen=True, kw_only=True)
class WeightedNan(Guidance):
    weight: float = 3.0
    second_weight: float | None = None

    def bind(self, inputs, denoiser):
        return Nan()


class Nan(BoundGuidance):
    calls = 0

    def correction(self, x, sigma, labels, denoised, *, inner=False):
        type(self).calls += 1
        shift = torch.zeros_like(x)
        shift[1] = torch.nan if sigma[0] == 0.5 else 0.0
        return shift


def test_sampling_stops_at_the_step_in_which_a_sample_is_not_finite():
    Nan.calls = 0
    guide = bind_guidance(WeightedNan(), None, None)
    with raises_code(DataError, Code.NOT_FINITE, "sample 1 of 3", "step 2", "0.5", "weight = 3"):
        draw(range(3), guidance=[guide])
    assert Nan.calls == 2  # of four steps


def test_both_weights_of_a_guidance_are_named_if_a_sample_is_not_finite():
    both = bind_guidance(WeightedNan(second_weight=1e38), None, None)
    with raises_code(DataError, Code.NOT_FINITE, "weight = 3", "second_weight = 1e+38"):
        draw(range(3), guidance=[both])
    one = bind_guidance(WeightedNan(), None, None)
    with raises_code(DataError, Code.NOT_FINITE, "weight = 3") as caught:
        draw(range(3), guidance=[one])
    assert "second_weight" not in str(caught.value)


def test_a_step_waits_for_no_device(monkeypatch):
    """A tensor on the device "meta" has no values: whatever reads one raises."""
    monkeypatch.setattr("genkit.sample.network_precision", lambda *_: nullcontext())

    class Sloped(BoundGuidance):
        def correction(self, x, sigma, labels, denoised, *, inner=False):
            with torch.enable_grad():
                point = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(point.square().sum(), point)
            return slope

        def churn(self, x, amount):
            return torch.where(x[:, 0] > 0, 4.0, x.new_zeros(len(x)) + amount)

    guide = Sloped()
    guide.interval = (0.1, 0.5)
    for solver in ("heun", "euler", "dpmpp-2m", "dpmpp-2s"):
        for guidance in ([], [guide]):
            latents = torch.ones(2, 3, device="meta")
            states = trajectory(
                GuidedDenoiser(Gaussian(), guidance=guidance),
                replace(draws(range(2)), latents=latents, randn_like=torch.randn_like),
                schedule=Halving(steps=4),
                solver=genkit.component("solver", solver),
            )
            assert [state.sigma for state in states] == [1.0, 0.5, 0.25, 0.125, 0.0]


def test_no_step_keeps_memory():
    """Count the tensors that are alive at each state: none is kept for a later one."""
    weights = torch.ones(3, requires_grad=True)

    class Sloped(BoundGuidance):
        def correction(self, x, sigma, labels, denoised, *, inner=False):
            with torch.enable_grad():
                point = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad((weights * point).square().sum(), point)
            return slope

    def alive():
        return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())

    states = trajectory(
        GuidedDenoiser(Gaussian(), guidance=[Sloped()]),
        draws(range(2)),
        schedule=Halving(steps=12),
        solver=Euler(),
    )
    counts = []
    gc.freeze()  # what exists already, such as libraries, is neither collected nor counted
    for state in states:
        assert not state.x.requires_grad
        gc.collect()
        counts.append(alive())
    gc.unfreeze()
    assert len(set(counts[2:-1])) == 1
    assert weights.grad is None
