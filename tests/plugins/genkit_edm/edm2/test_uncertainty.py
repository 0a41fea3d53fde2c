from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genkit.errors import Code, RecipeError
from genkit.plugin.manager import load_plugins
from genkit.random import derive_seed, generator, seeded
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.testing.networks import check_objective
from genkit.train.trainer import Compute, Trainer
from genkit.types import Batch, DataSpec
from genkit.world import SINGLE_PROCESS
from genkit_edm.denoising import Denoising
from genkit_edm.edm import EdmPreconditioner, LogNormal
from genkit_edm.edm2.denoiser import Edm2
from genkit_edm.edm2.uncertainty import Uncertain, UncertaintyDenoising
from genkit_optim.adam import Adam
from genkit_optim.power_ema import PowerEma
from raising import raises_code

LEVELS = LogNormal(p_mean=-0.4, p_std=1.0)
SETTINGS = Edm2(
    channels=16,
    channel_mult=(1,),
    blocks=1,
    attention=(4,),
    channels_per_head=16,
    preconditioner=EdmPreconditioner(),
)
BATCH = Batch(
    torch.rand(6, 1, 4, 4, generator=generator(0, "data")),
    quantile=torch.linspace(0.1, 0.9, 6).double(),
)
NOISE = torch.randn(6, 1, 4, 4, generator=generator(0, "noise"))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield SETTINGS.build(DataSpec((1, 4, 4)))


def test_laws(model):
    check_objective(UncertaintyDenoising(noise_distribution=LEVELS), model, BATCH)


def test_the_loss_is_that_of_the_paper(model):
    plain = Denoising(noise_distribution=LEVELS).loss(model, BATCH, NOISE, generator(0))
    found = UncertaintyDenoising(noise_distribution=LEVELS).loss(model, BATCH, NOISE, generator(0))
    u = model.uncertainty(LEVELS.levels(BATCH))
    assert torch.allclose(found, plain * torch.exp(-u) + u)
    assert u.std() > 0.1


def test_the_uncertainty_that_is_learned_is_the_logarithm_of_the_loss():
    # A network that is never right: its loss at sigma is known, and u must come to it.
    class Wrong(nn.Module):
        def forward(self, x, c_noise, labels):
            return torch.zeros_like(x)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Uncertain(Wrong(), EdmPreconditioner()).train()
    objective = UncertaintyDenoising(noise_distribution=LEVELS)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    noise = generator(0, "training")
    for _ in range(400):
        quantile = torch.rand(256, generator=noise, dtype=torch.float64)
        batch = Batch(torch.zeros(256, 8), quantile=quantile)
        unit = torch.randn(256, 8, generator=noise)
        optimizer.zero_grad()
        objective.loss(model, batch, unit, noise).mean().backward()
        optimizer.step()
    sigma = torch.tensor([0.3, 0.7, 1.5])
    # D = c_skip x of images of zeros: the loss is (c_skip sigma / c_out)^2.
    expected = torch.log(0.25 / (sigma.square() + 0.25))
    with torch.no_grad():
        assert torch.allclose(model.eval().uncertainty(sigma), expected, atol=0.25)


def test_it_is_ignored_in_sampling_and_saved(model):
    model.eval()
    x, sigma = torch.randn(2, 1, 4, 4), torch.tensor([0.5, 3.0])
    before = model(x, sigma)
    with torch.no_grad():
        model.uncertainty_linear.weight.normal_()
    assert torch.equal(model(x, sigma), before)
    assert "uncertainty_linear.weight" in model.state_dict()
    assert "uncertainty_features.phases" in model.state_dict()


RECIPE = """
name = "check"
seed = 0
data = {{ use = "digits" }}

[[stage]]
id = "denoiser"
use = "train"
images = 64
network = {{ use = "{network}" }}
objective = {{ use = "uncertainty-denoising" }}
"""


def test_networks_without_it_are_refused(tmp_path):
    path, plugins = tmp_path / "recipe.toml", load_plugins()
    path.write_text(RECIPE.format(network="ddpmpp"))
    with raises_code(RecipeError, Code.CONFLICT, "objective", "edm2"):
        load_recipe(read_source(path), plugins)
    path.write_text(RECIPE.format(network="edm2").replace('"edm2"', '"edm2", channel_mult = [1]'))
    load_recipe(read_source(path), plugins)


def test_training_goes_on_with_the_same_bits():
    adam = Adam(learning_rate=0.01, learning_rate_decay=8, beta2=0.99)
    context = SimpleNamespace(
        device=torch.device("cpu"), world=SINGLE_PROCESS, seed=partial(derive_seed, 0)
    )

    def trainer():
        with seeded(0):
            model = SETTINGS.build(DataSpec((1, 4, 4)))
        objective = UncertaintyDenoising(noise_distribution=LEVELS)
        return Trainer(context, model, objective, adam, PowerEma(), (1, 4, 4), Compute())

    first, second = trainer(), trainer()
    for _ in range(3):
        first.step(BATCH, NOISE)
    tensors, numbers = first.state()
    second.restore({name: value.clone() for name, value in tensors.items()}, numbers)
    for one in (first, second):
        one.step(BATCH, NOISE)
    state, again = first.state()[0], second.state()[0]
    assert state.keys() == again.keys()
    assert [name for name, value in state.items() if not torch.equal(value, again[name])] == []
    assert "average.0.05:uncertainty_linear.weight" in state
