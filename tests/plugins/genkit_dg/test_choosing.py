from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import genkit
from genkit.api import run_recipe
from genkit.artifacts import DiscriminatorFile, Samples
from genkit.errors import Code, DataError, RecipeError
from genkit.interfaces import Trained
from genkit.networks import load_network
from genkit.parts.snapshots import snapshots_in
from genkit.plugin.manager import load_plugins
from genkit.random import generator
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.tensors import load, network_digest
from genkit.types import Batch
from genkit_dg.choose import choose_best, explain_choice
from genkit_dg.fit_weight import Level, _level, _warnings
from genkit_dg.fitted_weight import FittedWeight
from genkit_dg.guidance import DiscriminatorGuidance
from genkit_dg.held_out import Pairs
from genkit_dg.judgment import (
    Judgment,
    ObjectiveLoss,
    describe_chance,
    number_items,
    score_by_sigma,
)
from raising import raises_code

pytestmark = pytest.mark.usefixtures("coarse_pictures")

SPREAD, REAL, FAKE = 0.5, 0.3, -0.2


class Ideal(nn.Module):
    """The denoiser of fakes from N(FAKE, SPREAD^2)."""

    def forward(self, x, sigma, labels=None):
        share = SPREAD**2 / (SPREAD**2 + sigma.square())
        return FAKE + share[:, None] * (x - FAKE)


class Optimal(nn.Module):
    """The log-ratio of N(REAL, v) and N(FAKE, v), v = SPREAD^2 + sigma^2, times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, x, sigma, labels=None):
        v = SPREAD**2 + sigma.square()
        slope = (REAL - FAKE) / v
        return self.factor * (slope[:, None] * (x - (REAL + FAKE) / 2)).sum(1)


def pairs(count=20_000):
    draw = generator(0, "pairs")
    realness = torch.arange(count) % 2
    means = torch.where(realness == 1, REAL, FAKE)[:, None]
    data = means + SPREAD * torch.randn(count, 2, generator=draw)
    return Pairs(Batch(data, realness=realness), torch.randn(count, 2, generator=draw))


def measured(discriminator, sigma, of=None):
    context = SimpleNamespace(device=torch.device("cpu"), generator=lambda *_: generator(0, "u"))
    denoiser = Trained(None, None, Ideal())
    of = of or pairs()
    items = number_items(of.with_realness(1).batch.data)
    return _level(denoiser, Trained(None, None, discriminator), of, items, sigma, 0.0, context)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("factor", [1.0, 2.0, -0.5])
def test_weight_of_an_optimal_discriminator_is_1(sigma, factor):
    # With independent noise the mean of y - D given x is the correction itself.
    level = measured(Optimal(factor), sigma)
    assert abs(level.weight - 1 / factor) < 4 * level.standard_error
    # The standard error is that of a regression whose residual is the noise of y given x.
    variance = SPREAD**2 * sigma**2 / (SPREAD**2 + sigma**2)
    g = sigma**2 * (REAL - FAKE) / (SPREAD**2 + sigma**2)
    wanted = math.sqrt(variance / (2 * g**2 * 10_000)) / abs(factor)
    assert level.standard_error == pytest.approx(wanted, rel=0.05)
    # Relative errors follow from variance and squared correction.
    base = 2 * (variance + g**2)
    with_one = 2 * (variance + (1 - factor) ** 2 * g**2)
    assert level.error_at_one == pytest.approx(with_one / base, rel=0.02)
    fitted = 2 * variance if factor > 0 else base
    assert level.error_fitted == pytest.approx(fitted / base, rel=0.02)


def test_log_ratios_are_means_over_each_source():
    level = measured(Optimal(), 1.0)
    divergence = 2 * (REAL - FAKE) ** 2 / (2 * (SPREAD**2 + 1))
    assert level.log_ratio_real == pytest.approx(divergence, abs=0.03)
    assert level.log_ratio_fakes == pytest.approx(-divergence, abs=0.03)
    assert level.log_ratio_unpaired == pytest.approx(-divergence, abs=0.03)


def test_scores_are_those_of_their_definitions():
    draw = generator(0, "logits")
    logits = 2 * torch.randn(4000, generator=draw, dtype=torch.float64)
    realness = (torch.rand(4000, generator=draw) < torch.sigmoid(logits + 0.5)).long()
    found = Judgment.of(logits, realness, torch.arange(4000))
    p, y = torch.sigmoid(logits).numpy(), realness.numpy()
    losses = -np.log(np.where(y == 1, p, 1 - p))
    assert found.cross_entropy == pytest.approx(losses.mean())
    assert found.standard_error == pytest.approx(losses.std(ddof=1) / math.sqrt(4000))
    assert found.accuracy == pytest.approx(np.mean((p > 0.5) == y))
    parts = [(p >= k / 10) & (p < (k + 1) / 10) for k in range(10)]
    error = sum(part.sum() * abs(p[part].mean() - y[part].mean()) for part in parts) / 4000
    assert found.calibration_error == pytest.approx(error)
    assert not found.is_chance
    nothing = torch.zeros(100, dtype=torch.float64)
    assert Judgment.of(nothing, realness[:100], torch.arange(100)).is_chance


def test_repeated_items_make_no_score_more_certain():
    draw = generator(0, "repeated")
    data = pairs(200).batch.data.repeat(4, 1)
    items = number_items(data)
    assert items.tolist() == 4 * list(range(200))
    # The mean of each draw is that of its item, with fresh noise of a tenth of the deviation.
    losses = data.sum(1).double() + 0.05 * torch.randn(800, generator=draw).double()
    found = ObjectiveLoss.of(losses, items).standard_error
    assert found == pytest.approx(float(data[:200].sum(1).std()) / math.sqrt(200), rel=0.05)
    assert ObjectiveLoss.of(losses, torch.arange(800)).standard_error < 0.6 * found


def test_the_weight_of_repeated_items_has_the_error_of_the_items():
    once = pairs(2000)
    several = Pairs(once.batch[torch.arange(2000).repeat(4)], once.noise.repeat(4, 1))
    found, wanted = (measured(Optimal(), 0.5, of).standard_error for of in (several, once))
    assert found == pytest.approx(wanted)


def test_a_weight_requires_two_real_items_that_differ():
    fit = genkit.component("stage", "fit-weight", discriminator="d", denoiser="n")
    fit._require_two(torch.tensor([0, 1, 1]))
    with raises_code(DataError, Code.WRONG_LENGTH, "held_out"):
        fit._require_two(torch.tensor([3, 3]))


def test_the_warning_about_chance_names_the_limit_that_was_compared():
    judgment = Judgment(
        cross_entropy=0.69, standard_error=0.01, accuracy=0.5, calibration_error=0.0
    )
    assert judgment.is_chance
    assert f"{math.log(2) - 0.02:.4f}" in describe_chance(judgment)
    assert not replace(judgment, cross_entropy=0.67).is_chance


def test_scores_by_noise_level_are_those_of_equal_parts():
    logits = torch.linspace(-1, 1, 160, dtype=torch.float64)
    realness, sigma = torch.arange(160) % 2, torch.linspace(0.1, 10, 160).flip(0)
    found = score_by_sigma(sigma, lambda part: Judgment.of(logits[part], realness[part], part))
    assert len(found) == 8
    _, lowest = min(found, key=lambda entry: entry[0])
    assert lowest == Judgment.of(logits[-20:].flip(0), realness[-20:].flip(0), torch.arange(20))
    sizes = [size for _, size in score_by_sigma(torch.linspace(0.1, 10, 17), len)]
    assert sorted(sizes) == [2] * 7 + [3]
    # Equal noise levels, of which a network may know few, are parts all the same.
    assert len(score_by_sigma(torch.ones(160), len)) == 8


def judgment(entropy):
    return Judgment(entropy, 0.01, 0.7, 0.02)


def test_the_lowest_cross_entropy_is_chosen_and_the_reason_stated():
    judged = {100: judgment(0.6), 200: judgment(0.5), 300: judgment(0.5), 400: judgment(0.55)}
    assert choose_best(judged) == 200
    assert all(part in explain_choice(judged) for part in ("200 images", "0.5000", "0.5500", "400"))


def level(sigma, weight, error=0.9):
    return Level(sigma, weight, 0.01, error, 0.9, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("levels", "entropy", "words"),
    [
        ([level(1, 0.9)], 0.5, []),
        ([level(1, 0.9)], 0.69, ["cross-entropy"]),
        ([level(1, 0.05), level(2, -0.1)], 0.5, ["near 0"]),
        ([level(1, 0.9), level(20, 0.01, 5.0)], 0.5, ["sigma = 20"]),
    ],
)
def test_warnings_name_what_would_harm(levels, entropy, words):
    found = list(_warnings(levels, judgment(entropy)))
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))
    # The cross-entropy of an output without a meaning is not judged.
    assert len(list(_warnings(levels, None))) == len(words) - (words == ["cross-entropy"])


FITTED = FittedWeight(
    [0.1, 1.0, 10.0], [1.0, 0.5, -0.2], [0.1] * 3, [1.0] * 3, [1.0] * 3, "sha256:a", "sha256:b"
)


def test_weights_between_the_levels_are_linear_in_log_sigma(tmp_path):
    sigma = torch.tensor([0.05, 0.1, 10**-0.5, 1.0, 10**0.5, 10.0, 20.0])
    FITTED.save(tmp_path / "weight.json")
    found = FittedWeight.load(tmp_path / "weight.json").on(torch.device("cpu"))
    assert_close(found(sigma), torch.tensor([0, 1, 0.75, 0.5, 0.25, 0, 0]), atol=1e-5, rtol=0)
    assert found(sigma.reshape(1, 7, 1)).shape == (1, 7, 1)
    alone = FittedWeight([1.0], [0.7], [0.1], [1.0], [1.0], "", "").on(torch.device("cpu"))
    assert_close(alone(torch.tensor([0.5, 1.0, 2.0])), torch.tensor([0, 0.7, 0]))


def guided(fitted, denoiser, **settings):
    inputs = SimpleNamespace(
        network=lambda _: Trained(None, None, Optimal()),
        read=lambda stage, kind: fitted,
        device=torch.device("cpu"),
    )
    guidance = DiscriminatorGuidance(discriminator="d", weight_by="w", **settings)
    return guidance.bind(inputs, Trained(None, None, denoiser))


def test_guidance_uses_the_weight_at_its_noise_level():
    fitted = replace(
        FITTED, denoiser=network_digest(Ideal()), discriminator=network_digest(Optimal())
    )
    x, sigma = torch.randn(3, 2, generator=generator(0, "x")), torch.tensor([0.1, 1.0, 10.0])
    found = guided(fitted, Ideal(), weight=3.0).correction(x, sigma, None, x)
    slope = sigma.square() * (REAL - FAKE) / (SPREAD**2 + sigma.square())
    wanted = 3 * torch.tensor([1.0, 0.5, 0.0]) * slope
    assert_close(found, wanted[:, None].expand(3, 2), rtol=1e-4, atol=1e-6)


def test_the_digest_of_a_network_is_computed_once(monkeypatch):
    hashed = []
    monkeypatch.setattr(
        "genkit.interfaces.base.network_digest",
        lambda network: hashed.append(network) or network_digest(network),
    )
    denoiser, discriminator = Trained(None, None, Ideal()), Trained(None, None, Optimal())
    belonging = replace(discriminator, denoiser_digest=network_digest(Ideal()))
    fitted = replace(
        FITTED, denoiser=network_digest(Ideal()), discriminator=network_digest(Optimal())
    )
    inputs = SimpleNamespace(
        network=lambda _: belonging, read=lambda *_: fitted, device=torch.device("cpu")
    )
    for _ in range(2):
        DiscriminatorGuidance(discriminator="d", weight_by="w").bind(inputs, denoiser)
    assert sorted(type(network).__name__ for network in hashed) == ["Ideal", "Optimal"]


def test_a_weight_of_other_networks_is_refused():
    with raises_code(DataError, Code.CONFLICT, "discriminator"):
        guided(FITTED, Ideal())
    other = replace(FITTED, discriminator=network_digest(Optimal()))
    with raises_code(DataError, Code.CONFLICT, "denoiser"):
        guided(other, Ideal())
    stages = {"w": SimpleNamespace(discriminator="other")}
    settings = DiscriminatorGuidance(discriminator="d", weight_by="w")
    assert [problem.code for problem in settings.check(stages)] == [Code.WRONG_REFERENCE]
    assert not list(settings.check({"w": SimpleNamespace(discriminator="d")}))


@pytest.mark.parametrize(
    "change", [{"sigmas": [1.0, 0.1, 10.0]}, {"weights": [1.0]}, {"sigmas": "a"}, {"other": 1}]
)
def test_a_damaged_file_of_weights_is_refused(tmp_path, change):
    path = tmp_path / "weight.json"
    FITTED.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with raises_code(DataError, Code.UNREADABLE, "fit-weight"):
        FittedWeight.load(path)


RECIPE = """
name = "chosen"
data = { use = "digits" }

[[stage]]
id = "denoiser"
use = "train"
images = 256
batch_size = 64
network = { use = "mlp", width = 16, blocks = 1 }
objective = { use = "denoising" }

[[stage]]
id = "fakes"
use = "sample"
denoiser = "denoiser"
count = 256
schedule = { use = "edm", steps = 2 }

[[stage]]
id = "discriminator"
use = "train"
images = 640
batch_size = 64
data = { use = "real-and-fake", fakes = "fakes", HELD_OUT }
network = { use = "mlp-discriminator", width = 16, blocks = 1 }
objective = { use = "discrimination" }
coupler = { use = "partitioned", by = ["realness"] }
average = { use = "AVERAGE", half_life = 0, SNAPSHOTS }

[[stage]]
id = "chosen"
use = "choose-discriminator"
discriminator = "discriminator"
count = 256

[[stage]]
id = "weight"
use = "fit-weight"
discriminator = "chosen"
denoiser = "denoiser"
count = 64
schedule = { use = "edm", steps = 20 }
solver = { use = "heun", s_churn = 80.0, s_max = 70.0 }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 8
schedule = { use = "edm", steps = 3 }
guidance = [{ use = "discriminator", discriminator = "chosen", weight_by = "weight" }]
"""


def recipe(folder, held_out="held_out = 0.2", snapshots="snapshot_images = 320", average="ema"):
    path = folder / "chosen.toml"
    text = RECIPE.replace("HELD_OUT", held_out).replace("SNAPSHOTS", snapshots)
    path.write_text(text.replace("AVERAGE", average))
    return path


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_snapshot_is_chosen_and_its_weight_fitted(tmp_path):
    run_recipe(recipe(tmp_path), out=tmp_path / "run", device="cpu")
    training = tmp_path / "run/03-discriminator"
    snapshots = snapshots_in(training)
    assert list(snapshots) == [320, 640]
    last, _ = load(snapshots[640])
    final = DiscriminatorFile.load(training / "discriminator.safetensors")
    assert all(torch.equal(last[name], weight) for name, weight in final.weights.items())
    rows = rows_of(tmp_path / "run/04-chosen")
    judged = {row["images"]: row["cross_entropy"] for row in rows if "images" in row}
    chosen = DiscriminatorFile.load(tmp_path / "run/04-chosen/discriminator.safetensors")
    assert rows[-1]["chosen"] == chosen.images == min(judged, key=judged.get)
    assert rows[-1]["chosen_by"] == "cross_entropy"
    wanted, _ = load(snapshots[chosen.images])
    assert all(torch.equal(wanted[name], weight) for name, weight in chosen.weights.items())
    path = tmp_path / "run/01-denoiser/denoiser.safetensors"
    denoiser = load_network(path, load_plugins().registry)
    assert final.denoiser_digest == chosen.denoiser_digest == network_digest(denoiser.module)
    assert not chosen.gradient_only
    assert not (tmp_path / "run/06-samples/warnings.jsonl").exists()
    assert len([row for row in rows if "sigma" in row]) == 8
    fitted = FittedWeight.load(tmp_path / "run/05-weight/weight.json")
    # The noise that the solver adds raises the second level above the first.
    assert fitted.sigmas == sorted(fitted.sigmas)
    assert len(fitted.sigmas) == 20
    assert fitted.sigmas[-1] > 80.0
    samples = Samples.load(tmp_path / "run/06-samples/samples.safetensors")
    assert samples.guidance_nfe > 0
    for name in ("04-chosen/choice.png", "05-weight/weight.png"):
        assert (tmp_path / "run" / name).is_file()


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({}, []),
        ({"held_out": "held_out = 0.0"}, ["chosen", "weight"]),
        ({"snapshots": "ramp_up = 0.0"}, ["chosen"]),
        ({"average": "power-ema"}, ["chosen"]),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_runs(tmp_path, change, stages):
    path = recipe(tmp_path, **change)
    if not stages:
        load_recipe(read_source(path), load_plugins())
        return
    with raises_code(RecipeError, Code.CONFLICT, *stages):
        load_recipe(read_source(path), load_plugins())
