"""``genkit data``: download the files of data sets."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genkit.errors import Code, InterruptedRun, PluginError, UsageError
from genkit.settings import near_match, quote, toml_value
from genkit.terminal import console, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.progress import Progress, TaskID

    from genkit.plugin.registry import Registry
    from genkit.types import RemoteFile

app = typer.Typer(
    help="Download the files of data sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None: ...


def _require_published(name: str) -> str:
    """Check the name before the options, so that an unknown name is reported first."""
    from genkit.plugin.manager import load_plugins

    _find_published(load_plugins().registry, name)
    return name


@app.command()
def get(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the data set in recipes.", callback=_require_published
        ),
    ],
    root: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files.")],
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Address of a mirror, to which the file names are appended."
        ),
    ] = None,
) -> None:
    """Download the missing files of a data set; all files are verified by their checksums."""
    from genkit.plugin.manager import load_plugins
    from genkit_data.download import require_web

    if url is not None:
        require_web(url)
    files = _find_published(load_plugins().registry, name)
    folder = root.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--root must be a folder that can be created, got {root}: {error.strerror}",
            Code.IO_ERROR,
        ) from error
    try:
        _fetch({file: _from(remote, file, url) for file, remote in files.items()}, folder)
    except KeyboardInterrupt as stop:
        raise InterruptedRun("stopped; completed files are kept") from stop
    table = toml_value({"use": name, "root": str(root)})
    say(console(), f"{name} is in {root}. In a recipe: data = {table}")


def _find_published(registry: Registry, name: str) -> Mapping[str, RemoteFile]:
    """Return a dict from each published file of a data set to its address and checksum.

    Raises:
        UsageError: the data set has no published files.
    """
    downloadable = _list_downloadable(registry)
    if name not in downloadable:
        hint = near_match(name, downloadable) or f"write {' or '.join(sorted(downloadable))}"
        raise UsageError(
            f"NAME must be a data set that can be downloaded, got {quote(name)}; {hint}",
            Code.UNKNOWN_CHOICE,
        )
    return downloadable[name]


def _list_downloadable(registry: Registry) -> dict[str, Mapping[str, RemoteFile]]:
    """Return the published files of each downloadable data set, by the name of the data set."""
    archives_by_name = {}
    for entry in registry.entries("dataset"):
        with suppress(PluginError):  # reported when the data set is used
            if archives := registry.load(entry).archives:
                archives_by_name[entry.name] = archives
    return archives_by_name


def _from(remote: RemoteFile, file: str, mirror: str | None) -> RemoteFile:
    return remote if mirror is None else replace(remote, url=f"{mirror.rstrip('/')}/{file}")


def _fetch(files: Mapping[str, RemoteFile], folder: Path) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    from genkit_data.download import download, find_missing

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    missing = find_missing(files, folder)
    with Bars(*columns, console=Console(stderr=True)) as progress:
        for file, remote in missing.items():
            task = progress.add_task(file, total=remote.size)
            download(file, remote, folder, partial(_advance, progress, task))


def _advance(progress: Progress, task: TaskID, done: int) -> None:
    progress.update(task, completed=done)
