"""The recipe that a command is given: found, read and checked."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genkit.errors import Code, Mistake, RecipeError, UsageError

if TYPE_CHECKING:
    from genkit.plugin.manager import Plugins
    from genkit.plugin.registry import Registry
    from genkit.recipe.recipe import Recipe
    from genkit.recipe.source import Source

RecipeArgument = Annotated[
    str | None,
    typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, such as denoiser.coupler=random; may be given several times.",
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
        recipe: file, or name of a shipped recipe.
        overrides: ``KEY=VALUE`` of the option ``--set``.
        trackers: trackers besides those of the recipe.
        announced: whether a line on stderr says that the recipe is checked, which takes seconds.

    Raises:
        UsageError: there is no such file, or the table of a tracker is no TOML.
        RecipeError: all mistakes of the recipe.
        PluginError: a plugin's code failed in a check.
    """
    source = _read(recipe)  # mistakes in syntax show at once: plugins and torch come later

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
    """Return the mistakes that need no torch, for JSON; none if a component cannot be loaded."""
    from genkit.recipe import recipe

    found = recipe.declared_mistakes(source, plugins, overrides, trackers)
    # A component that cannot be loaded may miss a library that is a placeholder here.
    unsure = any(mistake.problem.code is Code.PLUGIN for mistake in found)
    return [] if unsure else [asdict(mistake) for mistake in found]


def summary(recipe: Recipe, *where: str) -> str:
    """Return a recipe in a few words, and what was changed on the command line."""
    count = len(recipe.stages)
    stages = f"{count} stage{'' if count == 1 else 's'}"
    line = ", ".join([recipe.name, stages, f"seed {recipe.seed}", *where])
    return "\n".join([line, *(f"  --set {change}" for change in recipe.overrides)])


def _read(recipe: str | None) -> Source:
    """Return a recipe's text, parsed; needs no torch, so that a mistake in it shows at once."""
    from genkit.recipe.source import read_source, shipped_recipes
    from genkit.settings import near_match

    if recipe is None:
        raise UsageError(f"no recipe is given; name a file or a shipped recipe\n{_shipped()}")
    try:
        return read_source(recipe)
    except UsageError as error:
        exists = os.path.exists(recipe)  # noqa: PTH110, Path.exists raises for a long name
        # Behind a name that is nearly right, a list of all others would only hide the message.
        if isinstance(error, RecipeError) or exists or near_match(recipe, shipped_recipes()):
            raise
        raise UsageError(f"{error}\n{_shipped()}", error.code) from error


def _shipped() -> str:
    """Return a list of the shipped recipes, each with the comment that it begins with."""
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
