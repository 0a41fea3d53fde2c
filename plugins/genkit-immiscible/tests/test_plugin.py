"""Tests of the distribution: its entry point, its recipe and its README."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from genkit import run_recipe
from genkit.errors import Code, RecipeError
from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source, read_source
from genkit_immiscible.nearest import Immiscible

HERE = Path(__file__).parents[1]
RECIPE = HERE / "recipes" / "edm_immiscible.toml"
README = (HERE / "README.md").read_text(encoding="utf-8")


def test_it_is_found_by_its_entry_point() -> None:
    registry = load_plugins().registry
    (entry,) = [e for e in registry.entries("coupler") if e.name == "immiscible"]
    assert (entry.owner.distribution, entry.owner.version) == ("genkit-immiscible", "0.1.0")
    assert registry.load(entry) is Immiscible


def test_registering_imports_nothing_heavy() -> None:
    code = "import genkit_immiscible, sys; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_recipe_is_without_mistakes() -> None:
    assert load_recipe(read_source(str(RECIPE)), load_plugins()).stages


def test_the_recipe_has_to_say_that_the_skew_is_meant() -> None:
    text = RECIPE.read_text(encoding="utf-8").replace("accept_skewed_noise = true", "")
    with pytest.raises(RecipeError) as caught:
        load_recipe(Source.parse(text, "edm_immiscible.toml"), load_plugins())
    assert [mistake.problem.code for mistake in caught.value.mistakes] == [Code.SKEWED_NOISE]
    assert "accept_skewed_noise" in str(caught.value)


def test_the_recipe_runs(tmp_path: Path) -> None:
    small = {
        "denoiser.images": 1024,
        "denoiser.network.width": 32,
        "samples.count": 100,
        "samples.schedule.steps": 3,
        "scores.metrics.1.count": 16,
        "scores.metrics.2.count": 16,
    }
    result = run_recipe(RECIPE, out=tmp_path / "run", settings=small, device="cpu")
    assert result.scores["scores"][0]["frechet_classifier"] > 0


def test_the_readme_shows_what_is_so() -> None:
    (table,) = re.findall(r"^```toml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    stages = tomllib.loads(RECIPE.read_text(encoding="utf-8"))["stage"]
    (denoiser,) = [stage for stage in stages if stage["id"] == "denoiser"]
    shown = tomllib.loads(table)
    assert shown == {key: denoiser[key] for key in shown}
    assert set(shown) == {"coupler", "accept_skewed_noise"}
