"""Complete arguments in a shell: recipes, components, kinds and keys of settings.

A completion must be fast and must not fail, so nothing here imports torch or checks a recipe.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from genkit.errors import GenkitError

if TYPE_CHECKING:
    from genkit.plugin.registry import Registry

DEVICES = ("auto", "cpu", "cuda", "mps")


def recipes(incomplete: str) -> list[str]:
    """Return the shipped recipes that begin with a string; the shell completes files itself."""
    from genkit.recipe.source import shipped_recipes

    return _beginning(incomplete, shipped_recipes())


def components(incomplete: str) -> list[str]:
    """Return the components and shipped recipes that begin with a string."""
    from genkit.plugin.manager import load_plugins

    names = {entry.name for entry in load_plugins().registry.entries()}
    return sorted({*_beginning(incomplete, names), *recipes(incomplete)})


def kinds(incomplete: str) -> list[str]:
    """Return the kinds of components that begin with a string."""
    from genkit.plugin.kinds import KINDS

    return _beginning(incomplete, KINDS)


def devices(incomplete: str) -> list[str]:
    """Return the devices that begin with a string."""
    return _beginning(incomplete, DEVICES)


def stages(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the stages of the recipe on the command line that begin with a string."""
    from genkit.recipe.locate import id_of
    from genkit.recipe.source import read_source

    with suppress(GenkitError):
        found = read_source(_recipe(ctx)).table.get("stage")
        return _beginning(incomplete, map(id_of, found if isinstance(found, list) else ()))
    return []


def keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the settings of the recipe on the command line that begin with a string."""
    from genkit.plugin.declarations import declared
    from genkit.plugin.manager import Plugins, load_plugins
    from genkit.recipe.source import read_source

    with suppress(GenkitError):
        source, plugins = read_source(_recipe(ctx)), load_plugins()

        def read(registry: Registry) -> list[str]:
            from genkit.recipe.recipe import declared_keys

            return declared_keys(source, Plugins(registry, plugins.loaded, plugins.failed))

        found = declared(read, plugins.registry) or ()
        return [f"{key}=" for key in _beginning(incomplete, found)]
    return []


def _recipe(ctx: typer.Context) -> str:
    """Return the recipe on the command line; an empty string if there is none."""
    # While the value of an option is completed, arguments before the option are not parsed.
    return ctx.params.get("recipe") or next(iter(ctx.args), "")


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
