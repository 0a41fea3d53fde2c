"""``genkit new recipe``: a copy of a recipe that says the same, with a comment for each key."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genkit.errors import Code, UsageError
from genkit.plugin.manager import load_plugins
from genkit.recipe.source import Source, read_source, shipped_recipes
from genkit_author.new_recipe import check_name, explained
from raising import raises_code


@pytest.fixture(scope="module")
def registry():
    return load_plugins().registry


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_copy_differs_in_its_name_and_in_comments_alone(registry, name):
    source = replace(read_source(name), label=name)
    text = explained(source, "mine", registry, Path())
    assert tomllib.loads(text) == {**source.table, "name": "mine"}
    code = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    before = [line for line in source.text.splitlines() if not line.lstrip().startswith("#")]
    assert [line for line in before if not line.startswith("name")] == [
        line for line in code if not line.startswith("name")
    ]
    assert max(map(len, set(text.splitlines()) - set(source.text.splitlines()))) <= 100


def test_every_key_is_explained_once(registry):
    text = explained(read_source("edm_aot"), "mine", registry, Path())
    for key in ("seed", "images", "pool_size", "steps", "p_mean", "extractor", "vary", "id"):
        assert text.count(f"# {key}: ") + text.count(f"#   {key}: ") == 1, key
    lines = text.splitlines()
    (at,) = (k for k, line in enumerate(lines) if line.startswith("# batch_size: "))
    assert lines[at + 1] == "batch_size = 256"
    assert any(line.startswith("#   hungarian: ") for line in lines)


def test_unusual_forms_are_explained_where_they_can_be(registry):
    text = (
        "'name' = 'old' # kept\n"
        'data = "digits"\n'
        "unknown = 1\n"
        "[[stage]]\n"
        'id = "denoiser"\n'
        'use = "train"\n'
        "images = 5\n"
        "data = { }\n"
        "[stage.network]\n"
        'use = "absent"\n'
        "width = 3\n"
        "[stage.optimizer]\n"
        "learning_rate = 1\n"
        "[[stage]]\n"
        "use = 5\n"
    )
    result = explained(Source.parse(text), "mine", registry, Path())
    assert tomllib.loads(result) == {**tomllib.loads(text), "name": "mine"}
    assert "'name' = \"mine\" # kept" in result
    assert "learning_rate: " in result  # of the default optimizer
    assert "width: " not in result  # of a component that is not installed
    empty = explained(Source.parse("stage = 1\n"), "mine", registry, Path())
    assert tomllib.loads(empty) == {"stage": 1}


def test_the_command_writes_a_valid_recipe_once(genkit_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = genkit_("new", "recipe", "mine", "--from", "smoke")
    assert code == 0
    assert "genkit run mine.toml" in out
    assert genkit_("validate", "mine.toml")[0] == 0
    text = (tmp_path / "mine.toml").read_text(encoding="utf-8")
    assert genkit_("new", "recipe", "mine")[0] == 2
    assert (tmp_path / "mine.toml").read_text(encoding="utf-8") == text
    assert genkit_("new", "recipe", "other", "--from", "mine.toml", "--out", "other.toml")[0] == 0


def test_paths_in_a_recipe_of_another_folder_are_changed(genkit_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "mine").mkdir()
    np.savez(tmp_path / "theirs" / "own.npz", images=np.zeros((8, 2), np.float32))
    text = read_source("smoke").text.replace('"moons"', "'npz', path = 'own.npz', labels = false")
    (tmp_path / "theirs" / "first.toml").write_text(text)
    arguments = ("--from", "theirs/first.toml", "--out", "mine/second.toml")
    assert genkit_("new", "recipe", "second", *arguments)[0] == 0
    table = tomllib.loads((tmp_path / "mine" / "second.toml").read_text())
    assert table["data"]["path"] == "../theirs/own.npz"
    monkeypatch.chdir("/")
    assert genkit_("validate", tmp_path / "mine" / "second.toml")[0] == 0


def test_only_the_string_of_a_path_is_changed(registry, tmp_path):
    long, too_long = "images" * 20, "a" * 256
    for name in (long, "npz", 'a"b', "unchanged"):
        (tmp_path / name).touch()
    for place, path, written in (
        ("mine", f"../{long}", f"'{long}'"),
        ("mine", "../npz", '"npz"'),
        ("mine", '../a"b', r'"a\"\u0062"'),
        ("mine", too_long, f"'{too_long}'"),
        (".", "unchanged", "'unchanged'"),
    ):
        data = f'data = {{ use = "npz", path = {written} }} # \u2028 "npz"'
        text = f"name = 'old'\n{data}\nx = nan"
        source = Source.parse(text, folder=tmp_path)
        result = explained(source, "mine", registry, tmp_path / place)
        table = tomllib.loads(result)
        assert place == "mine" or written in result
        assert table["data"] == {"use": "npz", "path": path}, written


def test_a_path_on_several_lines_is_refused(registry, tmp_path):
    (tmp_path / "own.npz").touch()
    text = "data = { use = 'npz', path = '''\nown.npz''' }\n"
    with raises_code(UsageError, Code.SYNTAX, "data.path"):
        explained(Source.parse(text, folder=tmp_path), "mine", registry, tmp_path / "mine")


def test_a_copy_that_is_not_valid_is_not_written(genkit_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("two\nlines.toml").write_text('name = "old"')
    code, _, err = genkit_("new", "recipe", "mine", "--from", "two\nlines.toml")
    assert (code, "mine.toml" in err, Path("mine.toml").exists()) == (2, True, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("a/b",),
        ("mine", "--out", "mine.txt"),
        ("mine", "--out", "absent/mine.toml"),
        ("mine", "--out", f"{'a' * 256}.toml"),
        ("mine", "--from", "absent"),
    ],
)
def test_mistakes_are_refused(genkit_, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert genkit_("new", "recipe", *arguments)[0] == 2
    assert not list(tmp_path.iterdir())


def test_a_name_must_be_that_of_a_folder():
    for name in ("", ".a", "a b", "a" * 101, "ä"):
        with raises_code(UsageError, Code.INVALID_NAME):
            check_name(name)
