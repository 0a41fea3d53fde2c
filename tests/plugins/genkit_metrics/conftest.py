from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from genkit.interfaces import Schedule, Solver
from genkit.random import generator
from genkit.types import State
from genkit.world import SINGLE_PROCESS, World


@dataclass
class FakeTrained:
    module: nn.Module


@dataclass
class FakeContext:
    """A stage's context, with networks that are given rather than trained."""

    networks: dict[str, nn.Module] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    folder: Path = Path()
    seed: int = 0
    world: World = SINGLE_PROCESS
    warnings: list[str] = field(default_factory=list)

    def network(self, stage: str) -> FakeTrained:
        return FakeTrained(self.networks[stage])

    def read(self, stage: str, artifact: type) -> object:
        raise NotImplementedError

    def digest(self, stage: str) -> str:
        return f"digest-of-{stage}"

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def stop_requested(self) -> bool:
        return False

    def generator(self, *purpose: str | int) -> torch.Generator:
        return generator(self.seed, "stage", *purpose)


@pytest.fixture
def fake_context() -> Callable[..., FakeContext]:
    return FakeContext


@dataclass(frozen=True, kw_only=True)
class Geometric(Schedule):
    """Noise levels evenly spaced in sigma^(1/7) from 80 to 0.002, as EDM's."""

    def sigmas(self):
        ramp = torch.linspace(80.0 ** (1 / 7), 0.002 ** (1 / 7), self.steps, dtype=torch.float64)
        return torch.cat([ramp**7, torch.zeros(1, dtype=torch.float64)])


@dataclass(frozen=True, kw_only=True)
class PlainEuler(Solver):
    """One evaluation a step."""

    def solve(self, denoise, x, sigmas, randn_like):
        for i in range(len(sigmas) - 1):
            denoised = denoise(x, sigmas[i])
            yield State(x, float(sigmas[i]), denoised)
            x = x + (sigmas[i + 1] - sigmas[i]) * (x - denoised) / sigmas[i]
        yield State(x, 0.0, None)


@dataclass(frozen=True, kw_only=True)
class ExactGaussian(Solver):
    """The exact trajectory for data from N(0, 1/4)."""

    def solve(self, denoise, x, sigmas, randn_like):
        scale = (0.25 + sigmas.square()).sqrt()
        for i in range(len(sigmas) - 1):
            at = x * scale[i] / scale[0]
            yield State(at, float(sigmas[i]), denoise(at, sigmas[i]))
        yield State(x * scale[-1] / scale[0], 0.0, None)


@pytest.fixture
def edm_like() -> Schedule:
    return Geometric(steps=64)


@pytest.fixture
def plain_euler() -> Solver:
    return PlainEuler()


@pytest.fixture
def exact_gaussian() -> Solver:
    return ExactGaussian()


class GaussianDenoiser(nn.Module):
    """The denoiser of data from N(0, 1/4)."""

    def forward(self, x, sigma, labels):
        assert x.dtype == torch.float32
        assert sigma.shape == x.shape[:1]
        sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
        return x * 0.25 / (0.25 + sigma.square())


class PointDenoiser(nn.Module):
    """The denoiser of a data set with one item in each class, of value 1 - 2 class."""

    def forward(self, x, sigma, labels):
        self.labels = labels
        value = torch.ones(len(x)) if labels is None else 1.0 - 2.0 * labels
        return value.reshape(-1, *[1] * (x.ndim - 1)).expand_as(x)


@pytest.fixture
def gaussian_denoiser() -> nn.Module:
    return GaussianDenoiser()


@pytest.fixture
def point_denoiser() -> nn.Module:
    return PointDenoiser()
