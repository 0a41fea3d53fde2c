"""Define ``genkit validate``, which checks a recipe and prints its stages or its mistakes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from genkit.commands.recipes import Overrides, RecipeArgument, load_recipe, summary
from genkit.errors import GenkitError
from genkit.terminal import console, say


def validate(
    recipe: RecipeArgument = None,
    overrides: Overrides = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the mistakes as JSON for programs.")
    ] = False,
) -> None:
    """Check a recipe and whether this machine has its device, without running the recipe."""
    try:
        loaded, plugins = load_recipe(recipe, overrides)
        from genkit.machine import resolve_device

        resolve_device(loaded.device)
    except GenkitError as error:
        if not as_json:
            raise
        typer.echo(json.dumps([m.as_json() for m in error.mistakes], indent=2))
        raise typer.Exit(error.exit_code) from error
    if as_json:
        typer.echo("[]")
        return

    from genkit.parts.sheet import print_sheet
    from genkit.report.plan import plan_cells

    to = console()
    say(to, f"OK: {summary(loaded)}\n")
    print_sheet(to, plan_cells(loaded, plugins.registry), keys=2)
