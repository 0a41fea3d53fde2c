"""Sampling: what a solver sees, and what a sample depends on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from genkit.errors import Code, DataError
from genkit.interfaces import BoundGuidance, Schedule, Solver
from genkit.sample import denoise_fn, trajectory
from raising import raises_code
from toy_sampling import Euler, Gaussian, Halving, draw, draws


@dataclass(frozen=True, kw_only=True)
class Nothing(Solver):
    def solve(self, denoise, x, sigmas, randn_like):
        yield from ()


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
