"""Sampling: what a solver sees, what is counted, and what a sample depends on."""

from __future__ import annotations

import gc
import itertools
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import genkit
from genkit import blame
from genkit.errors import Code, DataError
from genkit.interfaces import BoundGuidance, Guidance, Preconditioner, Schedule, Solver
from genkit.latents import Derived, draws_of
from genkit.networks import bind_guidance
from genkit.random import generator
from genkit.sample import (
    GuidedDenoiser,
    bind_solver,
    denoise_fn,
    sample,
    supported_levels,
    trajectory,
)
from genkit.types import Coefficients, State
from raising import raises_code


@dataclass(frozen=True, kw_only=True)
class Halving(Schedule):
    def sigmas(self):
        return torch.tensor([*(0.5**k for k in range(self.steps)), 0.0], dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Euler(Solver):
    """Euler's method, with a little fresh noise before each step where it is asked for."""

    churn: float = 0.0

    def solve(self, denoise, x, sigmas, randn_like):
        for sigma, following in itertools.pairwise(sigmas):
            if self.churn:
                x = x + self.churn * randn_like(x)
            denoised = denoise(x, sigma)
            yield State(x, float(sigma), denoised)
            x = denoised + following / sigma * (x - denoised)
        yield State(x, 0.0, None)


@dataclass(frozen=True, kw_only=True)
class Nothing(Solver):
    def solve(self, denoise, x, sigmas, randn_like):
        yield from ()


class Gaussian(nn.Module):
    """The denoiser of data from N(class, 1), elementwise so that no batch changes its bits."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, sigma, labels):
        self.calls.append((x.dtype, sigma.dtype, tuple(sigma.shape), labels))
        variance = sigma.square()[:, None]
        mean = 0.0 if labels is None else labels[:, None].float()
        return (x + variance * mean) / (1 + variance)


class Shift(BoundGuidance):
    def __init__(self, by, least):
        self.by = by
        self.least = least

    def correction(self, x, sigma, labels, denoised, *, inner=False):
        if sigma[0] < self.least:
            return torch.zeros_like(x)
        self.evaluations += 1
        return torch.full_like(x, self.by)


def draws(seeds, run_seed=0, labels=None):
    drawn = Derived().draw((3,), seeds, 0, torch.device("cpu"), run_seed)
    return replace(drawn, labels=labels)


def draw(seeds, steps=4, solver=None, denoiser=None, seed=0, labels=None, **settings):
    return sample(
        denoiser or Gaussian(),
        draws(seeds, seed, labels),
        schedule=Halving(steps=steps),
        solver=solver or Euler(),
        **settings,
    )


@pytest.mark.parametrize("solver", [Euler(), Euler(churn=0.1)])
def test_a_sample_does_not_depend_on_the_batch_that_it_is_drawn_in(solver):
    whole = draw(range(10), solver=solver).batch.data
    assert torch.equal(draw(range(4), solver=solver).batch.data, whole[:4])
    assert torch.equal(draw([9, 2, 5], solver=solver).batch.data, whole[[9, 2, 5]])
    assert not torch.equal(draw(range(10), solver=solver, seed=1).batch.data, whole)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_samples_have_the_precision_of_the_states(precision):
    drawn = draw(range(2), state_precision=precision).batch
    assert (drawn.data.dtype, drawn.data.device.type) == (getattr(torch, precision), "cpu")
    assert drawn.labels is None


def test_states_are_float64_and_networks_see_float32():
    denoiser = Gaussian()
    states = list(
        trajectory(
            denoise_fn(denoiser),
            draws(range(2)),
            schedule=Halving(steps=3),
            solver=Euler(),
        )
    )
    assert [state.sigma for state in states] == [1.0, 0.5, 0.25, 0.0]
    assert {state.x.dtype for state in states} == {torch.float64}
    assert {state.denoised.dtype for state in states[:-1]} == {torch.float64}
    assert {call[:3] for call in denoiser.calls} == {(torch.float32, torch.float32, (2,))}


def test_the_start_has_the_deviation_of_the_first_noise_level():
    @dataclass(frozen=True, kw_only=True)
    class Wide(Schedule):
        def sigmas(self):
            return torch.tensor([80.0, 0.0], dtype=torch.float64)

    first = next(
        trajectory(
            denoise_fn(Gaussian()),
            draws(range(2000)),
            schedule=Wide(steps=1),
            solver=Euler(),
        )
    )
    assert first.x.std() == pytest.approx(80, rel=0.03)
    assert first.x.mean() == pytest.approx(0, abs=4)


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


def test_guidance_can_tell_the_first_evaluation_of_a_step():
    seen = []

    class Watching(BoundGuidance):
        def correction(self, x, sigma, labels, denoised, *, inner=False):
            seen.append(inner)
            return torch.zeros_like(x)

    denoise = GuidedDenoiser(Gaussian(), guidance=[Watching()])
    x, sigma = torch.ones(1, 3), torch.tensor(1.0)
    for marks in ({}, {"inner": True}, {"inner": False}):
        denoise(x, sigma, **marks)
    assert seen == [False, True, False]


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
@pytest.mark.parametrize("wrong", [None, "much", torch.ones(3)])
def test_what_begin_and_churn_return_is_checked(method, wrong):
    guide = type("Odd", (Shift,), {method: lambda self, *_: wrong})(0.0, 0.0)
    with raises_code(DataError, Code.INVALID_RESULT, "Odd", method):
        GuidedDenoiser(Gaussian(), guidance=[guide]).churn(torch.ones(2, 3), 0.0)


def test_evaluations_of_the_start_are_those_of_no_step():
    seen = []

    class Watching(BoundGuidance):
        def correction(self, x, sigma, labels, denoised, *, inner=False):
            seen.append(inner)
            return torch.zeros_like(x)

    draw(range(1), steps=2, start="corrected-twice", guidance=[Watching()])
    assert seen == [True, True, False, False]


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
    for state in states:
        assert not state.x.requires_grad
        gc.collect()
        counts.append(alive())
    assert len(set(counts[2:-1])) == 1
    assert weights.grad is None


def test_labels_reach_the_network_and_stay_with_the_samples():
    denoiser, labels = Gaussian(), torch.tensor([5, -5])
    drawn = draw(range(2), denoiser=denoiser, labels=labels)
    assert all(torch.equal(call[3], labels) for call in denoiser.calls)
    assert torch.equal(drawn.batch.labels, labels)
    assert drawn.batch.data[0].mean() > drawn.batch.data[1].mean()


def test_no_gradient_is_kept():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))

        def forward(self, x, sigma, labels):
            return self.scale * x

    assert not draw(range(2), denoiser=Learned()).batch.data.requires_grad


def test_a_solver_that_yields_nothing_is_an_error():
    with raises_code(DataError, Code.INVALID_RESULT, "Nothing", "state"):
        draw(range(2), solver=Nothing())


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float64", torch.float64), ("float32", torch.float32)]
)
def test_states_have_the_precision_that_is_asked_for(precision, dtype):
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Watching(Euler):
        def solve(self, denoise, x, sigmas, randn_like):
            for state in super().solve(denoise, x, sigmas, randn_like):
                seen.append((state.x.dtype, sigmas.dtype))
                yield state

    draw(range(2), solver=Watching(), state_precision=precision)
    assert set(seen) == {(dtype, dtype)}


class Linear(nn.Module):
    """A network whose result has the type of its arithmetic."""

    def __init__(self):
        super().__init__()
        self.types = set()

    def forward(self, x, sigma, labels):
        result = x @ torch.eye(3) / 2
        self.types.add(result.dtype)
        return result


class Judge(BoundGuidance):
    """A guidance that keeps the types of what it is given and of what it computes."""

    def __init__(self):
        self.types = []

    def correction(self, x, sigma, labels, denoised, *, inner=False):
        product = x @ torch.eye(3)
        self.types.append((denoised.dtype, product.dtype))
        return product * 0.1


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("float32", torch.float32),
        ("tf32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
    ],
)
def test_networks_compute_in_the_precision_and_solvers_do_not(precision, dtype):
    denoiser, judge, products = Linear(), Judge(), []

    @dataclass(frozen=True, kw_only=True)
    class Watching(Euler):
        def solve(self, denoise, x, sigmas, randn_like):
            for state in super().solve(denoise, x, sigmas, randn_like):
                products.append((torch.eye(3) @ torch.eye(3)).dtype)
                yield state

    drawn = draw(
        range(2), solver=Watching(), denoiser=denoiser, guidance=[judge], precision=precision
    )
    assert denoiser.types == {dtype}
    assert set(judge.types) == {(torch.float32, dtype)}
    assert set(products) == {torch.float32}
    assert drawn.batch.data.dtype == torch.float64


def test_the_precision_of_the_caller_changes_no_bit():
    plain = draw(range(2), denoiser=Linear()).batch.data
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(draw(range(2), denoiser=Linear()).batch.data, plain)


@dataclass(frozen=True, kw_only=True)
class Quarters(Preconditioner):
    """A network that knows multiples of 1/4, from 1/4 to 2."""

    def coefficients(self, sigma):
        return Coefficients(*[torch.ones_like(sigma)] * 4)

    def weight(self, sigma):
        return torch.ones_like(sigma)

    def round_sigma(self, sigma):
        return (sigma * 4).round().clamp(1, 8) / 4


@dataclass(frozen=True, kw_only=True)
class Levels(Schedule):
    """Given noise levels, of which a network's range leaves those inside."""

    levels: tuple[float, ...] = ()

    def sigmas(self):
        return torch.tensor([*self.levels, 0.0], dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Clamped(Levels):
    def within(self, lowest, highest):
        return Levels(levels=tuple(min(max(x, lowest), highest) for x in self.levels))


def test_levels_are_rounded_to_those_that_the_network_knows():
    schedule = Levels(levels=(5.0, 1.55, 1.0, 0.3))
    assert supported_levels(schedule, Quarters()).tolist() == [2.0, 1.5, 1.0, 0.25, 0.0]
    assert supported_levels(schedule, None).tolist() == [5.0, 1.55, 1.0, 0.3, 0.0]


def test_a_schedule_learns_the_range_that_the_network_knows():
    schedule = Clamped(levels=(5.0, 1.0, 0.01))
    assert supported_levels(schedule, Quarters()).tolist() == [2.0, 1.0, 0.25, 0.0]


def test_levels_that_are_one_to_the_network_are_one():
    schedule = Levels(levels=(5.0, 2.5, 1.06, 1.04, 0.3))
    assert supported_levels(schedule, Quarters()).tolist() == [2.0, 1.0, 0.25, 0.0]
    drawn = sample(Quartered(), draws(range(2)), schedule=schedule, solver=Euler())
    assert drawn.nfe == 3


@dataclass(frozen=True, kw_only=True)
class AddsNoise(Euler):
    stochastic = True


def test_a_stochastic_solver_steps_between_equal_levels():
    schedule = Levels(levels=(5.0, 2.5, 1.06, 1.04, 0.3))
    kept = [2.0, 2.0, 1.0, 1.0, 0.25, 0.0]
    assert supported_levels(schedule, Quarters(), keep_equal=True).tolist() == kept
    assert bind_solver(schedule, AddsNoise(), Quarters())[1].tolist() == kept
    drawn = sample(Quartered(), draws(range(2)), schedule=schedule, solver=AddsNoise())
    assert drawn.nfe == 5


@pytest.mark.parametrize("levels", [(5.0, 3.0), (0.1, 0.01)])
def test_a_schedule_outside_of_what_the_network_knows_is_refused(levels):
    with raises_code(DataError, Code.DATA, "0.25", "2"):
        supported_levels(Clamped(levels=levels), Quarters())


class Quartered(Gaussian):
    preconditioner = Quarters()


def test_solvers_and_samples_keep_to_the_levels_that_the_network_knows():
    class Rounding(Quartered):
        def forward(self, x, sigma, labels):
            super().forward(x, sigma, labels)
            self.levels = [*getattr(self, "levels", []), float(sigma[0])]
            return torch.zeros_like(x)

    denoiser = Rounding()
    start = sample(
        denoiser, draws(range(500)), schedule=Levels(levels=(5.0, 1.1, 0.3)), solver=Euler()
    )
    assert denoiser.levels == [2.0, 1.0, 0.25]
    assert not start.batch.data.any()
    first = next(
        trajectory(
            denoise_fn(denoiser),
            draws(range(2000)),
            schedule=Levels(levels=(5.0, 1.1)),
            solver=Euler(),
        )
    )
    assert first.sigma == 2
    assert first.x.std() == pytest.approx(2, rel=0.05)  # the start has the rounded level


@dataclass(frozen=True, kw_only=True)
class Changed(Derived):
    """Draws of which a test changes a part."""

    def draw(self, shape, seeds, classes, device, run_seed):
        return replace(super().draw(shape, seeds, classes, device, run_seed), **self.change)


@pytest.mark.parametrize(
    ("change", "classes", "said"),
    [
        ({"latents": np.zeros((2, 3))}, 0, ("latents", "ndarray")),
        ({"labels": [0, 1]}, 5, ("labels", "list")),
        (
            {"latents": torch.zeros(2, 4)},
            0,
            ("latents", [2, 3], [2, 4]),
        ),
        (
            {"latents": torch.zeros(2, 3).long()},
            0,
            ("latents", "torch.int64"),
        ),
        ({"labels": torch.zeros(2).long()}, 0, ("labels",)),
        ({"labels": None}, 5, ("labels", "0 to 4", "NoneType")),
        (
            {"labels": torch.zeros(2)},
            5,
            ("labels", "int64", "torch.float32"),
        ),
        (
            {"labels": torch.zeros(3).long()},
            5,
            ("labels", "2 int64", [3]),
        ),
        ({"labels": torch.tensor([0, 5])}, 5, ("labels", "0 to 5")),
    ],
)
def test_draws_of_a_plugin_are_checked(change, classes, said):
    latents = type("Changed", (Changed,), {"change": change})()
    with raises_code(DataError, Code.INVALID_RESULT, "Changed", *said):
        draws_of(latents, (3,), range(2), classes, torch.device("cpu"), 0)
    assert draws_of(Derived(), (3,), range(2), classes, torch.device("cpu"), 0)


def test_latents_of_a_plugin_are_finite():
    change = {"latents": torch.tensor([[0.0], [torch.nan]]).expand(2, 3)}
    latents = type("Changed", (Changed,), {"change": change})()
    with raises_code(DataError, Code.NOT_FINITE, "latent of Changed 1", "nan"):
        draws_of(latents, (3,), range(2), 0, torch.device("cpu"), 0)


def test_sound_draws_do_not_load_the_plugins(monkeypatch):
    """Loading them takes longer than drawing a batch; only a message has the name of a plugin."""
    monkeypatch.setattr(blame, "load_plugins", lambda: pytest.fail("plugins were loaded"))
    assert draws_of(Derived(), (3,), range(2), 0, torch.device("cpu"), 0)


def test_a_plugin_returns_draws():
    latents = type("Odd", (Derived,), {"draw": lambda *arguments: None})()
    with raises_code(DataError, Code.INVALID_RESULT, "Odd", "Draws", "NoneType"):
        draws_of(latents, (3,), range(2), 0, torch.device("cpu"), 0)


def test_samples_that_are_not_finite_are_refused():
    drawn = draws(range(3))
    drawn.latents[1] = torch.nan
    with raises_code(DataError, Code.NOT_FINITE, "sample 1"):
        sample(Gaussian(), drawn, schedule=Levels(levels=(5.0, 1.0)), solver=Euler())


def test_noise_of_a_plugin_is_checked():
    for noise in (
        lambda x: torch.zeros(3),
        lambda x: torch.zeros(x.shape),
        lambda x: torch.zeros_like(x, device="meta"),
        lambda x: None,
    ):
        latents = type("Changed", (Changed,), {"change": {"randn_like": noise}})()
        draws = draws_of(latents, (3,), range(2), 0, torch.device("cpu"), 0)
        with raises_code(DataError, Code.INVALID_RESULT, "Changed", "torch.float64"):
            draws.randn_like(torch.zeros(2, 3, dtype=torch.float64))
