"""The command group ``genkit new``: write a package of a plugin, or a recipe."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from genkit.completion import kinds, recipes
from genkit.errors import Code, UsageError
from genkit.terminal import console, say, writable

app = typer.Typer(
    help="Write a package of a plugin, or a recipe, to begin with.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def plugin(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="Kind of component, such as coupler.", autocompletion=kinds
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the component in recipes.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder; default: genkit-NAME.")
    ] = None,
) -> None:
    """Write a Python package with a component, its contract test and a README."""
    from genkit.plugin.manager import load_plugins
    from genkit_author.examples import read_examples
    from genkit_author.new_plugin import (
        check_kind,
        check_name,
        package_files,
        package_name,
        write_package,
    )

    check_kind(kind)
    check_name(kind, name, load_plugins().registry)
    files = package_files(kind, name, read_examples())
    folder = out or Path(package_name(name))
    with writable("--out", folder):
        write_package(folder, files)
    to = console()
    for file in files:
        say(to, f"{folder / file}")
    say(
        to,
        f"\nInstall it, and run its tests:\n"
        f'  pip install -e "{folder}[test]"\n'
        f"  pytest {folder}\n"
        f"  genkit show {name} --kind {kind}",
    )


@app.command()
def recipe(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the recipe, and of its runs' folder.")
    ],
    base: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="RECIPE",
            help="Recipe to copy: a TOML file or a shipped recipe.",
            autocompletion=recipes,
        ),
    ] = "edm_aot",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="New file, .toml; default: NAME.toml.")
    ] = None,
) -> None:
    """Write a copy of a recipe in which a comment explains each key."""
    from genkit.files import write_text
    from genkit.plugin.declarations import declared
    from genkit.plugin.manager import load_plugins
    from genkit.plugin.registry import Registry
    from genkit.recipe import Source, read_source
    from genkit_author.new_recipe import check_name, explained

    check_name(name)
    file = out or Path(f"{name}.toml")
    if file.suffix != ".toml":
        raise UsageError(
            f"--out must end in .toml, got {file}; write {file.name}.toml", Code.UNKNOWN_CHOICE
        )
    if os.path.exists(file):  # noqa: PTH110, Path.exists raises for a long name
        raise UsageError(f"--out must be a new file, got {file}; write another name", Code.OCCUPIED)
    source = replace(read_source(base), label=base)

    def read(registry: Registry) -> list[str]:
        return [explained(source, name, registry, file.parent)]

    registry = load_plugins().registry
    (text,) = declared(read, registry) or read(registry)
    Source.parse(text, str(file))  # a comment may contain any character
    with writable("--out", file):
        write_text(file, text)
    say(console(), f"{file}: a copy of {base}; run it with: genkit run {file}")
