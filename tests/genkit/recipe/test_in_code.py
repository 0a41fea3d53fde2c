"""Recipes in Python."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import genkit
from genkit.errors import Code, PluginError, RecipeError, UsageError
from genkit.plugin.manager import load_plugins
from genkit.recipe import read_source, shipped_recipes
from genkit.recipe.recipe import load_recipe
from genkit.run.engine import fingerprints
from raising import raises_code

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

POINTS = {
    "name": "points",
    "seed": np.int64(3),
    "data": {"use": "moons", "items": 200},
    "stage": [
        {
            "id": "denoiser",
            "use": "train",
            "images": 256,
            "batch_size": torch.tensor(64),
            "network": {"use": "mlp", "width": 8},
            "objective": "denoising",
            "coupler": genkit.component("coupler", "hungarian"),
            "optimizer": {"use": "adam", "learning_rate": np.float32(0.5)},
        },
        {"id": "samples", "use": "sample", "denoiser": "denoiser", "count": 4},
    ],
}


def changed(**settings):
    """Return the recipe with other settings of its first stage."""
    first, *rest = POINTS["stage"]
    return {**POINTS, "stage": [{**first, **settings}, *rest]}


def prints(source, *overrides):
    plugins = load_plugins()
    return fingerprints(load_recipe(source, plugins, overrides), plugins.registry)


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_recipe_of_tables_is_that_of_its_file(name):
    text = shipped_recipes()[name].read_text(encoding="utf-8")
    recipe = genkit.Recipe(**tomllib.loads(text))
    assert recipe == genkit.Recipe.read(name)
    assert recipe == genkit.Recipe(**recipe.table)
    assert tomllib.loads(recipe.toml()) == tomllib.loads(text)
    assert genkit.Recipe.read(name).toml() == text


@pytest.mark.parametrize("name", ["smoke", "edm_aot", "digits_classifier"])
def test_a_recipe_of_tables_has_the_fingerprints_of_its_file(name):
    assert prints(genkit.Recipe.read(name).source) == prints(read_source(name))
    assert prints(genkit.Recipe(**genkit.Recipe.read(name).table).source) == prints(
        read_source(name)
    )


def test_a_component_has_the_fingerprint_of_its_table():
    as_name = genkit.Recipe(**changed(coupler="hungarian"))
    assert prints(genkit.Recipe(**POINTS).source) == prints(as_name.source)
    assert prints(as_name.source) != prints(genkit.Recipe(**changed(coupler="random")).source)


def test_a_recipe_has_the_bits_of_its_file(tmp_path):
    recipe = genkit.Recipe(**POINTS)
    recipe.write(tmp_path / "points.toml")
    assert genkit.Recipe.read(tmp_path / "points.toml") == recipe
    in_python = genkit.run_recipe(recipe, out=tmp_path / "a", device="cpu").folder
    of_file = genkit.run_recipe(tmp_path / "points.toml", out=tmp_path / "b", device="cpu").folder
    names = ("recipe.toml", "01-denoiser/denoiser.safetensors", "02-samples/samples.safetensors")
    for name in names:
        assert (in_python / name).read_bytes() == (of_file / name).read_bytes()


def test_a_run_is_resumed_from_its_file_and_from_a_dict(tmp_path, capsys):
    folder = tmp_path / "run"
    first = genkit.run_recipe(POINTS, out=folder, device="cpu")
    for recipe in (folder / "recipe.toml", POINTS):
        again = genkit.run_recipe(recipe, out=folder, device="cpu", progress=True)
        assert again == first
        assert capsys.readouterr().err.count("finished before") == 2


def test_a_path_in_a_recipe_that_was_read_is_relative_to_its_file(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    np.savez(tmp_path / "there" / "images.npz", images=np.zeros((4, 8, 8, 1), np.uint8))
    data = {"use": "npz", "path": Path("images.npz"), "labels": False}
    genkit.Recipe(**{**POINTS, "data": data}).write(tmp_path / "there" / "mine.toml")
    monkeypatch.chdir(tmp_path)
    recipe = genkit.Recipe.read("there/mine.toml")
    assert prints(recipe.source)
    assert prints(recipe.replace(seed=4).source) != prints(recipe.source)
    assert recipe.replace(seed=4).table == {**recipe.table, "seed": 4}


def test_the_table_of_a_recipe_is_a_copy():
    recipe = genkit.Recipe(**POINTS)
    recipe.table["stage"][0]["images"] = 1
    assert recipe == genkit.Recipe(**POINTS)
    assert recipe != genkit.Recipe(**changed(images=1))
    assert recipe != POINTS


def test_a_recipe_is_shown_with_its_stages():
    assert repr(genkit.Recipe(**POINTS)) == "Recipe(name='points', stages=['denoiser', 'samples'])"
    assert repr(genkit.Recipe(stage=3)) == "Recipe(name=None, stages=[])"


@pytest.mark.parametrize(
    ("recipe", "code", "parts"),
    [
        (changed(imagez=1), Code.UNKNOWN_KEY, ("denoiser.imagez", '"images"')),
        (changed(images=0), Code.OUT_OF_RANGE, ("denoiser.images", "at least 1")),
        (changed(coupler="hungarain"), Code.UNKNOWN_COMPONENT, ("denoiser.coupler", '"hungarian"')),
        (changed(images=None), Code.WRONG_TYPE, ("denoiser.images", "None")),
        (changed(network=torch.zeros(3)), Code.WRONG_TYPE, ("denoiser.network", "data=")),
        (changed(network={1: 2}), Code.WRONG_TYPE, ("denoiser.network", "1")),
        (changed(objective={"use": object()}), Code.WRONG_TYPE, ("denoiser.objective.use",)),
        (changed(network=[0] * 10_001), Code.WRONG_TYPE, ("denoiser.network", "10001")),
        ({**POINTS, "stages": []}, Code.UNKNOWN_KEY, ("stages", '"stage"')),
        ({"name": "points"}, Code.MISSING_KEY, ("stage",)),
        ({**POINTS, 1: 2}, Code.WRONG_TYPE, ("must have strings as keys", "1")),
    ],
)
def test_a_mistake_has_its_key_and_no_line(tmp_path, recipe, code, parts):
    with pytest.raises(RecipeError) as raised:
        genkit.run_recipe(recipe, out=tmp_path / "run")
    (mistake,) = raised.value.mistakes
    assert mistake.problem.code == code
    assert (mistake.file, mistake.line) == ("", None)
    assert str(mistake).startswith(parts[0])
    assert all(part in str(mistake) for part in parts)
    assert not (tmp_path / "run").exists()


def test_a_value_that_contains_itself_is_refused():
    network = {}
    network["inner"] = network
    with raises_code(RecipeError, Code.WRONG_TYPE, "denoiser.network.inner"):
        genkit.Recipe(**changed(network=network))


def test_a_component_that_no_plugin_registers_is_refused():
    class Own(genkit.component("coupler", "random").__class__):
        pass

    with raises_code(PluginError, Code.UNKNOWN_COMPONENT, "Own"):
        genkit.Recipe(**changed(coupler=Own()))


def test_a_recipe_that_does_not_exist_is_refused():
    with raises_code(UsageError, Code.NOT_FOUND, '"smoke"'):
        genkit.Recipe.read("smokee")


@pytest.mark.parametrize("recipe", [None, 5, ["smoke"]])
def test_what_is_no_recipe_is_refused(recipe):
    with raises_code(UsageError, Code.WRONG_TYPE, "recipe", recipe):
        genkit.run_recipe(recipe)
    with raises_code(UsageError, Code.WRONG_TYPE, "recipe", recipe):
        genkit.Recipe.read(recipe)


def test_a_recipe_that_cannot_be_written_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent" / "own.toml"):
        with raises_code(UsageError, Code.IO_ERROR, path):
            genkit.Recipe(name="own").write(path)


def test_a_mistake_of_the_caller_has_its_setting(tmp_path):
    with raises_code(RecipeError, Code.UNKNOWN_KEY, "--set denoiser.imagez"):
        genkit.run_recipe(POINTS, out=tmp_path / "run", settings={"denoiser.imagez": 1})


def test_mistakes_are_json_without_a_file():
    with pytest.raises(RecipeError) as raised:
        genkit.Recipe(**changed(images=None))
    listed = json.loads(json.dumps([mistake.as_json() for mistake in raised.value.mistakes]))
    assert (listed[0]["file"], listed[0]["line"], listed[0]["key"]) == (
        None,
        None,
        "denoiser.images",
    )
