"""Tests of the distribution: its entry point, its recipe and its README."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from genkit import run_recipe
from genkit.errors import Code, DataError, RecipeError
from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source, read_source
from genkit_semidiscrete.coupler import Semidiscrete
from genkit_semidiscrete.stage import FitPotential

HERE = Path(__file__).parents[1]
RECIPE = HERE / "recipes" / "edm_semidiscrete.toml"
README = (HERE / "README.md").read_text(encoding="utf-8")

TINY = """
name = "tiny"
data = { use = "moons", items = 60 }

[[stage]]
id = "potential"
use = "fit-potential"
batch_size = 64
by = ["label"]

[[stage]]
id = "denoiser"
use = "train"
images = 256
batch_size = 64
network = { use = "mlp", width = 8, blocks = 1, class_conditional = true }
objective = { use = "denoising" }
coupler = { use = "semidiscrete", potential = "potential", by = ["label"] }
"""


def mistakes(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(Source.parse(text, "tiny.toml"), load_plugins())
    return str(caught.value)


def test_it_is_found_by_its_entry_point() -> None:
    registry = load_plugins().registry
    for kind, name, cls in (
        ("stage", "fit-potential", FitPotential),
        ("dataset-coupler", "semidiscrete", Semidiscrete),
    ):
        (entry,) = [e for e in registry.entries(kind) if e.name == name]
        owner = entry.owner.distribution, entry.owner.version
        assert owner == ("genkit-semidiscrete", "0.1.0")
        assert registry.load(entry) is cls


def test_registering_imports_nothing_heavy() -> None:
    code = "import genkit_semidiscrete, sys; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_recipe_differs_from_edm_aot_in_the_coupler_alone() -> None:
    assert load_recipe(read_source(str(RECIPE)), load_plugins()).stages
    mine, aot = (
        {stage["id"]: stage for stage in tomllib.loads(text)["stage"]}
        for text in (RECIPE.read_text(encoding="utf-8"), read_source("edm_aot").text)
    )
    del mine["potential"], mine["denoiser"]["coupler"], aot["denoiser"]["coupler"]
    assert mine == aot


def test_a_conditional_denoiser_trains_with_it(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY, encoding="utf-8")
    out = tmp_path / "run"
    result = run_recipe(recipe, out=out, device="cpu")
    assert result.scores["potential"][0]["never_chosen"] == 0
    rows = (out / "02-denoiser" / "metrics.jsonl").read_text(encoding="utf-8")
    assert "pool" in rows


def test_the_recipe_runs(tmp_path: Path) -> None:
    small = {
        "potential.batch_size": 32,
        "potential.noises_per_image": 1,
        "denoiser.images": 1024,
        "denoiser.network.width": 32,
        "samples.count": 100,
        "samples.schedule.steps": 3,
        "scores.metrics.1.count": 16,
        "scores.metrics.2.count": 16,
        "sweep.count": 64,
    }
    result = run_recipe(RECIPE, out=tmp_path / "run", settings=small, device="cpu")
    assert result.scores["scores"][0]["frechet_classifier"] > 0


def test_mistakes_are_told_before_anything_runs() -> None:
    assert 'write by = ["label"]' in mistakes(TINY.replace(', by = ["label"] }', " }"))
    blind = TINY.replace('by = ["label"]', "by = []")
    assert "skewed-noise" in mistakes(blind)
    assert "potential" in mistakes(TINY.replace('potential = "potential"', 'potential = "no"'))


def test_data_of_another_stage_is_found_at_the_first_pool(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    other = 'use = "train"\ndata = { use = "moons", items = 60, seed = 1 }'
    recipe.write_text(TINY.replace('use = "train"', other), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        run_recipe(recipe, out=tmp_path / "run", device="cpu")
    assert caught.value.code == Code.CONFLICT
    assert "stage denoiser: pool 0: dataset-coupler" in str(caught.value)
    assert "plugin semidiscrete (genkit-semidiscrete " in str(caught.value)
    assert ": image 0" in str(caught.value)


def test_the_readme_shows_what_is_so() -> None:
    (table,) = re.findall(r"^```toml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    stages = {s["id"]: s for s in tomllib.loads(RECIPE.read_text(encoding="utf-8"))["stage"]}
    for shown in tomllib.loads(table)["stage"]:
        assert shown == {key: stages[shown["id"]][key] for key in shown}
    defaults = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", README, re.MULTILINE))
    settings = {f.name: f.default for f in fields(FitPotential)}
    for name in ("noises_per_image", "batch_size", "learning_rate", "checkpoint_seconds"):
        assert float(defaults[name]) == settings[name]
