"""A third-party network that contains a frozen network of an earlier stage."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from genkit import tensors
from genkit.artifacts import DenoiserRef
from genkit.errors import Code, DataError, RecipeError
from genkit.interfaces import Denoiser, Preconditioned
from genkit.networks import load_network
from genkit.parts.frozen import Frozen
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Owner, Registration
from genkit.settings import setting
from genkit.train.trainer import BY_QUANTILE
from raising import raises_code

STAGE = """
[[stage]]
id = "outer"
use = "train"
images = 128
batch_size = 64
network = { use = "encoded", encoder = "denoiser" }
objective = { use = "denoising" }
"""


class Net(nn.Module):
    """A linear layer over what a frozen denoiser makes of its input."""

    def __init__(self, dimensions, encoder, hold):
        super().__init__()
        self.encoder = hold(encoder)
        self.layer = nn.Linear(2 * dimensions, dimensions)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, noise, labels=None):
        seen = self.encoder(x, noise.exp(), labels)
        return self.layer(self.dropout(torch.cat([x, seen], dim=1)))


@dataclass(frozen=True)
class BoundEncoded:
    settings: Encoded
    encoder: nn.Module

    def build(self, spec):
        network = Net(spec.shape[0], self.encoder, self.settings.hold)
        return Preconditioned(network, self.settings.preconditioner)


@dataclass(frozen=True, kw_only=True)
class Encoded(Denoiser):
    """A denoiser with the denoiser of an earlier stage inside."""

    encoder: DenoiserRef = setting(doc="stage of the denoiser inside")
    hold = Frozen

    def bind(self, inputs):
        return BoundEncoded(self, inputs.network(self.encoder).module)


class Careless(Encoded):
    """Registers the frozen network as its own."""

    hold = staticmethod(lambda module: module)


class Neither(Denoiser):
    """Has no way to be built."""


@pytest.fixture
def thirds(tiny):
    """Return tiny recipes with the third-party networks."""
    registration = Registration(Owner("thirds", "genkit-thirds", "0.1"))
    for cls in (Encoded, Careless, Neither):
        registration.add("denoiser", cls.__name__.lower(), f"{__name__}:{cls.__name__}")
    tiny.plugins = load_plugins()
    tiny.plugins.registry.accept(registration)
    return tiny


def test_optimizer_average_and_checkpoint_hold_no_frozen_tensor(thirds):
    thirds.run(thirds.train + STAGE)
    (place,) = thirds.folder.glob("02-outer")
    names = {f"network.layer.{kind}" for kind in ("weight", "bias")}
    state, _ = tensors.load(place / "checkpoint.safetensors")
    assert {name for name in state if name.startswith("model.")} == {f"model.{n}" for n in names}
    # Nothing of the average or of the moments has a shape of the frozen network, of width 8.
    assert len(state) > 6
    assert all({*tensor.shape} <= {2, 4} for n, tensor in state.items() if n != BY_QUANTILE)


def test_the_file_contains_the_frozen_network_and_can_be_loaded_anywhere(thirds, tmp_path):
    drawn = thirds.samples.replace('"denoiser"', '"outer"', 1)
    thirds.run(thirds.train + STAGE + drawn)
    path = thirds.folder / "02-outer" / "denoiser.safetensors"
    inner, _ = tensors.load(thirds.folder / "01-denoiser" / "denoiser.safetensors")
    weights, _ = tensors.load(path)
    assert all(torch.equal(weights[f"denoiser/{name}"], value) for name, value in inner.items())
    frozen = load_network(path, thirds.plugins.registry).module.network.encoder.module
    assert not frozen.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert all(torch.equal(frozen.state_dict()[name], value) for name, value in inner.items())


def test_a_network_may_contain_one_that_contains_another(thirds):
    second = STAGE.replace('"outer"', '"outermost"').replace('"denoiser" }', '"outer" }')
    thirds.run(thirds.train + STAGE + second)
    path = thirds.folder / "03-outermost" / "denoiser.safetensors"
    assert {name.count("/") for name in tensors.load(path)[0]} == {0, 1, 2}
    module = load_network(path, thirds.plugins.registry).module
    x, sigma = torch.randn(3, 2), torch.ones(3)
    inside = load_network(
        thirds.folder / "02-outer" / "denoiser.safetensors", thirds.plugins.registry
    )
    assert torch.equal(module.network.encoder(x, sigma, None), inside.module(x, sigma))


def test_a_file_without_its_frozen_network_is_refused(thirds, tmp_path):
    thirds.run(thirds.train + STAGE)
    for name in ("checkpoint", "denoiser"):
        path = thirds.folder / "02-outer" / f"{name}.safetensors"
        if name == "denoiser":
            weights, metadata = tensors.load(path)
            del metadata["contains"]
            path = tmp_path / "bare.safetensors"
            own = {n: t for n, t in weights.items() if "/" not in n}
            tensors.save(path, own, metadata)
        with raises_code(DataError, Code.DATA, '"denoiser"'):
            load_network(path, thirds.plugins.registry)


def test_one_changed_weight_of_the_frozen_network_is_a_difference(thirds):
    thirds.run(thirds.train + STAGE)
    again = thirds.run(thirds.train + STAGE, "denoiser.optimizer.learning_rate=0.01")[0]
    assert again.ran == ["denoiser", "outer"]


def test_a_frozen_network_among_the_weights_is_refused(thirds):
    with raises_code(DataError, Code.INVALID_RESULT, "genkit.parts.frozen.Frozen"):
        thirds.run(thirds.train + STAGE.replace('"encoded"', '"careless"'))


def test_a_network_that_implements_neither_is_refused(thirds):
    with raises_code(RecipeError, Code.PLUGIN, "build_network", "build", "bind"):
        thirds.load(thirds.train.replace('use = "mlp", width = 8, blocks = 1', 'use = "neither"'))
