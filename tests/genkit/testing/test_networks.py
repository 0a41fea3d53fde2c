"""Each law is broken here once, by a component that is sound but for that."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from genkit import interfaces, testing
from genkit.random import generator
from genkit.settings import setting
from genkit.types import Batch, Coefficients, DataSpec
from raising import breaks

VECTORS = DataSpec((3,), classes=2)


@dataclass(frozen=True, kw_only=True)
class Preconditioner(interfaces.Preconditioner):
    """Sound: no scaling at all."""

    def coefficients(self, sigma):
        one = torch.ones_like(sigma)
        return Coefficients(0 * one, one, one, sigma.log())

    def weight(self, sigma):
        return torch.ones_like(sigma)


class ScalarSkip(Preconditioner):
    def coefficients(self, sigma):
        return super().coefficients(sigma)._replace(c_skip=torch.zeros(()))


class Infinite(Preconditioner):
    def coefficients(self, sigma):
        return super().coefficients(sigma)._replace(c_in=(sigma * 1e37).square())


class Normalised(Preconditioner):
    def coefficients(self, sigma):
        return super().coefficients(sigma)._replace(c_noise=sigma / sigma.max())


class Weightless(Preconditioner):
    def weight(self, sigma):
        return torch.zeros_like(sigma)


class Narrows(Preconditioner):
    def round_sigma(self, sigma):
        return sigma.float()


class Halves(Preconditioner):
    def round_sigma(self, sigma):
        return sigma / 2


class Reversed(Preconditioner):
    def sigma_range(self):
        return 80.0, 0.002


class Turns(Preconditioner):
    def round_sigma(self, sigma):
        return 1 / sigma


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Narrows, "rounding-keeps-type"),
        (Halves, "rounds-once"),
        (Reversed, "sigma-range"),
        (Turns, "rounding-keeps-order"),
        (ScalarSkip, "value-per-level; c_skip"),
        (Infinite, "finite; c_in"),
        (Normalised, "company; c_noise"),
        (Weightless, "positive-weight"),
    ],
)
def test_preconditioners(broken, law):
    testing.check_preconditioner(Preconditioner())
    with breaks(law):
        testing.check_preconditioner(broken())


@dataclass(frozen=True, kw_only=True)
class Sigmas(interfaces.NoiseDistribution):
    """Sound: uniform."""

    def quantile(self, u):
        return u


class Negative(Sigmas):
    def quantile(self, u):
        return u - 0.5


class Falls(Sigmas):
    def quantile(self, u):
        return 1 - u


class Mean(Sigmas):
    def quantile(self, u):
        return u.mean()


@pytest.mark.parametrize(
    ("broken", "law"),
    [(Negative, "levels-range"), (Falls, "levels-rise"), (Mean, "level-per-quantile")],
)
def test_noise_distributions(broken, law):
    testing.check_noise_distribution(Sigmas())
    with breaks(law):
        testing.check_noise_distribution(broken())


class Linear(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(3, width)

    def forward(self, x, *_):
        return self.layer(x)

    features = forward


class Logit(Linear):
    def forward(self, x, *_):
        return self.layer(x)[:, 0]


class MeanOfBatch(Linear):
    def forward(self, x, *_):
        return self.layer(x - x.mean(0))


class Unstable(Linear):
    def forward(self, x, *_):
        return self.layer(x) / 0


class Random(Linear):
    def __init__(self, width):
        super().__init__(width)
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(id(self)))


@dataclass(frozen=True, kw_only=True)
class Denoiser(interfaces.Denoiser):
    """Sound, where its module is."""

    preconditioner: interfaces.Preconditioner = setting(Preconditioner(), doc="none")

    def build_network(self, spec):
        return self.module(3)

    module = Linear


@pytest.mark.parametrize(
    ("module", "law"),
    [
        (Logit, "company"),
        (MeanOfBatch, "company"),
        (Unstable, "finite"),
        (Random, "same-again"),
    ],
)
def test_denoisers(module, law):
    testing.check_denoiser(Denoiser(), VECTORS)
    broken = type("Broken", (Denoiser,), {"module": module})
    with breaks(law):
        testing.check_denoiser(broken(), VECTORS)


@dataclass(frozen=True, kw_only=True)
class Discriminator(interfaces.Discriminator):
    """Sound, where its module is."""

    def build(self, spec):
        return self.module(1)

    module = Logit


def test_discriminators():
    testing.check_discriminator(Discriminator(), VECTORS)
    broken = type("Broken", (Discriminator,), {"module": Linear})
    with breaks("output-shape"):
        testing.check_discriminator(broken(), VECTORS)


@dataclass(frozen=True, kw_only=True)
class Classifier(interfaces.Classifier):
    """Sound."""

    def build(self, spec):
        return Linear(2)


def test_classifiers():
    testing.check_classifier(Classifier(), VECTORS)
    broken = type("Broken", (Classifier,), {"build": lambda self, spec: FlatFeatures(2)})
    with breaks("row-per-item"):
        testing.check_classifier(broken(), VECTORS)
    broken = type("Broken", (Classifier,), {"build": lambda self, spec: OtherHead(2)})
    with breaks("head-of-features"):
        testing.check_classifier(broken(), VECTORS)


class OtherHead(Linear):
    def head(self, features):
        return features + 1


class FlatFeatures(Linear):
    def features(self, x):
        return x.flatten()


@dataclass(frozen=True, kw_only=True)
class Objective(interfaces.Objective):
    """Sound: denoise at one level."""

    trains = interfaces.Denoiser

    def loss(self, model, batch, noise, generator):
        sigma = torch.ones(len(batch))
        error = model(batch.data + noise, sigma, batch.labels) - batch.data
        return self.reduce(error.square())

    def reduce(self, error):
        return error.sum(1)


@pytest.mark.parametrize(
    ("reduce", "law"),
    [
        (lambda self, error: error.mean(), "loss-per-item"),
        (lambda self, error: error.sum(1) / 0, "finite"),
        (lambda self, error: error.detach().sum(1).requires_grad_(), "loss-gradient"),
        (lambda self, error: error.sum(1) * (1 + torch.seed() % 1000), "own-generator"),
    ],
)
def test_objectives(reduce, law):
    batch = Batch(torch.randn((4, 3), generator=generator(0)), quantile=torch.rand(4).double())
    testing.check_objective(Objective(), Denoiser().build(VECTORS), batch)
    broken = type("Broken", (Objective,), {"reduce": reduce})
    with torch.random.fork_rng(), breaks(law):
        testing.check_objective(broken(), Denoiser().build(VECTORS), batch)
    for terms in (0, 3.0):
        broken = type("Broken", (Objective,), {"terms": lambda self, shape, n=terms: n})
        with breaks("loss-terms"):
            testing.check_objective(broken(), Denoiser().build(VECTORS), batch)


@dataclass(frozen=True, kw_only=True)
class Mean(Objective):
    """Sound: the mean of the images has the lowest loss."""

    estimates_mean = True

    def noise_levels(self, quantile):
        return quantile + 1


@pytest.mark.parametrize(
    ("changed", "law"),
    [
        ({"noise_levels": lambda self, u: u[:1]}, "levels-range"),
        ({"noise_levels": lambda self, u: u - 0.5}, "levels-range"),
        ({"reduce": lambda self, error: error.sqrt().sum(1)}, "mean-is-best"),
        ({"reduce": lambda self, error: -error.sum(1)}, "mean-is-best"),
    ],
)
def test_objectives_of_noise_levels_and_of_the_mean(changed, law):
    # Skewed, so that the median is not the mean.
    data = torch.rand((9, 3), generator=generator(0)) ** 8
    batch = Batch(data, quantile=torch.rand(9, generator=generator(1)).double())
    model = Denoiser().build(VECTORS)
    testing.check_objective(Mean(), model, batch)
    broken = type("Broken", (Mean,), changed)
    with breaks(law):
        testing.check_objective(broken(), model, batch)
