"""Define ``genkit show``, which prints components and recipes with all their settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genkit import completion
from genkit.commands.recipes import load_recipe, summary
from genkit.errors import Code, UsageError
from genkit.terminal import console, json_mistakes, say, warn

if TYPE_CHECKING:
    from genkit.plugin.registry import Registry

RECIPE = "recipe"
"""Kind with which ``genkit show`` names a recipe that has the name of a component."""


@json_mistakes
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A component, a shipped recipe, a TOML file or the folder of a run.",
            autocompletion=completion.components,
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Only components of this kind; or: recipe.",
            autocompletion=completion.kinds,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show the settings of each component called NAME, or all values of a recipe or of a run."""
    from genkit.plugin.manager import load_plugins
    from genkit.recipe.source import shipped_recipes
    from genkit.settings import near_match

    check_kind(kind, RECIPE)
    registry = load_plugins().registry
    entries = [] if kind == RECIPE else registry.entries(kind)
    matches = [entry for entry in entries if entry.name == name]
    recipes = shipped_recipes() if kind in (None, RECIPE) else {}
    is_folder = os.path.isdir(name)  # noqa: PTH112, Path.is_dir raises for a long name
    if is_folder and not matches and name not in recipes:
        from genkit.artifacts.layout import RESOLVED, STATE
        from genkit.artifacts.state import damages, read_state

        # The recipe of a run; a folder that is no run is an unknown name.
        folder = Path(name)
        if (folder / RESOLVED).is_file():
            name = str(folder / RESOLVED)
            damaged = dict(damages(folder, read_state(folder / STATE)))
            if damage := damaged.get(RESOLVED):
                warn(f"{damage}; values may be wrong, so run the recipe again")
    is_recipe = kind is None and (name in recipes or Path(name).suffix == ".toml")
    if kind == RECIPE or (is_recipe and not matches):
        _show_recipe(name, as_json)
        return
    if not matches:
        known = {entry.name for entry in entries} | recipes.keys()
        hint = near_match(name, known) or "see genkit list-plugins"
        what = kind or "component or recipe"
        raise UsageError(f'no {what} is called "{name}"; {hint}', Code.UNKNOWN_COMPONENT)

    from genkit.plugin.declarations import declared
    from genkit.report.components import description, show_component

    def describe(registry: Registry) -> list[dict[str, Any]]:
        return [description(registry, entry) for entry in matches]

    described = declared(describe, registry) or describe(registry)
    if as_json:
        typer.echo(json.dumps(described, indent=2))
        return
    to = console()
    for index, component in enumerate(described):
        if index:
            to.print()
        show_component(to, component)
    if is_recipe:
        say(to, f"\n{name} is also a recipe: genkit show {name} --kind {RECIPE}")


def _show_recipe(name: str, as_json: bool) -> None:
    """Print all values of a recipe."""
    recipe, plugins = load_recipe(name, None)

    from genkit.recipe.encode import values
    from genkit.report.values import MARK, print_values, values_json

    settings = values(recipe, plugins.registry)
    uses = {stage_id: plugins.registry.name_of(stage) for stage_id, stage in recipe.stages.items()}
    if as_json:
        stages = [{"id": stage_id, "use": use} for stage_id, use in uses.items()]
        content = {"name": recipe.name, "file": recipe.source.label, "stages": stages}
        typer.echo(json.dumps({**content, "settings": values_json(settings)}, indent=2))
        return
    to = console()
    say(to, f"{summary(recipe)}\n{MARK} marks values that differ from their defaults")
    titles = {"": recipe.source.label} | {i: f"{i}: {use}" for i, use in uses.items()}
    print_values(to, settings, titles)


def check_kind(kind: str | None, *others: str) -> None:
    """Raise UsageError unless a string is a kind of component, None, or one of ``others``."""
    from genkit.plugin.kinds import KINDS
    from genkit.settings import near_match

    known = [*KINDS, *others]
    if kind is not None and kind not in known:
        hint = near_match(kind, known)
        raise UsageError(
            f'no kind is called "{kind}"; {hint} kinds: {", ".join(known)}', Code.UNKNOWN_CHOICE
        )
