"""A schedule, a solver, a denoiser and a guidance whose samples are known."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch import nn

from genkit.interfaces import BoundGuidance, Preconditioner, Schedule, Solver
from genkit.latents import Derived
from genkit.sample import sample
from genkit.types import Coefficients, State


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
class Plain(Preconditioner):
    """Coefficients of 1; subclasses define the supported noise levels."""

    def coefficients(self, sigma):
        return Coefficients(*[torch.ones_like(sigma)] * 4)

    def weight(self, sigma):
        return torch.ones_like(sigma)


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
