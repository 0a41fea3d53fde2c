from __future__ import annotations

import re
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import genkit
from genkit.api import run_recipe
from genkit.artifacts import Samples
from genkit.errors import Code, DataError, RecipeError, UsageError
from genkit.interfaces import NoiseDistribution, Preconditioned
from genkit.plugin.manager import load_plugins
from genkit.random import generator
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.types import Batch
from genkit_dg.guided_denoising import GuidedDenoising
from raising import raises_code

SPREAD, REAL, FAKE, SIGMA = 0.5, 0.3, -0.2, 0.8


@dataclass(frozen=True, kw_only=True)
class One(NoiseDistribution):
    """A single noise level."""

    def quantile(self, u):
        return torch.full_like(u, SIGMA)


class Ideal(Preconditioned):
    """The denoiser of items from N(FAKE, SPREAD^2)."""

    def __init__(self):
        super().__init__(nn.Identity(), genkit.component("preconditioner", "edm"))

    def forward(self, x, sigma, labels=None):
        share = SPREAD**2 / (SPREAD**2 + sigma.square())
        return FAKE + share[:, None] * (x - FAKE)


class Slope(nn.Module):
    """A discriminator L = slope * sum(x)."""

    def __init__(self, slope):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x, sigma, labels):
        return self.slope * x.sum(1)


def bound():
    inputs = SimpleNamespace(network=lambda stage: SimpleNamespace(module={"d": Ideal()}[stage]))
    return GuidedDenoising(denoiser="d", noise_distribution=One()).bind(inputs)


def draws(count=50_000):
    draw = generator(0, "draws")
    data = REAL + SPREAD * torch.randn(count, 2, generator=draw)
    batch = Batch(data, quantile=torch.full((count,), 0.5, dtype=torch.float64))
    return batch, torch.randn(count, 2, generator=draw)


def test_is_the_denoising_loss_of_the_guided_denoiser():
    batch, noise = draws(8)
    model = Slope(0.7)
    loss = bound().loss(model, batch, noise, generator(0))
    x, sigma = batch.data + SIGMA * noise, torch.full((8,), SIGMA)
    guided = Ideal()(x, sigma) + SIGMA**2 * 0.7
    weight = (SIGMA**2 + 0.25) / (SIGMA * 0.5) ** 2
    assert_close(loss, weight * (guided - batch.data).square().mean(1))


@pytest.mark.parametrize("paired", [False, True])
def test_is_lowest_where_the_guided_denoiser_is_the_mean_of_the_real_items(paired):
    batch, noise = draws()
    if paired:  # as optimal transport pairs Gaussians: the ODE's field has another bias to remove
        noise = (batch.data - REAL) / SPREAD
    x = batch.data + SIGMA * noise
    wanted = float((batch.data - Ideal()(x, torch.full((len(x),), SIGMA))).mean()) / SIGMA**2
    if not paired:
        optimal = (REAL - FAKE) / (SPREAD**2 + SIGMA**2)
        assert wanted == pytest.approx(optimal, abs=0.01)
    model = Slope(wanted)
    (slope,) = torch.autograd.grad(
        bound().loss(model, batch, noise, generator(0)).mean(), model.slope
    )
    assert abs(float(slope)) < 1e-5


def test_generated_items_have_no_weight_and_the_mean_is_that_of_the_real_items():
    batch, noise = draws(1000)
    fakes = batch.with_data(FAKE - REAL + batch.data)
    joined = Batch(
        torch.cat([batch.data, fakes.data]),
        realness=torch.arange(2000).lt(1000).long(),
        quantile=torch.cat([batch.quantile] * 2),
    )
    model = Slope(0.7)
    real = bound().loss(model, batch, noise, generator(0))
    loss = bound().loss(model, joined, torch.cat([noise, noise]), generator(0))
    assert_close(loss[:1000], 2 * real)
    assert_close(loss.mean(), real.mean())
    # A batch without real items changes nothing.
    only_fakes = bound().loss(model, joined[1000:], noise, generator(0))
    (slope,) = torch.autograd.grad(only_fakes.mean(), model.slope)
    assert not only_fakes.any()
    assert slope == 0


def test_requires_a_denoiser_with_a_preconditioner():
    inputs = SimpleNamespace(network=lambda _: SimpleNamespace(module=nn.Linear(1, 1)))
    with raises_code(DataError, Code.CONFLICT, "Linear"):
        GuidedDenoising(denoiser="d", noise_distribution=One()).bind(inputs)
    with raises_code(UsageError, Code.USAGE):
        settings = GuidedDenoising(denoiser="d", noise_distribution=One())
        settings.loss(Slope(1.0), *draws(2), generator(0))


RECIPE = """
name = "guided-denoising"
data = { use = "digits" }

[[stage]]
id = "denoiser"
use = "train"
images = 256
batch_size = 64
network = { use = "ddpmpp", channels = 8, channel_mult = [1, 2], blocks = 1, attention = [4] }
objective = { use = "denoising" }

[[stage]]
id = "discriminator"
use = "train"
images = 128
batch_size = 64
network = { use = "denoiser-encoder", denoiser = "denoiser", channels = 64, blocks = 1 }
objective = { use = "guided-denoising", denoiser = "denoiser" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 8
schedule = { use = "edm", steps = 3 }
guidance = [{ use = "discriminator", discriminator = "discriminator" }]
"""


FAKES = """
[[stage]]
id = "fakes"
use = "sample"
denoiser = "denoiser"
count = 64

[[stage]]
id = "discriminator"
data = { use = "real-and-fake", fakes = "fakes" }
coupler = { COUPLER }"""


@pytest.mark.parametrize(
    ("coupler", "valid"),
    [('use = "hungarian"', False), ('use = "partitioned", by = ["realness"]', True)],
)
def test_noise_must_not_be_assigned_across_real_and_generated_items(tmp_path, coupler, valid):
    path = tmp_path / "guided.toml"
    fakes = FAKES.replace("COUPLER", coupler)
    path.write_text(RECIPE.replace('\n[[stage]]\nid = "discriminator"', fakes))
    if valid:
        load_recipe(read_source(path), load_plugins())
        return
    with raises_code(RecipeError, Code.SKEWED_NOISE):
        load_recipe(read_source(path), load_plugins())


@pytest.mark.parametrize("part", ["network", "objective"])
def test_a_discriminator_of_another_denoiser_is_refused(tmp_path, part):
    stages = RECIPE.split("[[stage]]")
    stages[1] += "[[stage]]" + stages[1].replace('"denoiser"', '"other"')
    stages[2] = re.sub(f'({part} = .*denoiser = )"denoiser"', r'\1"other"', stages[2])
    path = tmp_path / "guided.toml"
    path.write_text("[[stage]]".join(stages))
    with raises_code(RecipeError, Code.WRONG_REFERENCE, "guidance", part, '"other"'):
        load_recipe(read_source(path), load_plugins())


def test_trains_a_discriminator_without_fakes(tmp_path):
    path = tmp_path / "guided.toml"
    path.write_text(RECIPE)
    run_recipe(path, out=tmp_path / "run", device="cpu")
    samples = Samples.load(tmp_path / "run/03-samples/samples.safetensors")
    assert samples.guidance_nfe > 0
