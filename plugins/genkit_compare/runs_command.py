"""``genkit runs``: list the runs in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from genkit.errors import Code, UsageError
from genkit.terminal import console, json_mistakes, say


@json_mistakes
def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with runs, or folder of a run.")
    ] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List the runs in a folder with their progress and best score."""
    if not folder.is_dir():
        got = f"the file {folder}" if folder.exists() else f"{folder}, which does not exist"
        raise UsageError(
            f"FOLDER must be a folder with runs, got {got}; write a different one", Code.NOT_FOUND
        )

    from genkit.parts.sheet import print_sheet
    from genkit_compare.listing import entries, table

    listed = entries(folder)
    if as_json:
        typer.echo(json.dumps([entry.as_json() for entry in listed], indent=2))
    elif listed:
        to = console()
        print_sheet(to, table(listed))
        for entry in listed:
            for text in filter(None, (entry.reason, entry.error)):
                say(to, f"\n{entry.folder.name}: {text}")
    else:
        say(console(), f"{folder} contains no runs.")
