"""``genkit schema``: write the JSON Schema of recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from genkit.errors import Code, UsageError
from genkit.files import write_text
from genkit.terminal import console, say, warn, writable


def schema(
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write, .json; by default stdout."),
    ] = None,
) -> None:
    """Write the JSON Schema of recipes with all installed components, for editors."""
    if out is not None and out.suffix != ".json":
        raise UsageError(
            f"--out must end in .json, got {out}; write, for example, recipe.schema.json",
            Code.UNKNOWN_CHOICE,
        )

    from genkit.plugin.declarations import declared
    from genkit.plugin.manager import load_plugins
    from genkit.plugin.registry import Registry
    from genkit_author.recipe_schema import recipe_schema

    def read(registry: Registry) -> list[Any]:
        failed: list[str] = []
        return [recipe_schema(registry, failed), failed]

    registry = load_plugins().registry
    made, failed = declared(read, registry) or read(registry)
    for reason in failed:
        warn(f"the schema lacks a component: {reason}")
    text = json.dumps(made, indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    with writable("--out", out):
        write_text(out, text)
    say(console(), f"{out}: put '#:schema {out}' into the first line of a recipe")
