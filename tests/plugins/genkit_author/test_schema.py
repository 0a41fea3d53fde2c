"""The JSON Schema of recipes: it accepts what genkit accepts, and refuses mistakes in a file."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import declared_mistakes
from genkit.recipe.source import read_source, shipped_recipes
from genkit_author.recipe_schema import recipe_schema

RECIPE = """format = 1
name = "digits"
seed = 3
data = "digits"

[[stage]]
id = "denoiser"
use = "train"
images = 1000
network = { use = "mlp", width = 32 }
objective = { use = "denoising", noise_distribution = { use = "log-normal", p_std = 1.8 } }
coupler = "hungarian"
optimizer = { learning_rate = 1e-3 }
data = { use = "digits" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
schedule = { steps = 7 }
guidance = []

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "curvature" }, "truncation"]
"""

BROKEN = {
    "no name": ('name = "digits"\n', ""),
    "no stage": (RECIPE[RECIPE.index("[[stage]]") :], ""),
    "one table for the stages": (RECIPE[RECIPE.index("[[stage]]") :], "[stage]\nid = 'a'\n"),
    "another format": ("format = 1", "format = 2"),
    "a number for the name": ('name = "digits"', "name = 5"),
    "a negative seed": ("seed = 3", "seed = -3"),
    "an unknown key at the top": ("seed = 3", "sed = 3"),
    "no id": ('id = "denoiser"\n', ""),
    "an id with a space": ('id = "scores"', 'id = "the scores"'),
    "no component": ('use = "sample"\n', ""),
    "an unknown stage": ('use = "sample"', 'use = "smaple"'),
    "a missing setting": ("images = 1000\n", ""),
    "an unknown setting": ("images", "imagse"),
    "text for a number": ("1000", '"1000"'),
    "a number for a reference": ('denoiser = "denoiser"', "denoiser = 1"),
    "a boolean for a number": ("steps = 7", "steps = true"),
    "a number out of range": ("width = 32", "width = 0"),
    "an unknown component": ('"hungarian"', '"hungarain"'),
    "a component of another kind": ('"hungarian"', '"heun"'),
    "a component without its required setting": ('data = "digits"\n', 'data = "image-folder"\n'),
    "an unknown setting of a default": ("steps = 7", "stpes = 7"),
    "an unknown setting of an inner component": ("p_std", "p_sdt"),
    "a component for a list": ("guidance = []", 'guidance = { use = "discriminator" }'),
    "an unknown metric": ('"truncation"', '"fid"'),
}


@pytest.fixture(scope="module")
def plugins():
    return load_plugins()


@pytest.fixture(scope="module")
def schema(plugins):
    failed = []
    made = recipe_schema(plugins.registry, failed)
    assert failed == []
    jsonschema.Draft7Validator.check_schema(made)
    return jsonschema.Draft7Validator(json.loads(json.dumps(made)))


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid(schema, name):
    schema.validate(tomllib.loads(shipped_recipes()[name].read_text(encoding="utf-8")))


def test_short_forms_are_valid(schema, plugins, tmp_path):
    schema.validate(tomllib.loads(RECIPE))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    assert not declared_mistakes(read_source(tmp_path / "recipe.toml"), plugins)


@pytest.mark.parametrize("case", BROKEN)
def test_mistakes_are_refused(schema, plugins, case, tmp_path):
    """By the schema and, as a check of the case, by genkit itself."""
    old, new = BROKEN[case]
    assert old in RECIPE
    broken = RECIPE.replace(old, new, 1)
    assert list(schema.iter_errors(tomllib.loads(broken)))
    (tmp_path / "recipe.toml").write_text(broken)
    assert declared_mistakes(read_source(tmp_path / "recipe.toml"), plugins)


def test_the_command_writes_the_schema(genkit_, schema, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = genkit_("schema")
    assert (code, json.loads(out)) == (0, schema.schema)
    code, out, _ = genkit_("schema", "--out", "recipe.schema.json")
    assert code == 0
    assert "#:schema recipe.schema.json" in out
    assert json.loads(Path("recipe.schema.json").read_text()) == schema.schema


def test_a_schema_needs_a_json_file(genkit_, tmp_path):
    assert genkit_("schema", "--out", tmp_path / "recipe.toml")[0] == 2
    assert genkit_("schema", "--out", tmp_path / "absent" / "recipe.json")[0] == 2
    assert not list(tmp_path.iterdir())


def test_a_component_that_cannot_be_loaded_is_named_and_left_out(plugins, monkeypatch):
    registry = plugins.registry
    real = registry.load

    def load(entry):
        if entry.name == "hungarian":
            entry = replace(entry, target="absent_module:Nothing")
        return real(entry)

    monkeypatch.setattr(registry, "load", load)
    failed = []
    made = recipe_schema(registry, failed)
    assert len(failed) == 1
    assert "hungarian" in failed[0]
    assert "coupler:random" in made["definitions"]
    assert "coupler:hungarian" not in made["definitions"]


def test_a_kind_without_components_has_a_schema(plugins, monkeypatch):
    registry = plugins.registry
    real = registry.entries
    monkeypatch.setattr(
        registry, "entries", lambda kind=None: [] if kind == "tracker" else real(kind)
    )
    made = recipe_schema(registry, [])
    jsonschema.Draft7Validator.check_schema(made)
    refused = tomllib.loads('trackers = ["csv"]\n' + RECIPE)
    assert list(jsonschema.Draft7Validator(made).iter_errors(refused))
