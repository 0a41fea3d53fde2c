"""Paths of a recipe are relative to its file, then to the working directory."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from genkit.errors import Code, Problem, RecipeError
from genkit.plugin.manager import Plugins
from genkit.recipe.encode import resolved, table
from genkit.recipe.paths import RecipePath, find_path, name_places
from genkit.recipe.recipe import Recipe, load_recipe
from genkit.recipe.source import Source, read_source

TEXT = """\
name = "paths"
data = { use = "toys", file = "x.npz", parts = ["all", "y.npz"] }

[[stage]]
id = "denoiser"
use = "train"
images = 100
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return the folder of the recipe, and the working directory."""
    recipe, working = tmp_path / "recipe", tmp_path / "working"
    recipe.mkdir()
    working.mkdir()
    (recipe / "paths.toml").write_text(TEXT)
    monkeypatch.chdir(working)
    return recipe, working


def load(plugins: Plugins, *overrides: str) -> Recipe:
    return load_recipe(read_source("../recipe/paths.toml"), plugins, overrides)


def test_the_folder_of_the_recipe_goes_first(plugins: Plugins, folders: tuple[Path, Path]) -> None:
    recipe, working = folders
    (working / "x.npz").touch()
    assert load(plugins).data.file == "x.npz"
    (recipe / "x.npz").touch()
    assert Path(load(plugins).data.file).samefile(recipe / "x.npz")


def test_the_working_directory_goes_first_for_what_is_typed(
    plugins: Plugins, folders: tuple[Path, Path]
) -> None:
    recipe, working = folders
    (recipe / "x.npz").touch()
    assert Path(load(plugins, "data.file=x.npz").data.file).samefile(recipe / "x.npz")
    (working / "x.npz").touch()
    assert load(plugins, "data.file=x.npz").data.file == "x.npz"


def test_a_stage_that_changes_inherited_data_opens_the_same_file(
    plugins: Plugins, folders: tuple[Path, Path]
) -> None:
    recipe, _ = folders
    for folder in folders:
        (folder / "x.npz").touch()
    loaded = load(plugins, "data.file=x.npz", "denoiser.data.folder=there")
    assert loaded.data.file == loaded.stages["denoiser"].data.file == "x.npz"
    # The path of the file stays one of the file when the table around it is typed.
    loaded = load(plugins, "denoiser.data={ folder = there }")
    assert Path(loaded.stages["denoiser"].data.file).samefile(recipe / "x.npz")


def test_a_path_in_a_list_is_found_and_a_name_is_no_path(
    plugins: Plugins, folders: tuple[Path, Path]
) -> None:
    recipe, _ = folders
    for name in ("all", "x.npz", "y.npz"):
        (recipe / name).touch()
    name, path = load(plugins).data.parts
    assert name == "all"
    assert Path(path).samefile(recipe / "y.npz")


def test_a_path_that_is_nowhere_is_reported_with_both_places(
    plugins: Plugins, folders: tuple[Path, Path]
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(plugins)
    (mistake,) = caught.value.mistakes
    assert (mistake.problem.code, mistake.line, mistake.key) == (Code.NOT_FOUND, 2, "data.file")
    for folder in folders:
        assert str(folder / "x.npz") in mistake.problem.hint


def test_a_path_in_a_list_that_is_nowhere_is_reported_with_both_places() -> None:
    places = ("/nowhere/y", "/neither/y")
    problem = Problem(("parts",), "y does not exist", code=Code.NOT_FOUND)
    named = name_places(problem, [3, ("all", RecipePath("y", "y", places))])
    assert all(place in named.hint for place in places)


def test_fingerprints_have_the_path_as_written_and_a_resolved_recipe_the_place(
    plugins: Plugins, folders: tuple[Path, Path]
) -> None:
    recipe, _ = folders
    (recipe / "x.npz").touch()
    loaded = load(plugins)
    assert loaded.data is not None
    assert table(plugins.registry, loaded.data, result_only=True)["file"] == "x.npz"
    written = resolved(loaded, plugins.registry)["data"]["file"]
    assert type(written) is str
    assert Path(written).is_absolute()
    assert Path(written).samefile(recipe / "x.npz")


@pytest.mark.parametrize("path", ["", "~/x.npz", "/x.npz"])
def test_other_paths_stay_as_they_are(path: str, tmp_path: Path) -> None:
    assert find_path(path, tmp_path, recipe_first=True) == path


def test_a_text_and_a_shipped_recipe_have_no_folder() -> None:
    assert Source.parse(TEXT).folder is None
    assert read_source("smoke").folder is None


def test_a_path_is_copied_with_what_it_knows() -> None:
    path = RecipePath("/a/x", "x", ("/a/x", "/b/x"))
    copied = copy.deepcopy(path)
    assert (copied, copied.written, copied.places) == ("/a/x", "x", ("/a/x", "/b/x"))
