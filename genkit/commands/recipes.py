"""Find, read and check the recipe that a command has as argument."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genkit import completion
from genkit.errors import Code, Mistake, RecipeError, UsageError

if TYPE_CHECKING:
    from genkit.plugin.manager import Plugins
    from genkit.plugin.registry import Registry
    from genkit.recipe.recipe import Recipe
    from genkit.recipe.source import Source

RecipeArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE",
        help="A TOML file, or the name of a shipped recipe.",
        autocompletion=completion.recipes,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, such as denoiser.coupler=random; can be repeated.",
        autocompletion=completion.keys,
    ),
]


def load_recipe(
    recipe: str | None,
    overrides: list[str] | None,
    trackers: list[str] | None = None,
    announced: bool = False,
) -> tuple[Recipe, Plugins]:
    """Return a checked recipe, with the plugins that it was checked against.

    Args:
        recipe: path of a recipe file, or name of a shipped recipe.
        overrides: arguments ``KEY=VALUE`` of the option ``--set``.
        trackers: trackers in addition to those of the recipe, as names or TOML tables.
        announced: whether to print a line on stderr before the checks, which take seconds.

    Raises:
        UsageError: there is no such file, or the table of a tracker is not TOML.
        RecipeError: the recipe has mistakes; the error contains all of them.
        PluginError: the code of a plugin failed in a check.
    """
    source = _read(recipe)  # before plugins and torch, so that syntax errors appear at once

    from genkit.plugin.declarations import declared
    from genkit.plugin.manager import Plugins, load_plugins
    from genkit.recipe.source import parse_component

    for tracker in trackers or ():
        parse_component(tracker, "--track")
    plugins = load_plugins()
    changes = overrides or [], trackers or []

    def read(registry: Registry) -> list[dict[str, Any]]:
        own = Plugins(registry, plugins.loaded, plugins.failed)
        return declared_mistakes(source, own, *changes)

    if mistakes := declared(read, plugins.registry):
        raise RecipeError([Mistake.of_json(mistake) for mistake in mistakes])
    if announced:
        typer.echo(f"{recipe}: checking the recipe", err=True)

    from genkit.blame import plugin_errors
    from genkit.recipe import recipe as checking

    with plugin_errors(plugins.registry):
        return checking.load_recipe(source, plugins, *changes), plugins


def declared_mistakes(
    source: Source, plugins: Plugins, overrides: list[str], trackers: list[str]
) -> list[dict[str, Any]]:
    """Return the mistakes that are found without torch, as values for JSON.

    The list is empty if a component cannot be loaded.
    """
    from genkit.recipe import recipe

    mistakes = recipe.declared_mistakes(source, plugins, overrides, trackers)
    # The reason that a component cannot be loaded may be a placeholder in place of a library.
    unsure = any(mistake.problem.code is Code.PLUGIN for mistake in mistakes)
    return [] if unsure else [asdict(mistake) for mistake in mistakes]


def summary(recipe: Recipe, *where: str) -> str:
    """Return name, number of stages and seed of a recipe, and its changes by ``--set``."""
    count = len(recipe.stages)
    stages = f"{count} stage{'' if count == 1 else 's'}"
    line = ", ".join([recipe.name, stages, f"seed {recipe.seed}", *where])
    return "\n".join([line, *(f"  --set {change}" for change in recipe.overrides)])


def _read(recipe: str | None) -> Source:
    """Return the parsed text of a recipe, without importing torch."""
    from genkit.recipe.source import read_source, shipped_recipes
    from genkit.settings import near_match

    if recipe is None:
        raise UsageError(f"a recipe is required; name a file or a shipped recipe\n{_shipped()}")
    try:
        return read_source(recipe)
    except UsageError as error:
        exists = os.path.exists(recipe)  # noqa: PTH110, Path.exists raises for a long name
        # If the message suggests a similar name, a list of all recipes would only distract.
        if isinstance(error, RecipeError) or exists or near_match(recipe, shipped_recipes()):
            raise
        raise UsageError(f"{error}\n{_shipped()}", error.code) from error


def _shipped() -> str:
    """Return a list of the shipped recipes, each with the comment in its first line."""
    from genkit.recipe.source import shipped_recipes

    lines = ["Shipped recipes:"]
    shipped = shipped_recipes()
    width = max(map(len, shipped), default=0)
    for name, path in shipped.items():
        with path.open(encoding="utf-8") as file:
            first = file.readline()
        about = first.lstrip("#").strip() if first.startswith("#") else ""
        lines.append(f"  {name:<{width}}  {about}".rstrip())
    return "\n".join(lines)
