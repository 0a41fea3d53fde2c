from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import genkit
from coarse import drawn_coarsely
from genkit.api import run_recipe
from genkit.artifacts import DenoiserFile, DiscriminatorFile, Samples
from genkit.errors import Code, DataError, RecipeError, SettingError, UsageError
from genkit.interfaces import NoiseDistribution, Preconditioned
from genkit.plugin.manager import load_plugins
from genkit.random import generator
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.types import Batch
from genkit_dg.choose import _judge_by_loss, choose_best, explain_choice, select_pairs
from genkit_dg.discrimination import Discrimination
from genkit_dg.guided_denoising import GuidedDenoising
from genkit_dg.held_out import Pairs
from raising import raises_code

pytestmark = pytest.mark.usefixtures("coarse_pictures")

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
coupler = { use = "hungarian" }

[[stage]]
id = "discriminator"
use = "train"
images = 128
batch_size = 64
network = { use = "denoiser-encoder", denoiser = "denoiser", channels = 64, blocks = 1 }
objective = { use = "guided-denoising", denoiser = "denoiser" }
coupler = { use = "hungarian" }

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
data = { use = "real-and-fake", fakes = "fakes" }"""


@pytest.mark.parametrize(
    ("coupler", "valid"),
    [('use = "hungarian"', False), ('use = "partitioned", by = ["realness"]', True)],
)
def test_noise_must_not_be_assigned_across_real_and_generated_items(tmp_path, coupler, valid):
    path = tmp_path / "guided.toml"
    before, after = RECIPE.split('\n[[stage]]\nid = "discriminator"')
    path.write_text(before + FAKES + after.replace('use = "hungarian"', coupler))
    if valid:
        load_recipe(read_source(path), load_plugins())
        return
    with raises_code(RecipeError, Code.SKEWED_NOISE):
        load_recipe(read_source(path), load_plugins())


@pytest.mark.parametrize(("part", "refused"), [("network", False), ("objective", True)])
def test_a_discriminator_that_was_trained_for_another_denoiser_is_refused(tmp_path, part, refused):
    """The encoder may be that of another denoiser."""
    stages = RECIPE.split("[[stage]]")
    stages[1] += "[[stage]]" + stages[1].replace('"denoiser"', '"other"')
    stages[2] = re.sub(f'({part} = .*denoiser = )"denoiser"', r'\1"other"', stages[2])
    path = tmp_path / "guided.toml"
    path.write_text("[[stage]]".join(stages))
    if refused:
        with raises_code(RecipeError, Code.WRONG_REFERENCE, "guidance", part, '"other"'):
            load_recipe(read_source(path), load_plugins())
    else:
        load_recipe(read_source(path), load_plugins())


def test_the_snapshot_with_the_lowest_loss_on_real_items_is_the_best():
    batch, noise = draws(4000)
    context = SimpleNamespace(
        network=lambda _: SimpleNamespace(module=Ideal()),
        generator=lambda *purpose: generator(0, *purpose),
        device=torch.device("cpu"),
    )
    objective = GuidedDenoising(denoiser="d", noise_distribution=One())
    judge = _judge_by_loss(objective, context, Pairs(batch, noise))
    optimal = (REAL - FAKE) / (SPREAD**2 + SIGMA**2)
    judged = {}
    for images, slope in ((100, 0.0), (200, optimal), (300, 2 * optimal)):
        losses = bound().loss(Slope(slope), batch, noise, generator(0)).detach().double()
        judged[images] = judge(Slope(slope))(torch.arange(4000))
        assert judged[images].loss == pytest.approx(float(losses.mean()), rel=1e-6)
        error = float(losses.std()) / 4000**0.5
        assert judged[images].standard_error == pytest.approx(error, rel=1e-6)
    assert choose_best(judged) == 200
    assert "held-out loss of 3 snapshots" in explain_choice(judged)


def test_only_real_items_are_judged_if_the_objective_requires_no_others():
    batch, noise = draws(100)
    realness = (torch.arange(100) % 4 == 0).long()
    pairs = Pairs(replace(batch, realness=realness), noise)
    objective = GuidedDenoising(denoiser="d", noise_distribution=One())
    found = select_pairs(objective, pairs)
    assert_close(found.batch.data, batch.data[::4])
    assert_close(found.noise, noise[::4])
    # Without realness, since the loss of real items is doubled in a batch with generated ones.
    assert found.batch.realness is None
    assert select_pairs(Discrimination(noise_distribution=One()), pairs) is pairs
    with raises_code(DataError, Code.OUT_OF_RANGE, "count"):
        select_pairs(objective, Pairs(pairs.batch[:4], noise[:4]))


CHOSEN = """
[[stage]]
id = "chosen"
use = "choose-discriminator"
discriminator = "discriminator"
count = 64

[[stage]]
id = "samples\""""


def test_snapshots_are_compared_by_the_loss_of_their_own_objective(tmp_path):
    before, after = RECIPE.split('\n[[stage]]\nid = "discriminator"')
    fakes = FAKES.replace('"fakes" }', '"fakes", held_out = 0.2 }')
    after = after.replace('use = "hungarian"', 'use = "partitioned", by = ["realness"]')
    after = after.replace("\n\n", '\naverage = { use = "ema", snapshot_images = 64 }\n', 1)
    after = after.replace('\n[[stage]]\nid = "samples"', CHOSEN)
    (tmp_path / "guided.toml").write_text(before + fakes + after)
    run_recipe(tmp_path / "guided.toml", out=tmp_path / "run", device="cpu")
    folder = tmp_path / "run/04-chosen"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {row["images"]: row["loss"] for row in rows if "images" in row}
    assert list(losses) == [64, 128]
    file = DiscriminatorFile.load(folder / "discriminator.safetensors")
    assert rows[-1]["chosen"] == file.images == min(losses, key=losses.get)
    assert rows[-1]["chosen_by"] == "loss"
    levels = [row for row in rows if "sigma" in row]
    assert len(levels) == 8
    assert all({*row} == {"sigma", "loss", "standard_error"} for row in levels)
    assert (folder / "choice.png").is_file()
    assert not (folder / "warnings.jsonl").exists()
    after = after.replace("snapshot_images = 64", "snapshot_images = 128")
    (tmp_path / "guided.toml").write_text(before + fakes + after)
    run_recipe(tmp_path / "guided.toml", out=tmp_path / "run", device="cpu")
    assert "snapshot_images" in (folder / "warnings.jsonl").read_text()


@pytest.fixture(scope="module")
def guided_run(tmp_path_factory):
    """Run folder of :data:`RECIPE`."""
    folder = tmp_path_factory.mktemp("guided")
    (folder / "guided.toml").write_text(RECIPE)
    with drawn_coarsely():
        run_recipe(folder / "guided.toml", out=folder / "run", device="cpu")
    return folder / "run"


def test_trains_a_discriminator_without_fakes(guided_run):
    samples = Samples.load(guided_run / "03-samples/samples.safetensors")
    assert samples.guidance_nfe > 0
    assert not (guided_run / "03-samples/warnings.jsonl").exists()


@pytest.fixture(scope="module")
def files(guided_run):
    """Files of a discriminator, of its denoiser, and of a denoiser with other weights."""
    file = DenoiserFile.load(guided_run / "01-denoiser/denoiser.safetensors")
    exported, other = guided_run / "exported.safetensors", guided_run / "other.safetensors"
    file.save(exported)
    name, weight = next(iter(file.weights.items()))
    replace(file, weights={**file.weights, name: weight + 1e-3}).save(other)
    return guided_run / "02-discriminator/discriminator.safetensors", exported, other


def test_a_file_of_a_discriminator_guides_only_its_denoiser(files):
    discriminator, exported, other = files
    assert DiscriminatorFile.load(discriminator).gradient_only
    table = {"use": "discriminator", "discriminator": str(discriminator)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        genkit.load_denoiser(exported).bind_guidance(table)
    with raises_code(SettingError, Code.CONFLICT, "discriminator"):
        genkit.load_denoiser(other).bind_guidance(table)
    with raises_code(SettingError, Code.CONFLICT, "boosting"):
        genkit.load_denoiser(exported).bind_guidance({**table, "boosting": True})


def test_a_recipe_with_a_loaded_discriminator_of_another_denoiser_is_refused(files, tmp_path):
    discriminator, own, other = files
    samples = RECIPE[RECIPE.index('[[stage]]\nid = "samples"') :]
    for denoiser in (own, other):
        loads = "".join(
            f'[[stage]]\nid = "{name}"\nuse = "load"\npath = \'{path}\'\n\n'
            for name, path in (("denoiser", denoiser), ("discriminator", discriminator))
        )
        (tmp_path / "loaded.toml").write_text(f'name = "loaded"\n\n{loads}{samples}')
        if denoiser == own:
            load_recipe(read_source(tmp_path / "loaded.toml"), load_plugins())
            continue
        with raises_code(RecipeError, Code.CONFLICT, "guidance", "discriminator"):
            load_recipe(read_source(tmp_path / "loaded.toml"), load_plugins())
