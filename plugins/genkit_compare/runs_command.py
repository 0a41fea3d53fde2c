"""``genkit runs``: lists the runs in a folder. Heavy imports wait until it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from genkit.errors import Code, UsageError
from genkit.terminal import console, say


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with runs, or a run.")
    ] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List the runs in a folder: how far they are, and their best score."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UsageError(
            f"FOLDER must be a folder with runs, and {folder} {what}; name another", Code.NOT_FOUND
        )

    from genkit.parts.sheet import print_sheet
    from genkit_compare.listing import entries, table

    found = entries(folder)
    if as_json:
        typer.echo(json.dumps([entry.as_json() for entry in found], indent=2))
    elif found:
        to = console()
        print_sheet(to, table(found))
        for entry in found:
            if entry.reason:
                say(to, f"\n{entry.folder.name}: {entry.reason}")
    else:
        say(console(), f"{folder} holds no runs.")
