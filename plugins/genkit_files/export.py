"""``genkit export``: write a network of a run to a self-contained file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from genkit.errors import Code, UsageError
from genkit.settings import near_match
from genkit.terminal import console, say
from genkit_files.disk import require_new, user_errors


def _require_folder(run: Path) -> Path:
    """Check the folder before other arguments, so that a wrong folder is reported first."""
    from genkit.artifacts.runs import is_run

    if run.is_dir():
        return run
    runs = [str(path) for path in sorted(Path("runs").glob("*")) if is_run(path)]
    hint = near_match(str(run), runs) or f"write {' or '.join(runs[:5]) or 'runs/NAME'}"
    got = f"{run}, which is a file" if run.exists() else f"{run}, which does not exist"
    raise UsageError(f"RUN must be the folder of a run, got {got}; {hint}", Code.NOT_FOUND)


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder of a run, such as runs/NAME.", callback=_require_folder
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .safetensors.")],
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Id of the stage that trains the network; by default the only stage that trains a "
            "denoiser.",
        ),
    ] = None,
    ema_length: Annotated[
        float | None,
        typer.Option(
            metavar="LENGTH",
            help="Relative length of a weight average, which is reconstructed from snapshots; "
            "requires the average power-ema in the recipe.",
        ),
    ] = None,
) -> None:
    """Write a trained network of a run to one file: a denoiser, or the network of --stage."""
    with user_errors(out):
        require_new(out)
        path, kind = _network_file(run, stage)
        images = _write(path, out, ema_length)
    to = console()
    say(to, f"{out}: the {kind} of {path.parent}, trained for {images:,} images")
    if kind == "denoiser":
        say(to, f"Draw samples with: genkit sample {out} --out DIR")


def _network_file(run: Path, stage: str | None) -> tuple[Path, str]:
    """Return the file of a network (or its checkpoint during training), and the network's kind."""
    from genkit import tensors
    from genkit.artifacts.layout import CHECKPOINT, stages_in
    from genkit.artifacts.network import NETWORK_FILES

    networks: dict[str, tuple[Path, str]] = {}
    for name, place in stages_in(run).items():
        checkpoint = place / CHECKPOINT
        if checkpoint.is_file():
            kind = tensors.metadata(checkpoint).get("kind", "")
            if kind in NETWORK_FILES:
                networks[name] = checkpoint, kind
        for kind, artifact in NETWORK_FILES.items():
            if (network := place / artifact.filename()).is_file():  # training is finished
                networks[name] = network, kind
    if stage is None:
        denoisers = [name for name, (_, kind) in networks.items() if kind == "denoiser"]
        if not denoisers:
            others = ", ".join(networks)
            hint = f"choose with --stage: {others}" if others else "write the folder of a run"
            raise UsageError(f"{run} must contain a denoiser, got none; {hint}")
        if len(denoisers) > 1:
            raise UsageError(
                f"{run} contains several denoisers; choose with --stage: {', '.join(denoisers)}"
            )
        stage = denoisers[0]
    if stage not in networks:
        hint = near_match(stage, networks) or f"write one of: {', '.join(networks) or 'none'}"
        raise UsageError(f'--stage must have written a network in {run}, got "{stage}"; {hint}')
    return networks[stage]


def _write(path: Path, out: Path, ema_length: float | None) -> int:
    """Write the network if it can be built; return its number of training images."""
    from genkit.artifacts import NetworkFile
    from genkit.networks import build
    from genkit.parts.power_averages import reconstruct_network
    from genkit.plugin.manager import load_plugins

    file = NetworkFile.load(path)
    if ema_length is not None:
        weights, error = reconstruct_network(path.parent, ema_length)
        file = replace(file, weights=weights, ema_length=ema_length)
        say(
            console(),
            f"Note: the snapshots represent an average of length {ema_length} with an "
            f"error of {error:.2%}.",
        )
    build(file, load_plugins().registry)
    file.save(out)
    return file.images
