"""The shipped recipes, run from end to end with less of everything."""

from __future__ import annotations

import difflib
import json
import math
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from genkit.api import load_denoiser, run_recipe
from genkit.artifacts import Samples
from genkit.errors import Code, DataError
from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source, shipped_recipes
from genkit.settings import toml_value
from genkit.tensors import file_digest, load
from genkit_metrics.extractors import SHIPPED as SHIPPED_CLASSIFIERS
from genkit_stages import fit_schedule, level_search
from published_data import write_published_data
from raising import raises_code

SHIPPED = shipped_recipes()

TRAINED = {"images": 2_000, "batch_size": 64, "pool_size": 128}

TINY = {
    **{f"denoiser.{key}": value for key, value in TRAINED.items()},
    "denoiser.network.width": 32,
    "samples.count": 100,
    "samples.schedule.steps": 3,
    "scores.metrics.1.count": 16,
    "scores.metrics.1.schedule.steps": 6,
    "scores.metrics.1.schedule.use": "edm",
    "scores.metrics.2.count": 16,
    "scores.metrics.2.steps": [3],
    "scores.metrics.2.schedule.use": "edm",
    "scores.metrics.2.schedule.steps": 6,
}

TINY_GUIDED = {
    **TINY,
    **{f"discriminator.{key}": value for key, value in TRAINED.items()},
    "discriminator.network.channels": 16,
    "fakes.count": 100,
    "fakes.schedule.use": "edm",
    "fakes.schedule.steps": 3,
    "sweep.count": 80,
    "sweep.vary.schedule.steps": [3, 4],
}


@pytest.fixture
def published_data(tmp_path, monkeypatch):
    """A current directory in which recipes find some images of their data, and files."""
    monkeypatch.chdir(tmp_path)
    write_published_data(tmp_path, monkeypatch)


@pytest.fixture
def few_candidates(monkeypatch):
    """Compare candidates of noise levels by few samples; tests of the search use all."""
    for name, count in (("FIRST", 2), ("SECOND", 3), ("FINAL", 4)):
        monkeypatch.setattr(level_search, f"{name}_SAMPLES", count)
    monkeypatch.setattr(fit_schedule, "FINAL_SAMPLES", 4)


TINY_CIFAR10 = {
    "denoiser.images": 64,
    "denoiser.batch_size": 32,
    "denoiser.micro_batch": 8,
    "denoiser.network.channels": 8,
    "denoiser.network.channel_mult": [1, 2],
    "denoiser.network.blocks": 1,
    "denoiser.optimizer.learning_rate_ramp": 64,
    "samples.count": 12,
    "samples.schedule.steps": 3,
}

FITTED = {"levels.steps": 3, "samples-fitted.count": 12, "samples-fitted.schedule.steps": 3}

CURVATURE = {"count": 8, "schedule.use": "edm", "schedule.steps": 4}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_recipe_is_without_mistakes(name, published_data):
    recipe = load_recipe(read_source(name), load_plugins())
    assert recipe.source.text.startswith("# ")  # what the list of recipes says of it


def test_the_published_protocol_scores_three_sets_against_statistics(published_data, tmp_path):
    settings = {"samples.count": 12, "samples.batch_size": 4, "samples.schedule.steps": 3}
    result = run_recipe("cifar10/published", out=tmp_path / "run", settings=settings, device="cpu")
    (row,) = result.scores["scores"]
    named, _ = load(tmp_path / "run" / "02-samples" / "samples.safetensors")
    means = named["samples"].float().div(127.5).sub(1).mean((2, 3)).double().numpy()
    sets = [means[k : k + 4] for k in range(0, 12, 4)]
    wanted = [closed_form(mean.mean(0), np.cov(mean.T)) for mean in sets]
    assert row["fid"] == pytest.approx(np.mean(wanted), rel=1e-5)
    assert row["fid_min"] == pytest.approx(min(wanted), rel=1e-5)
    assert row["fid_std"] == pytest.approx(np.std(wanted, ddof=1), rel=1e-5)


def closed_form(mean, covariance):
    """Return the Fréchet distance to N(0, I)."""
    return mean @ mean + np.trace(covariance + np.eye(3) - 2 * sqrtm(covariance).real)


def test_what_is_shipped():
    assert {"edm", "edm_aot", "edm_aot_cond", "edm_aot_dg", "smoke"} <= set(SHIPPED)
    names = {"uncond_edm", "uncond_edm_aot", "cond_edm", "cond_edm_aot"}
    names |= {"control_random", "control_aot"}
    assert {f"cifar10/{name}" for name in names} <= set(SHIPPED)


def test_edm_and_edm_aot_differ_in_name_coupler_and_pool_alone():
    lines = [SHIPPED[name].read_text().splitlines() for name in ("edm", "edm_aot")]
    changed = [line for line in difflib.ndiff(*lines) if line[0] in "+-"]
    assert changed == [
        '- name = "edm"',
        '+ name = "edm-aot"',
        "- pool_size = 256",
        "+ pool_size = 512",
        '- coupler = { use = "random" }',
        '+ coupler = { use = "hungarian" }',
    ]


def test_the_arms_of_a_comparison_on_cifar10_differ_in_coupler_and_pool_alone():
    def settings(name):
        recipe = tomllib.loads(SHIPPED[f"cifar10/{name}"].read_text())
        denoiser, *others = recipe["stage"]
        return {**denoiser, "coupler": 0, "pool_size": 0}, others, recipe["data"], recipe["seed"]

    assert settings("control_random") == settings("control_aot")
    for kind in ("uncond", "cond"):
        assert settings(f"{kind}_edm")[0] == settings(f"{kind}_edm_aot")[0]
    for control, arm in (("control_random", "uncond_edm"), ("control_aot", "uncond_edm_aot")):
        denoisers = [tomllib.loads(SHIPPED[f"cifar10/{n}"].read_text()) for n in (control, arm)]
        assert denoisers[0]["stage"][0] == denoisers[1]["stage"][0]


@pytest.mark.slow
def test_an_unconditional_recipe_of_cifar10_and_its_control(
    tmp_path, published_data, few_candidates
):
    tiny = {**TINY_CIFAR10, "denoiser.pool_size": 32}
    result = run_recipe(
        "cifar10/uncond_edm_aot",
        out=tmp_path / "run",
        settings={
            **tiny,
            **FITTED,
            **{f"scores.metrics.1.{key}": v for key, v in CURVATURE.items()},
        },
        device="cpu",
    )
    (row,), (fitted,) = result.scores["scores"], result.scores["scores-fitted"]
    assert row["nfe"] == 5  # from noise, as published
    assert fitted["nfe"] == 6  # with the corrected start
    assert min(row["fid"], fitted["fid"]) > 0
    assert row["curvature"] > 0
    # In a copy of that run the control trains nothing anew, as its header says.
    shutil.copytree(result.folder, tmp_path / "control")
    weights = tmp_path / "control" / "01-denoiser" / "denoiser.safetensors"
    before = weights.stat().st_mtime_ns
    control = run_recipe(
        "cifar10/control_aot",
        out=tmp_path / "control",
        settings={
            **tiny,
            **{f"scores.metrics.0.{key}": v for key, v in CURVATURE.items()},
            "name": "cifar10-uncond-edm-aot",
            "sweep.count": 8,
            "sweep.vary.schedule.steps": [2, 3],
        },
        device="cpu",
    )
    assert weights.stat().st_mtime_ns == before
    rows = control.scores["sweep"]
    assert all(row["fid"] > 0 for row in rows)
    assert [(r["schedule.rho"], r["schedule.steps"]) for r in rows] == [
        (7.0, 2),
        (7.0, 3),
        (90.0, 2),
        (90.0, 3),
    ]


def published_class(seed):
    """The class that EDM's generate.py draws after the latent."""
    g = torch.Generator().manual_seed(seed)
    torch.randn(3, 32, 32, generator=g)
    return int(torch.randint(10, (), generator=g))


@pytest.mark.slow
def test_a_conditional_recipe_of_cifar10(tmp_path, published_data, few_candidates):
    result = run_recipe(
        "cifar10/cond_edm_aot",
        out=tmp_path / "run",
        settings={
            **TINY_CIFAR10,
            **FITTED,
            "denoiser.pool_size": 64,
            **{f"scores.metrics.1.{key}": v for key, v in CURVATURE.items()},
        },
        device="cpu",
    )
    named, _ = load(result.folder / "02-samples" / "samples.safetensors")
    assert named["samples"].shape == (12, 3, 32, 32)
    assert named["labels"].tolist() == [published_class(seed) for seed in range(12)]
    lines = (result.folder / "01-denoiser" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["pool"] for row in rows if "pool" in row] == [0]
    assert all(math.isfinite(row["loss"]) for row in rows if "loss" in row)


def check_folder(folder, stages, text):
    """Check what the folder of a finished run holds, whatever its recipe."""
    assert (folder / "recipe.toml").read_text() == text
    assert "\nimages = 2000\n" in (folder / "resolved.toml").read_text()
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["set"][0] == "denoiser.images=2000"
    assert [p.name[3:] for p in sorted(folder.glob("[0-9][0-9]-*"))] == stages
    assert all(json.loads(p.read_text())["finished"] for p in folder.glob("*/state.json"))
    for png in folder.rglob("*.png"):
        with Image.open(png) as image:
            assert min(image.size) >= 64
    drawn = {"preview-raw.png", "preview-averaged.png", "during-training"}
    previews = drawn if '"preview"' in text else set()
    for stage in folder.glob("*-denoiser"):
        assert {p.name for p in stage.iterdir()} == previews | {
            "state.json",
            "metrics.jsonl",
            "loss.png",
            "loss-by-sigma.png",
            "pairs.png",
            "checkpoint.safetensors",
            "denoiser.safetensors",
        }


def test_the_recipe_for_few_steps(tmp_path):
    tiny = {key: value for key, value in TINY.items() if key.startswith("denoiser.")}
    tiny["samples.count"] = 100
    result = run_recipe("edm_aot_few_steps", out=tmp_path / "run", settings=tiny, device="cpu")
    stages = ["denoiser", "levels", "samples", "scores"]
    check_folder(result.folder, stages, SHIPPED["edm_aot_few_steps"].read_text())
    (row,) = result.scores["scores"]
    assert row["nfe"] == 8  # four Heun steps, and the corrected start
    assert row["spread_pixels"] > 0


def test_the_conditional_recipe(tmp_path):
    result = run_recipe("edm_aot_cond", out=tmp_path / "run", settings=TINY, device="cpu")
    check_folder(
        result.folder,
        ["denoiser", "samples", "scores"],
        SHIPPED["edm_aot_cond"].read_text(),
    )
    named, _ = load(result.folder / "02-samples" / "samples.safetensors")
    assert named["samples"].shape == (100, 1, 8, 8)
    assert named["labels"].tolist() == [k % 10 for k in range(100)]
    (row,) = result.scores["scores"]
    assert row["nfe"] == 6  # with the corrected start
    assert row["guidance_nfe"] == 0
    drawn = result.denoiser(device="cpu").sample(4, schedule={"steps": 2}, labels=[7, 7, 7, 7])
    assert drawn.shape == (4, 1, 8, 8)


def test_the_guided_recipe(tmp_path):
    result = run_recipe("edm_aot_dg", out=tmp_path / "run", settings=TINY_GUIDED, device="cpu")
    stages = ["denoiser", "fakes", "discriminator", "samples", "scores", "sweep"]
    folder = result.folder
    check_folder(folder, stages, SHIPPED["edm_aot_dg"].read_text())
    with raises_code(DataError, Code.WRONG_KIND, "denoiser", "discriminator"):
        load_denoiser(folder / "03-discriminator" / "discriminator.safetensors", "cpu")
    assert (folder / "04-samples" / "samples.png").is_file()
    rows = result.scores["sweep"]
    assert [(r["schedule.steps"], r["guidance.weight"], r["nfe"]) for r in rows] == [
        (3, 0.0, 6),
        (3, 1.0, 6),
        (4, 0.0, 8),
        (4, 1.0, 8),
    ]
    assert [row["guidance_nfe"] > 0 for row in rows] == [False, True, False, True]
    results = json.loads((folder / "results.json").read_text())
    pictures = {picture.split("/")[1] for picture in results["pictures"]}
    assert {"loss.png", "samples.png", "curvature.png"} <= pictures
    assert any(picture.endswith("against-nfe.png") for picture in pictures)
    # The hash of the classifier is recorded with every score that it gave.
    digest = file_digest(SHIPPED_CLASSIFIERS["digits"])
    for stage in ("scores", "sweep"):
        assert digest[:12] in str(results["stages"][stage]["facts"])


TINY_CHOSEN = {
    "discriminator.average.snapshot_images": 64,
    "chosen.count": 64,
    "weight.count": 32,
    "weight.schedule.steps": 2,
    "tried.count": 12,
    "tried.schedule.steps": 3,
    "sweep.count": 12,
    "sweep.vary.guidance.weight": [0.0, 1.0],
}
"""Settings of the stages that choose a snapshot and a weight."""


def chosen_settings(folder, stage="samples"):
    """Return what the samples of a run record of the settings that they took from a sweep."""
    (path,) = folder.glob(f"*-{stage}/samples.safetensors")
    return json.loads(Samples.load(path).facts["settings_from"])


@pytest.mark.slow
def test_the_guided_conditional_recipe(tmp_path):
    settings = {**TINY_CHOSEN, **{k: v for k, v in TINY.items() if k.startswith("denoiser.")}}
    settings |= {f"discriminator.{key}": value for key, value in TRAINED.items()}
    settings |= {"discriminator.average.snapshot_images": 1_000, "fakes.count": 600}
    settings |= {"fakes.schedule.steps": 2, "samples.count": 64, "sweep.count": 70}
    settings |= {"sweep.vary.schedule.steps": [3]}
    result = run_recipe("edm_aot_cond_dg", out=tmp_path / "run", settings=settings, device="cpu")
    assert chosen_settings(result.folder)["candidates"] == 2
    rows = (next(result.folder.glob("*-chosen")) / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["chosen"] in (1_000, 2_000)
    assert (next(result.folder.glob("*-weight")) / "weight.json").is_file()


TINY_DISCRIMINATOR = {
    "discriminator.images": 128,
    "discriminator.batch_size": 32,
    "fakes.count": 60,
    "fakes.schedule.steps": 2,
    "samples.count": 12,
    "samples.schedule.steps": 3,
}
SMALL_HEAD = {"discriminator.network.channels": 64, "discriminator.network.blocks": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cifar10/uncond_edm_aot_dg", {**TINY_CIFAR10, **TINY_CHOSEN, "denoiser.pool_size": 32}),
        (
            "cifar10/published_dg",
            {
                "discriminator.images": 32,
                "discriminator.batch_size": 16,
                "fakes.count": 16,
                "samples.count": 4,
            },
        ),
    ],
)
def test_a_guided_recipe_of_cifar10(tmp_path, published_data, name, settings):
    tiny = {**TINY_DISCRIMINATOR, **SMALL_HEAD, **settings}
    if "aot" in name:
        tiny["discriminator.pool_size"] = 64
    result = run_recipe(name, out=tmp_path / "run", settings=tiny, device="cpu")
    (row,) = result.scores["scores"]
    assert row["fid"] > 0
    (path,) = result.folder.glob("*-samples/samples.safetensors")
    samples = Samples.load(path)
    if "aot" in name:
        assert chosen_settings(result.folder)["rule"] == "min fid"
    else:  # the first slope of a step alone is guided, and no level below 0.0447
        assert samples.guidance_nfe == 2


@pytest.mark.slow
def test_the_recipe_of_trajectories(tmp_path):
    tiny = {"network.width": 32, "images": 2_000, "batch_size": 64, "pool_size": 128}
    settings = {f"{stage}.{key}": v for stage in ("random", "aot") for key, v in tiny.items()}
    for arm in ("random", "aot"):
        settings |= {f"{arm}-samples.count": 100}
        settings |= {f"{arm}-scores.metrics.{k}.count": 16 for k in range(3)}
    result = run_recipe("moons_trajectories", out=tmp_path / "run", settings=settings, device="cpu")
    scores = ["straightness", "curvature", "truncation_5", "truncation_9", "truncation_18"]
    for place in ("03-random", "06-aot"):
        assert (result.folder / f"{place}-scores" / "trajectories.png").is_file()
        (row,) = result.scores[f"{place[3:]}-scores"]
        assert list(row) == ["nfe", "guidance_nfe", *scores, "frechet_pixels"]


def test_the_arms_of_the_trajectories_differ_in_coupler_alone():
    random, *_, aot, _, _ = tomllib.loads(SHIPPED["moons_trajectories"].read_text())["stage"]
    assert {**aot, "id": "random", "coupler": random["coupler"]} == random


def test_the_smoke_recipe_on_the_command_line(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "genkit", "run", "smoke", "--device", "cpu"]
    settings = {"denoiser.images": 2_000, "samples.count": 200}
    for key, value in settings.items():
        command += ["--set", f"{key}={toml_value(value)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Scores of scores" in done.stdout
    assert done.stdout.endswith("Everything is in runs/smoke\nReport: runs/smoke/report.html\n")
    assert "[1/3] denoiser (train): started" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert (tmp_path / "runs/smoke/results.json").is_file()
