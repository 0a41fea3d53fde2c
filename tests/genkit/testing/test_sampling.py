"""Each law is broken here once, by a component that is sound but for that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch

from genkit import interfaces
from genkit.latents import Derived
from genkit.random import PerSample
from genkit.testing import (
    ClosedForm,
    check_latents,
    check_schedule,
    check_solver,
)
from genkit.types import State
from raising import breaks


@dataclass(frozen=True, kw_only=True)
class Schedule(interfaces.Schedule):
    """Sound: geometric."""

    def sigmas(self):
        return torch.cat([torch.logspace(1, -2, self.steps).double(), torch.zeros(1).double()])


class Float32Levels(Schedule):
    def sigmas(self):
        return super().sigmas().float()


class OneTooFew(Schedule):
    def sigmas(self):
        return super().sigmas()[1:]


class Rises(Schedule):
    def sigmas(self):
        return super().sigmas().flip(0)


class EndsAbove(Schedule):
    def sigmas(self):
        return super().sigmas() + 0.1


class DividesByZero(Schedule):
    def sigmas(self):
        return super().sigmas() * (self.steps - 1) / torch.tensor(self.steps - 1.0)


class OtherRange(Schedule):
    def sigma_range(self):
        return 0.1, 5.0


class Narrowed(Schedule):
    def within(self, lowest, highest):
        return replace(self, steps=self.steps - 1)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (OtherRange, "sigma-range"),
        (Narrowed, "within-all"),
        (Float32Levels, "level-per-step; torch.float32"),
        (OneTooFew, "level-per-step; torch.float64 [1]"),
        (Rises, "levels-fall"),
        (EndsAbove, "ends-at-0"),
        (DividesByZero, "finite"),
    ],
)
def test_schedules(broken, law):
    check_schedule(Schedule())
    with breaks(law):
        check_schedule(broken())


@dataclass(frozen=True, kw_only=True)
class Solver(interfaces.Solver):
    """Sound: Euler's method."""

    def solve(self, denoise, x, sigmas, randn_like):
        for sigma, following in pairwise(sigmas):
            denoised = denoise(x, sigma)
            yield State(x, float(sigma), denoised)
            x = self.step(x, denoised, sigma, following)
        yield State(x, 0.0, None)

    def step(self, x, denoised, sigma, following):
        return x + (following - sigma) * (x - denoised) / sigma


class InPlace(Solver):
    def step(self, x, denoised, sigma, following):
        return x.copy_(super().step(x, denoised, sigma, following))


class InPlaceOnACopy(InPlace):
    def solve(self, denoise, x, sigmas, randn_like):
        return super().solve(denoise, x.clone(), sigmas, randn_like)


class HalfStep(Solver):
    def step(self, x, denoised, sigma, following):
        return super().step(x, denoised, sigma, following + 1e-3)


class TooSmooth(Solver):
    def step(self, x, denoised, sigma, following):
        step = super().step(x, denoised, sigma, following)
        return denoised + (step - denoised) * 0.95


class Stray(Solver):
    def step(self, x, denoised, sigma, following):
        return super().step(x, denoised, sigma, following) + (following > 0) * torch.randn_like(x)


class Unbound(Solver):
    def between(self, sigma_min, sigma_max, sigmas):
        return None


@dataclass(frozen=True, kw_only=True)
class BoundAnew(Solver):
    count: int = 0

    def between(self, sigma_min, sigma_max, sigmas):
        return replace(self, count=self.count + 1)


class SkipsStart(Solver):
    def solve(self, *arguments):
        states = super().solve(*arguments)
        next(states)
        yield from states


class NoisyStart(Solver):
    def solve(self, denoise, x, sigmas, randn_like):
        return super().solve(denoise, x + randn_like(x), sigmas, randn_like)


class Float32States(Solver):
    def step(self, x, denoised, sigma, following):
        return super().step(x, denoised, sigma, following).float()


class KeepsNothing(Solver):
    def solve(self, *arguments):
        for state in super().solve(*arguments):
            yield replace(state, denoised=None)


class BatchOfSigma(Solver):
    def solve(self, denoise, x, sigmas, randn_like):
        batched = ClosedForm(lambda x, s: denoise(x, s.expand(len(x))))
        return super().solve(batched, x, sigmas, randn_like)


class Unmarked(Solver):
    """Evaluates twice in a step, and does not tell the two apart."""

    def solve(self, denoise, x, sigmas, randn_like):
        for sigma, following in pairwise(sigmas):
            denoised = denoise(x, sigma)
            yield State(x, float(sigma), denoised)
            x = self.step(x, denoise(x, sigma), sigma, following)
        yield State(x, 0.0, None)


class AllInner(Solver):
    def solve(self, denoise, *arguments):
        marked = ClosedForm(lambda x, sigma: denoise(x, sigma, inner=True))
        return super().solve(marked, *arguments)


class Elsewhere(Solver):
    """Evaluates where it does not say that it is."""

    def solve(self, denoise, *arguments):
        return super().solve(ClosedForm(lambda x, sigma: denoise(2 * x, sigma)), *arguments)


class Hidden(Solver):
    """Draws noise of its own, unseen by torch's generators."""

    def step(self, x, denoised, sigma, following):
        g = torch.Generator()
        g.seed()
        noise = torch.randn(x.shape, generator=g, dtype=x.dtype)
        return super().step(x, denoised, sigma, following) + (following > 0) * noise * 1e-3


class Sociable(Solver):
    """Pulls the states of a batch together, but for those that are one already."""

    def step(self, x, denoised, sigma, following):
        found = super().step(x, denoised, sigma, following)
        return found + (following > 0) * 0.01 * (denoised.mean(0) - denoised)


class Float64States(Solver):
    def step(self, x, denoised, sigma, following):
        return super().step(x, denoised, sigma, following).double()


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Sociable, "company"),
        (Float64States, "state-type"),
        (InPlace, "leaves-inputs; start was modified"),
        (InPlaceOnACopy, "state-is-kept"),
        (HalfStep, "single-point"),
        (TooSmooth, "gaussian"),
        (Stray, "own-generator"),
        (Unbound, "bound-once"),
        (BoundAnew, "bound-once"),
        (SkipsStart, "state-per-level"),
        (NoisyStart, "first-state"),
        (Float32States, "state-type"),
        (KeepsNothing, "state-denoised"),
        (BatchOfSigma, "levels-range"),
        (Unmarked, "inner-evaluations"),
        (AllInner, "inner-evaluations"),
        (Elsewhere, "inner-evaluations"),
        (Hidden, "same-again"),
    ],
)
def test_solvers(broken, law):
    check_solver(Solver())
    with breaks(law):
        check_solver(broken())


@dataclass(frozen=True, kw_only=True)
class Latents(Derived):
    """Sound, but for what a test changes in its draws."""

    def draw(self, shape, seeds, classes, device, run_seed):
        drawn = super().draw(shape, seeds, classes, device, run_seed)
        return self.changed(drawn, seeds)

    def changed(self, drawn, seeds):
        return drawn


def repeated(seeds):
    return lambda x: PerSample(0, ("once",), seeds).randn_like(x)


@pytest.mark.parametrize(
    ("changed", "law"),
    [
        (lambda d, s: replace(d, latents=d.latents.double()), "float32"),
        (lambda d, s: replace(d, latents=d.latents[0]), "draws; of shape [5, 3, 8, 8]"),
        (lambda d, s: replace(d, latents=d.latents.numpy()), "draws; got ndarray"),
        (lambda d, s: None, "draws; Draws from draw"),
        (lambda d, s: replace(d, latents=2 * d.latents), "standard-normal"),
        (
            lambda d, s: replace(d, randn_like=lambda x: d.randn_like(x).float()),
            "draws; noise of torch.float64",
        ),
        (lambda d, s: replace(d, randn_like=repeated(s)), "no-shared-noise"),
        (
            lambda d, s: replace(d, randn_like=PerSample(3, ("latent",), s).randn_like),
            "independence",
        ),
        (lambda d, s: replace(d, labels=None), "draws; got NoneType"),
        (
            lambda d, s: d if d.labels is None else replace(d, labels=d.labels + 9),
            "draws; int64 classes",
        ),
        (
            lambda d, s: replace(d, labels=torch.zeros(len(s)).long()),
            "draws; None as labels",
        ),
        (lambda d, s: replace(d, latents=torch.randn(d.latents.shape)), "own-generator"),
        (lambda d, s: replace(d, latents=d.latents.flip(0)), "company"),
    ],
)
def test_latents(changed, law):
    check_latents(Latents())
    broken = type("Broken", (Latents,), {"changed": lambda self, d, s: changed(d, s)})
    with torch.random.fork_rng(), breaks(law):
        check_latents(broken())
