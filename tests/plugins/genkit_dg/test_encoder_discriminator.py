from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

import genkit
from genkit.api import run_recipe
from genkit.artifacts import DiscriminatorFile, Samples
from genkit.errors import Code, DataError, RecipeError
from genkit.interfaces import Trained
from genkit.networks import NetworkInputs, load_network
from genkit.plugin.manager import load_plugins
from genkit.random import generator, seeded
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.types import DataSpec
from genkit_dg.encoder_discriminator import DenoiserEncoder
from raising import raises_code

pytestmark = pytest.mark.usefixtures("coarse_pictures")

SPEC = DataSpec((1, 8, 8), classes=3)


def unet(**settings):
    small = {"channels": 8, "channel_mult": [1, 2], "blocks": 1, "attention": [4]}
    return genkit.component("denoiser", "ddpmpp", **(small | settings))


def trained(settings, spec=SPEC):
    with seeded(0):
        module = settings.build(spec)
        with torch.no_grad():  # the last layers start near 0
            for parameter in module.parameters():
                parameter.normal_(0, 0.1)
    return Trained(settings, spec, module.eval().requires_grad_(False))


def built(denoiser, spec=SPEC, **settings):
    inputs = NetworkInputs(torch.device("cpu"), given={"denoiser": denoiser})
    small = {"channels": 64, "blocks": 1}
    network = DenoiserEncoder(denoiser="denoiser", **(small | settings)).bind(inputs)
    with seeded(1):
        return network.build(spec)


def shaken(network):
    """Return the network with weights that are not 0 anywhere."""
    with seeded(2), torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def draws(spec=SPEC):
    draw = generator(0, "x")
    x = torch.randn(3, *spec.shape, generator=draw)
    return x, torch.tensor([0.05, 1.0, 40.0]), torch.tensor([0, 1, 2])


def test_stands_on_the_features_of_the_denoiser_at_its_own_scaling():
    denoiser = trained(unet())
    network = shaken(built(denoiser))
    x, sigma, labels = draws()
    c = denoiser.settings.preconditioner.coefficients(sigma)
    seen = []
    block = denoiser.module.network.middle[-1]
    handle = block.register_forward_hook(lambda *call: seen.append(call[2]))
    denoiser.module.network(c.c_in[:, None, None, None] * x, c.c_noise, None)
    features = network.features(x, sigma, labels)
    handle.remove()
    assert_close(features, seen[0])
    assert features.shape == (3, 16, 4, 4)


@pytest.mark.parametrize("conditional", [False, True])
def test_only_the_head_is_trained_and_saved(conditional):
    denoiser = trained(unet(class_conditional=conditional))
    network = built(denoiser, class_conditional=conditional)
    assert all(name.startswith("head.") for name in network.state_dict())
    assert copy.deepcopy(network).features is network.features
    x, sigma, labels = draws()
    network(x, sigma, labels).sum().backward()
    assert all(p.grad is None for p in denoiser.module.parameters())


def test_gives_a_gradient_to_its_input_through_the_frozen_encoder():
    network = shaken(built(trained(unet()))).double()
    network.features.module.double()
    x, sigma, _ = (values.double() if values.is_floating_point() else values for values in draws())
    point = x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(point, sigma).sum(), point)
    with torch.no_grad():
        step = torch.zeros_like(x)
        step[:, 0, 3, 4] = 1e-5
        slope = (network(x + step, sigma) - network(x - step, sigma)) / 2e-5
    assert_close(gradient[:, 0, 3, 4], slope, rtol=1e-4, atol=1e-9)


def test_an_item_does_not_depend_on_its_batch():
    network = shaken(built(trained(unet(class_conditional=True)), class_conditional=True))
    x, sigma, labels = draws()
    together = network(x, sigma, labels)
    alone = torch.cat(
        [network(x[k : k + 1], sigma[k : k + 1], labels[k : k + 1]) for k in range(3)]
    )
    assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert bool((network(x, sigma, labels.roll(1)) != together).all())


@pytest.mark.parametrize(
    ("denoiser", "spec", "settings", "code"),
    [
        (unet(), DataSpec((1, 16, 16)), {}, Code.WRONG_SHAPE),
        (unet(class_conditional=True), SPEC, {}, Code.CONFLICT),
        (genkit.component("denoiser", "mlp", width=8, blocks=1), SPEC, {}, Code.CONFLICT),
    ],
    ids=["shape", "classes", "no encoder"],
)
def test_a_denoiser_that_does_not_fit_is_refused(denoiser, spec, settings, code):
    with raises_code(DataError, code):
        built(trained(denoiser), spec, **settings)


def test_a_head_of_no_whole_number_of_attention_heads_is_refused():
    assert not list(DenoiserEncoder(denoiser="d").check({}))
    (problem,) = DenoiserEncoder(denoiser="d", channels=96).check({})
    assert problem.code == Code.OUT_OF_RANGE


RECIPE = """
name = "guided"
data = { use = "digits" }

[[stage]]
id = "denoiser"
use = "train"
images = 256
batch_size = 64
network = { use = "UNET" }
objective = { use = "denoising" }

[[stage]]
id = "fakes"
use = "sample"
denoiser = "denoiser"
count = 32
schedule = { use = "edm", steps = 2 }

[[stage]]
id = "discriminator"
use = "train"
images = 128
batch_size = 64
data = { use = "real-and-fake", fakes = "fakes", labels = LABELS }
network = { use = "denoiser-encoder", denoiser = "denoiser", channels = 64, blocks = 1, HEAD }
objective = { use = "discrimination" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 8
schedule = { use = "edm", steps = 3 }
guidance = [{ use = "discriminator", discriminator = "discriminator" }]
"""

SMALL = 'ddpmpp", channels = 8, channel_mult = [1, 2], blocks = 1, attention = [4], dropout = 0.0'


def recipe(folder, network=SMALL, head="class_conditional = false", labels="false"):
    text = RECIPE.replace('UNET"', network).replace("HEAD", head).replace("LABELS", labels)
    path = folder / "guided.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("conditional", ["false", "true"])
def test_guides_in_a_recipe_and_its_file_needs_nothing_else(tmp_path, conditional):
    condition = f"class_conditional = {conditional}"
    path = recipe(tmp_path, f"{SMALL}, {condition}", condition, conditional)
    run_recipe(path, out=tmp_path / "run", device="cpu")
    samples = Samples.load(tmp_path / "run/04-samples/samples.safetensors")
    assert samples.guidance_nfe > 0
    file = tmp_path / "run/03-discriminator/discriminator.safetensors"
    assert {*DiscriminatorFile.load(file).contained} == {"denoiser"}
    moved = tmp_path / "elsewhere.safetensors"
    file.rename(moved)
    network = load_network(moved, load_plugins().registry)
    x, sigma, labels = draws()
    assert bool(network.module(x, sigma, labels).isfinite().all())


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({}, []),
        ({"network": 'mlp", width = 8'}, [Code.CONFLICT]),
        ({"network": f"{SMALL}, class_conditional = true"}, [Code.CONFLICT]),
        ({"head": "class_conditional = true", "labels": "true"}, [Code.MISSING_ATTRIBUTE]),
    ],
    ids=["valid", "no encoder", "the denoiser takes classes", "the denoiser takes no classes"],
)
def test_what_does_not_fit_is_refused_before_anything_runs(tmp_path, change, codes):
    path = recipe(tmp_path, **change)
    if not codes:
        load_recipe(read_source(path), load_plugins())
        return
    with raises_code(RecipeError, codes[0]):
        load_recipe(read_source(path), load_plugins())
