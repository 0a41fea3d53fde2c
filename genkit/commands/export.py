"""``genkit export``: one network of a run, in a file that needs nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from genkit.commands.disk import mendable, require_new
from genkit.errors import UsageError
from genkit.settings import near_match
from genkit.terminal import console, say


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
            "its recipe needs the average power-ema.",
        ),
    ] = None,
) -> None:
    """Write a trained denoiser to a file of its own."""
    with mendable(out):
        require_new(out)
        path = _denoiser_file(run, stage)
        images = _write(path, out, ema_length)
    to = console()
    say(to, f"{out}: the denoiser of {path.parent}, trained for {images:,} images")
    say(to, f"Draw samples with: genkit sample {out} --out DIR")


def _denoiser_file(run: Path, stage: str | None) -> Path:
    """Return the file of the denoiser that is meant: the network, or a training's checkpoint."""
    from genkit import tensors
    from genkit.artifacts import DenoiserFile
    from genkit.artifacts.layout import CHECKPOINT, stages_in

    found: dict[str, Path] = {}
    for stage_id, place in stages_in(run).items():
        network, checkpoint = place / DenoiserFile.filename(), place / CHECKPOINT
        if network.is_file():
            found[stage_id] = network
        elif checkpoint.is_file() and tensors.metadata(checkpoint).get("kind") == "denoiser":
            found[stage_id] = checkpoint
    if not found:
        raise UsageError(f"{run}: no denoiser is in it yet; name the folder of a run")
    if stage is None and len(found) > 1:
        raise UsageError(f"{run} has several denoisers; choose with --stage: {', '.join(found)}")
    chosen = stage or next(iter(found))
    if chosen not in found:
        hint = near_match(chosen, found) or f"it has: {', '.join(found)}"
        raise UsageError(f'{run}: no stage "{chosen}" left a denoiser; {hint}')
    return found[chosen]


def _write(path: Path, out: Path, ema_length: float | None) -> int:
    """Write the network, built and so checked; return the images it was trained for."""
    from genkit.artifacts import DenoiserFile
    from genkit.networks import build
    from genkit.parts.power_averages import reconstruct_network
    from genkit.plugin.manager import load_plugins

    file = DenoiserFile.load(path)
    if ema_length is not None:
        weights, error = reconstruct_network(path.parent, ema_length)
        file = replace(file, weights=weights, ema_length=ema_length)
        say(
            console(),
            f"Note: the snapshots represent an average of length {ema_length} with an error of "
            f"{error:.2%}.",
        )
    build(file, load_plugins().registry)
    file.save(out)
    return file.images
