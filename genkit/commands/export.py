"""``genkit export``: one network of a run, in a file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genkit.errors import UsageError
from genkit.settings import near_match
from genkit.terminal import console, say

if TYPE_CHECKING:
    from genkit.plugin.registry import Registry


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, runs/NAME.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, .safetensors.")],
    stage: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Which training, where the run has several denoisers."),
    ] = None,
    ema_length: Annotated[
        float | None,
        typer.Option(
            metavar="LENGTH",
            help="Average the weights over this relative length, after the training; "
            "needs ema_lengths in its recipe.",
        ),
    ] = None,
) -> None:
    """Write a trained denoiser to a file of its own."""
    if out.exists():
        raise UsageError(f"{out} exists; move it away, or write another name")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is no folder; make it first")
    place = _stage_folder(run, stage)

    from genkit.plugin.manager import load_plugins

    images = _write(place, out, ema_length, load_plugins().registry)
    say(console(), f"{out}: the denoiser of {place}, trained for {images:,} images")


def _stage_folder(run: Path, stage: str | None) -> Path:
    """Return the folder of the stage whose denoiser is meant."""
    found = {
        path.parent.name[3:]: path.parent for path in run.glob("[0-9][0-9]-*/denoiser.safetensors")
    }
    if not found:
        raise UsageError(f"{run}: no training of a denoiser is finished in it; name a run's folder")
    if stage is None and len(found) > 1:
        raise UsageError(f"{run} has several denoisers; choose with --stage: {', '.join(found)}")
    chosen = stage or next(iter(found))
    if chosen not in found:
        hint = near_match(chosen, found) or f"it has: {', '.join(found)}"
        raise UsageError(f'{run}: no stage "{chosen}" left a denoiser; {hint}')
    return found[chosen]


def _write(place: Path, out: Path, ema_length: float | None, registry: Registry) -> int:
    """Write the network, rebuilt and so checked; return the images it was trained for."""
    from genkit import tensors
    from genkit.train.checkpoint import load_network

    path = place / "denoiser.safetensors"
    trained = load_network(path, registry)
    weights, metadata = tensors.load(path)
    if ema_length is not None:
        from genkit.train.power_ema import reconstruct_network

        weights = reconstruct_network(place, ema_length)
        trained.module.load_state_dict(weights)
        metadata["ema_length"] = str(ema_length)
    tensors.save(out, weights, metadata)
    return int(metadata["images"])
