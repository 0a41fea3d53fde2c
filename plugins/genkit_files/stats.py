"""``genkit stats``: write the mean and covariance of the features of a data set to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from genkit.recipe.source import parse_component
from genkit.terminal import check_device, console, say
from genkit_files.disk import require_new, user_errors

if TYPE_CHECKING:
    from genkit.interfaces import Dataset, Extractor


def stats(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Data set, as a name or a table.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .safetensors.")],
    extractor: Annotated[
        str,
        typer.Option(metavar="NAME", help="Extractor, as a name or a table."),
    ] = "inception",
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
) -> None:
    """Write statistics of the features of a data set, which stages can use instead of the data."""
    items, features = parse_component(data, "DATA"), parse_component(extractor, "--extractor")
    check_device(device)
    with user_errors(out):
        require_new(out)

        from genkit.artifacts.statistics import save_statistics
        from genkit.features import DatasetReference, Extractors, FileContext
        from genkit.machine import resolve_device
        from genkit.plugin.manager import load_plugins
        from genkit.recipe.decode import checked

        registry = load_plugins().registry
        dataset = cast("Dataset", checked(registry, "dataset", items))
        chosen = cast("Extractor", checked(registry, "extractor", features))
        outside = FileContext(
            resolve_device(device), registry=registry, warn=lambda text: say(console(), text)
        )
        statistics = DatasetReference(dataset, Extractors(outside)).statistics(chosen)
        save_statistics(out, {chosen.frechet: statistics})
    say(
        console(),
        f"{out}: statistics of {statistics.mean.numel():,} features for {chosen.frechet}, of "
        f"{statistics.count:,} items",
    )
