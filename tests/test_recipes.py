"""The shipped recipes, run from end to end with less of everything."""

from __future__ import annotations

import difflib
import json
import subprocess
import sys

import pytest
from PIL import Image

from genkit.api import load_denoiser, run_recipe
from genkit.errors import DataError
from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source, shipped_recipes
from genkit.settings import toml_value
from genkit.tensors import file_digest, load

SHIPPED = shipped_recipes()

TRAINED = {"images": 2_000, "batch_size": 64, "pool_size": 128}

TINY = {
    **{f"denoiser.{key}": value for key, value in TRAINED.items()},
    "denoiser.network.width": 32,
    "classifier.images": 640,
    "classifier.network.channels": 4,
    "samples.count": 100,
    "samples.schedule.steps": 3,
    "scores.metrics.1.count": 16,
    "scores.metrics.1.schedule.steps": 6,
    "scores.metrics.1.schedule.use": "edm",
    "scores.metrics.2.count": 16,
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


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_recipe_is_without_mistakes(name):
    recipe = load_recipe(read_source(name), load_plugins())
    assert recipe.next  # every recipe ends with something to try next
    assert recipe.source.text.startswith("# ")  # what the list of recipes says of it


def test_what_is_shipped():
    assert {"edm", "edm_aot", "edm_aot_cond", "edm_aot_dg", "smoke"} <= set(SHIPPED)


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
    for stage in folder.glob("*-denoiser"):
        assert {p.name for p in stage.iterdir()} == {
            "state.json",
            "metrics.jsonl",
            "loss.png",
            "pairs.png",
            "checkpoint.safetensors",
            "denoiser.safetensors",
        }


def test_the_conditional_recipe(tmp_path):
    result = run_recipe("edm_aot_cond", out=tmp_path / "run", settings=TINY, device="cpu")
    check_folder(
        result.folder,
        ["denoiser", "classifier", "samples", "scores"],
        SHIPPED["edm_aot_cond"].read_text(),
    )
    named, _ = load(result.folder / "03-samples" / "samples.safetensors")
    assert named["samples"].shape == (100, 1, 8, 8)
    assert named["labels"].tolist() == [k % 10 for k in range(100)]
    (row,) = result.scores["scores"]
    assert row["nfe"] == 5
    assert row["guidance_nfe"] == 0
    drawn = result.denoiser(device="cpu").sample(4, schedule={"steps": 2}, labels=[7, 7, 7, 7])
    assert drawn.shape == (4, 1, 8, 8)


def test_the_guided_recipe(tmp_path):
    result = run_recipe("edm_aot_dg", out=tmp_path / "run", settings=TINY_GUIDED, device="cpu")
    stages = ["denoiser", "classifier", "fakes", "discriminator", "samples", "scores", "sweep"]
    folder = result.folder
    check_folder(folder, stages, SHIPPED["edm_aot_dg"].read_text())
    with pytest.raises(DataError, match="is a discriminator, not a denoiser"):
        load_denoiser(folder / "04-discriminator" / "discriminator.safetensors", "cpu")
    assert (folder / "05-samples" / "samples.png").is_file()
    rows = result.scores["sweep"]
    assert [(r["schedule.steps"], r["guidance.weight"], r["nfe"]) for r in rows] == [
        (3, 0.0, 5),
        (3, 1.0, 5),
        (4, 0.0, 7),
        (4, 1.0, 7),
    ]
    assert [row["guidance_nfe"] > 0 for row in rows] == [False, True, False, True]
    results = json.loads((folder / "results.json").read_text())
    pictures = {picture.split("/")[1] for picture in results["pictures"]}
    assert {"loss.png", "samples.png", "curvature.png"} <= pictures
    assert any(picture.endswith("against-nfe.png") for picture in pictures)
    # The hash of the classifier is recorded with every score that it gave.
    digest = file_digest(folder / "02-classifier" / "classifier.safetensors")
    for stage in ("scores", "sweep"):
        assert digest[:12] in str(results["stages"][stage]["facts"])


def test_the_smoke_recipe_on_the_command_line(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "genkit", "run", "smoke", "--device", "cpu"]
    settings = {"denoiser.images": 2_000, "samples.count": 200}
    for key, value in settings.items():
        command += ["--set", f"{key}={toml_value(value)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Scores of scores" in done.stdout
    assert done.stdout.endswith("Next: genkit run edm_aot\n")
    assert "[1/3] denoiser (train): started" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert (tmp_path / "runs/smoke/results.json").is_file()
