"""``genkit import``: convert a network file of another project to a genkit file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from genkit.errors import Code, DataError, PluginError, UsageError
from genkit.recipe.source import parse_component
from genkit.terminal import console, say, show_progress
from genkit_files.disk import require_new, user_errors
from genkit_files.import_worker import NETWORK, RESULT

if TYPE_CHECKING:
    from torch import Tensor

    from genkit.artifacts import NetworkFile
    from genkit.interfaces import Importer, Trained

_MIN_SECONDS = 120  # minimum time limit, for Python imports on a busy machine; chosen, not tuned
_BYTES_PER_SECOND = 2_000_000  # assumed speed of a slow disk; chosen, not tuned


Source = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE", help="File to read; with --ema-length, a folder of snapshots."
    ),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .safetensors.")]
EmaLength = Annotated[
    float | None,
    typer.Option(
        metavar="LENGTH",
        help="Relative length of a weight average, which is reconstructed from a folder of "
        "snapshots of one training run.",
    ),
]


def import_network(
    source: Source,
    out: Out,
    importer: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="NAME",
            help="Importer, as a name or a table; genkit list-plugins --kind importer lists all.",
        ),
    ],
    ema_length: EmaLength = None,
) -> None:
    """Convert a network that was trained with the code of another project to a genkit file."""
    from genkit.networks import build
    from genkit.plugin.manager import load_plugins
    from genkit.recipe.decode import checked

    registry = load_plugins().registry
    table = parse_component(importer, "--as")
    with user_errors(out):
        reader = cast("Importer", checked(registry, "importer", table))
        _require_source(source, ema_length)
        require_new(out)
        with tempfile.TemporaryDirectory(prefix="genkit-import-") as folder:
            if ema_length is None:
                file, notes = read_in_process(table, source, Path(folder))
            else:
                pattern = reader.snapshots
                file, notes = _average(table, pattern, source, ema_length, Path(folder))
            trained = build(file, registry)
            file.save(out)
    to = console()
    say(to, f"{out}: {_summary(file, trained)}")
    for note in notes:
        say(to, f"Note: {note}.")
    if file.kind == "denoiser":
        say(to, f"Draw samples with: genkit sample {out} --out DIR")


def import_edm(source: Source, out: Out, ema_length: EmaLength = None) -> None:
    """Import a denoiser of EDM, EDM2 or EDM-AOT; abbreviates genkit import --as edm."""
    import_network(source, out, "edm", ema_length)


def _require_source(source: Path, ema_length: float | None) -> None:
    """Raise UsageError unless the source is a file, or a folder if there is an EMA length."""
    if ema_length is not None:
        from genkit.parts.power_profile import exponent

        exponent(ema_length)
        if source.is_file():
            raise UsageError(
                f"SOURCE must be a folder with --ema-length, got the file {source}; write the "
                "folder of the snapshots, or remove --ema-length"
            )
        if not source.is_dir():
            raise UsageError(
                f"SOURCE must be a folder with --ema-length, got {source}, which does not exist; "
                "write the folder of the snapshots"
            )
    elif source.is_dir():
        raise UsageError(
            f"SOURCE must be a file, got the folder {source}; write one of its files, or add "
            "--ema-length 0.1 to reconstruct an average from its snapshots"
        )
    elif not source.is_file():
        raise UsageError(
            f"SOURCE must be a file, got {source}, which does not exist; write a network snapshot "
            "or a training state"
        )


def _average(
    importer: Mapping[str, Any], pattern: str, source: Path, ema_length: float, folder: Path
) -> tuple[NetworkFile, list[str]]:
    """Reconstruct a weight average from snapshots.

    Args:
        importer: table of the importer that reads a snapshot.
        pattern: glob pattern of the file names of the snapshots.
        source: folder of the snapshots of one training run.
        ema_length: relative length of the average, which ends at the last snapshot.
        folder: folder for temporary files.

    Returns:
        The network with averaged weights, and notes for the user.

    Raises:
        DataError: there are no snapshots, or they cannot represent the average. Or a snapshot is
            invalid, has no known EMA length, has a different network from the first snapshot, or
            has the same length and number of images as a previous one.
    """
    from genkit.networks import build
    from genkit.parts.power_averages import reconstruct, snapshots_in, write_snapshot
    from genkit.parts.power_profile import MAX_LENGTH
    from genkit.plugin.manager import load_plugins

    registry = load_plugins().registry
    files = sorted(source.glob(pattern))
    snapshots: dict[tuple[int, float], Path] = {}
    first: NetworkFile | None = None
    notes: list[str] = []
    names: list[str] = []
    for file in show_progress(files, "reading"):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            network, network_notes = read_in_process(importer, file, Path(place))
        images, length = network.images, network.ema_length
        if length is None or not 0 < length <= MAX_LENGTH:
            raise DataError(
                f"{file} must be a snapshot whose EMA length is known, which some formats contain "
                "in the file name; move it out of the folder"
            )
        if not images:
            continue  # initial weights, which do not contribute to any average
        if first is None:
            first, notes = replace(network, weights={}), network_notes
            names = [name for name, _ in build(network, registry).module.named_parameters()]
        if (network.table, network.spec) != (first.table, first.spec):
            raise DataError(
                f"{file} must have the same network as {next(iter(snapshots.values()))}, got a "
                "different one; keep the snapshots of one training run in the folder"
            )
        other = snapshots.setdefault((images, length), file)
        if other is not file:
            raise DataError(
                f"{file} must differ from {other} in EMA length or number of images, got length "
                f"{length} and {images:,} images for both; keep the snapshots of one training run "
                "in the folder"
            )
        weights = dict(network.weights)
        parameters = {name: _narrow(weights.pop(name)) for name in names}
        write_snapshot(folder, length, images, parameters, buffers=weights)
    if first is None:
        raise DataError(
            f"SOURCE must be a folder with files {pattern}, got {source}, which has none; write "
            "the folder of the snapshots"
        )
    images = max(images for images, _ in snapshots)
    average, error = reconstruct(snapshots_in(folder), ema_length, images)
    note = f"the snapshots represent an average of this length with an error of {error:.2%}"
    averaged_file = replace(first, weights=average, images=images, ema_length=ema_length)
    return averaged_file, [*notes, note]


def _narrow(weights: Tensor) -> Tensor:
    """Convert weights to float16, which saves disk space, if this preserves all values."""
    half = weights.half()
    return half if bool((half == weights).all()) else weights


def read_in_process(
    importer: Mapping[str, Any], file: Path, folder: Path
) -> tuple[NetworkFile, list[str]]:
    """Read a file in a separate process with limited memory and time.

    Args:
        importer: table of the importer.
        file: file to read.
        folder: folder for the output of the process.

    Returns:
        The network, and notes for the user.

    Raises:
        DataError: the file cannot be read, or reading exceeds the limits.
        PluginError: the code of the importer raised an unexpected error.
    """
    seconds = _MIN_SECONDS + file.stat().st_size // _BYTES_PER_SECOND
    module = "genkit_files.import_worker"
    # With -P, a file in the working directory cannot shadow a module.
    command = [sys.executable, "-P", "-m", module, json.dumps(importer), str(file), str(folder)]
    # The memory limit counts address space, and each thread and malloc arena reserves some.
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    try:
        process = subprocess.run(
            command, capture_output=True, timeout=seconds, env={**os.environ, **single}, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"reading {file} took longer than the limit of {seconds} s; copy it to a faster disk"
        ) from error
    if not (folder / RESULT).is_file():
        lines = process.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {process.returncode}"
        raise DataError(f"{file} cannot be read: the reading process failed: {reason[:300]}")
    from genkit.artifacts import NetworkFile

    result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    if "error" in result:
        kind = PluginError if result.get("of_plugin") else DataError
        failure = kind(result["error"], Code[result["code"]])
        failure.add_note(result.get("traceback", ""))  # printed with --traceback
        raise failure
    network: NetworkFile = NetworkFile.load(folder / NETWORK)
    return network, result["notes"]


def _summary(file: NetworkFile, trained: Trained) -> str:
    numbers = sum(p.numel() for p in trained.module.parameters())
    parts = [f"{file.kind} {file.table['use']} of {numbers:,} parameters"]
    if "preconditioner" in file.table:
        parts.append(f"preconditioning {file.table['preconditioner']['use']}")
    parts += [
        f"items of {' x '.join(map(str, file.spec.shape))}",
        f"{trained.classes} classes" if trained.classes else "no classes",
        f"trained for {file.images:,} images"
        if file.images
        else "trained for an unknown number of images",
    ]
    if file.ema_length is not None:
        parts.append(f"averaged over a relative length of {file.ema_length}")
    return ", ".join(parts)
