"""``genkit import-edm``: published weights become a file that ``genkit sample`` draws from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genkit.commands.disk import mendable, require_new
from genkit.commands.import_worker import FOUND, WEIGHTS
from genkit.errors import DataError, UsageError
from genkit.terminal import console, say, tracked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from genkit.interfaces import Trained

_DESCRIPTION = ("network", "spec")
"""What must be the same in all snapshots of a training."""

_LEAST_SECONDS = 120
_BYTES_A_SECOND = 2_000_000  # a slow disk on a busy machine


def import_edm(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A network-snapshot-*.pkl or training-state-*.pt; with --ema-length a folder.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, .safetensors.")],
    ema_length: Annotated[
        float | None,
        typer.Option(
            metavar="LENGTH",
            help="Average the weights over this relative length, from a folder of snapshots that "
            "EDM2 wrote in one training.",
        ),
    ] = None,
) -> None:
    """Import a denoiser that was trained with the code of EDM, EDM2 or EDM-AOT."""
    with mendable(out):
        _require_source(source, ema_length)
        require_new(out)
        with tempfile.TemporaryDirectory(prefix="genkit-import-") as folder:
            if ema_length is None:
                found = read_apart("edm", source, Path(folder))
                weights = _weights(Path(folder))
            else:
                weights, found = _averaged(source, ema_length, Path(folder))
            trained = _written(weights, found, out)
    to = console()
    say(to, f"{out}: {_summary(trained, found)}")
    for note in found["notes"]:
        say(to, f"Note: {note}.")
    say(to, f"Draw samples with: genkit sample {out} --out DIR")


def _require_source(source: Path, ema_length: float | None) -> None:
    """Raise an error unless the source is a file, or a folder with a valid length."""
    if ema_length is not None:
        from genkit.parts.power_profile import exponent

        exponent(ema_length)
        if source.is_file():
            raise UsageError(
                f"{source} must be a folder for --ema-length, got a file; write the folder of the "
                "training's snapshots, or leave --ema-length out"
            )
        if not source.is_dir():
            raise UsageError(
                f"{source} must be a folder for --ema-length, and does not exist; "
                "write the folder of the training's snapshots"
            )
    elif source.is_dir():
        raise UsageError(
            f"{source} must be a file, got a folder; write one of its files, or write "
            "--ema-length 0.1 to average all EDM2 snapshots in it"
        )
    elif not source.is_file():
        raise UsageError(
            f"{source} must be a file, and does not exist; write a network snapshot or a "
            "training state"
        )


def _averaged(
    source: Path, ema_length: float, folder: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the average of a relative length over a training, and its description.

    Args:
        source: folder of EDM2's snapshots of the training.
        ema_length: relative length of the average, which ends at the last snapshot.
        folder: for temporary files.

    Raises:
        DataError: there are no snapshots, or none that represent the average; or one is invalid,
            has no known length, belongs to another network than the first, or has the length and
            the time of another one.
    """
    from genkit.parts.power_averages import reconstruct, snapshots_in, write_snapshot
    from genkit.parts.power_profile import MAX_LENGTH

    files = sorted(source.glob("*.pkl"))
    read: dict[tuple[int, float], Path] = {}
    first: dict[str, Any] = {}
    names: list[str] = []
    for file in tracked(files, "reading"):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            found = read_apart("edm", file, Path(place))
            weights = _weights(Path(place))
        images, length = found["images"], found["ema_length"]
        if length is None or not 0 < length <= MAX_LENGTH:
            raise DataError(
                f"{file} must be a snapshot of EDM2 with its time and length in its name, such as "
                "network-snapshot-0002097-0.050.pkl; move it out of the folder"
            )
        if not images:
            continue  # EDM2 also writes the initial weights, which no average needs
        if not first:
            first = found
            names = [name for name, _ in _built(weights, found).module.named_parameters()]
        if any(found[part] != first[part] for part in _DESCRIPTION):
            raise DataError(
                f"{file} must have the network of {next(iter(read.values()))}, got another; "
                "keep the snapshots of one training in the folder"
            )
        other = read.setdefault((images, length), file)
        if other is not file:
            raise DataError(
                f"{file} must differ from {other} in length or time, got two averages of length "
                f"{length} up to {images:,} images; keep the snapshots of one training in the "
                "folder"
            )
        averaged = {name: _narrowed(weights.pop(name)) for name in names}
        write_snapshot(folder, length, images, averaged, buffers=weights)
    if not read:
        raise DataError(
            f"{source} must hold EDM2 snapshots of a training, got none; write a folder with files "
            "such as network-snapshot-0002097-0.050.pkl"
        )
    images = max(images for images, _ in read)
    average, error = reconstruct(snapshots_in(folder), ema_length, images)
    note = f"the snapshots represent an average of this length with an error of {error:.2%}"
    found = {**first, "images": images, "ema_length": ema_length}
    return average, {**found, "notes": [*first["notes"], note]}


def _narrowed(weights: Tensor) -> Tensor:
    """Return weights in float16 where it holds the same values, which takes half the disk space."""
    half = weights.half()
    return half if bool((half == weights).all()) else weights


def _weights(folder: Path) -> dict[str, Tensor]:
    from genkit import tensors

    return tensors.load(folder / WEIGHTS)[0]


def read_apart(importer: str, file: Path, folder: Path) -> dict[str, Any]:
    """Read a file in a process of its own, within limits of memory and time.

    Args:
        importer: name of the component.
        file: to read.
        folder: in which the weights are left, as :data:`~genkit.commands.import_worker.WEIGHTS`.

    Returns:
        ``network``, ``spec``, ``images``, ``notes`` and ``ema_length``, in plain values.

    Raises:
        DataError: the file cannot be read, or takes more than it may.
    """
    seconds = _LEAST_SECONDS + file.stat().st_size // _BYTES_A_SECOND
    module = "genkit.commands.import_worker"
    # -P: a file of the working folder that is called like a module is not imported.
    command = [sys.executable, "-P", "-m", module, importer, str(file), str(folder)]
    # Threads would take address space of their own for their stacks and their memory.
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=seconds, env={**os.environ, **alone}, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{file} takes more than {seconds} s to read") from error
    if not (folder / FOUND).is_file():
        told = done.stderr.decode(errors="replace").strip().splitlines()
        why = told[-1] if told else f"it ended with {done.returncode}"
        raise DataError(f"{file} cannot be read: the process that reads it failed: {why[:300]}")
    found: dict[str, Any] = json.loads((folder / FOUND).read_text(encoding="utf-8"))
    if "error" in found:
        raise DataError(found["error"])
    return found


def _written(weights: Mapping[str, Tensor], found: Mapping[str, Any], out: Path) -> Trained:
    """Build the network with its weights, and write it."""
    from genkit.train.checkpoint import save_network

    trained = _built(weights, found)
    save_network(out, weights, _description(found), found["images"])
    return trained


def _built(weights: Mapping[str, Tensor], found: Mapping[str, Any]) -> Trained:
    from genkit.plugin.manager import load_plugins
    from genkit.train.checkpoint import rebuilt

    return rebuilt(weights, _description(found), load_plugins().registry)


def _description(found: Mapping[str, Any]) -> dict[str, str]:
    described = {name: json.dumps(found[name], sort_keys=True) for name in _DESCRIPTION}
    if found["ema_length"] is not None:
        described["ema_length"] = str(found["ema_length"])
    return {**described, "kind": "denoiser"}


def _summary(trained: Trained, found: Mapping[str, Any]) -> str:
    numbers = sum(p.numel() for p in trained.module.parameters())
    shape = " x ".join(map(str, trained.spec.shape))
    parts = [
        f"{found['network']['use']} of {numbers:,} parameters",
        f"preconditioning {found['network']['preconditioner']['use']}",
        f"images of {shape}",
        f"{trained.spec.classes} classes" if trained.spec.classes else "no classes",
        f"trained for {found['images']:,} images"
        if found["images"]
        else "trained for a number of images that the file's name does not tell",
    ]
    if found["ema_length"] is not None:
        parts.append(f"averaged over a relative length of {found['ema_length']}")
    return ", ".join(parts)
