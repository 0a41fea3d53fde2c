"""``genkit import``: a network of another project becomes a file of genkit's."""

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
from genkit_files.disk import mendable, require_new
from genkit_files.import_worker import FOUND, NETWORK

if TYPE_CHECKING:
    from torch import Tensor

    from genkit.artifacts import NetworkFile
    from genkit.interfaces import Importer, Trained

_LEAST_SECONDS = 120
_BYTES_A_SECOND = 2_000_000  # a slow disk on a busy machine


Source = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE", help="The file to read; with --ema-length a folder of snapshots."
    ),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, .safetensors.")]
EmaLength = Annotated[
    float | None,
    typer.Option(
        metavar="LENGTH",
        help="Average the weights over this relative length, from a folder of snapshots of one "
        "training.",
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
            help="Importer, by name or by its table; genkit list-plugins --kind importer shows "
            "all.",
        ),
    ],
    ema_length: EmaLength = None,
) -> None:
    """Import a network that was trained with the code of another project."""
    from genkit.networks import build
    from genkit.plugin.manager import load_plugins
    from genkit.recipe.decode import checked

    registry = load_plugins().registry
    table = parse_component(importer, "--as")
    with mendable(out):
        reader = cast("Importer", checked(registry, "importer", table))
        _require_source(source, ema_length)
        require_new(out)
        with tempfile.TemporaryDirectory(prefix="genkit-import-") as folder:
            if ema_length is None:
                file, notes = read_apart(table, source, Path(folder))
            else:
                pattern = reader.snapshots
                file, notes = _averaged(table, pattern, source, ema_length, Path(folder))
            trained = build(file, registry)
            file.save(out)
    to = console()
    say(to, f"{out}: {_summary(file, trained)}")
    for note in notes:
        say(to, f"Note: {note}.")
    if file.kind == "denoiser":
        say(to, f"Draw samples with: genkit sample {out} --out DIR")


def import_edm(source: Source, out: Out, ema_length: EmaLength = None) -> None:
    """Import a denoiser of EDM, EDM2 or EDM-AOT: genkit import --as edm."""
    import_network(source, out, "edm", ema_length)


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
            "--ema-length 0.1 to average all snapshots in it"
        )
    elif not source.is_file():
        raise UsageError(
            f"{source} must be a file, and does not exist; write a network snapshot or a "
            "training state"
        )


def _averaged(
    importer: Mapping[str, Any], pattern: str, source: Path, ema_length: float, folder: Path
) -> tuple[NetworkFile, list[str]]:
    """Return the average of a relative length over a training, and notes on it.

    Args:
        importer: table of the component that reads a snapshot.
        pattern: pattern of the names of snapshots.
        source: folder of the snapshots of the training.
        ema_length: relative length of the average, which ends at the last snapshot.
        folder: for temporary files.

    Raises:
        DataError: there are no snapshots, or none that represent the average; or one is invalid,
            has no known length, belongs to another network than the first, or has the length and
            the time of another one.
    """
    from genkit.networks import build
    from genkit.parts.power_averages import reconstruct, snapshots_in, write_snapshot
    from genkit.parts.power_profile import MAX_LENGTH
    from genkit.plugin.manager import load_plugins

    registry = load_plugins().registry
    files = sorted(source.glob(pattern))
    read: dict[tuple[int, float], Path] = {}
    first: NetworkFile | None = None
    notes: list[str] = []
    names: list[str] = []
    for file in show_progress(files, "reading"):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            found, said = read_apart(importer, file, Path(place))
        images, length = found.images, found.ema_length
        if length is None or not 0 < length <= MAX_LENGTH:
            raise DataError(
                f"{file} must be a snapshot of which time and length are known, as its name may "
                "state them; move it out of the folder"
            )
        if not images:
            continue  # the initial weights, which no average needs
        if first is None:
            first, notes = replace(found, weights={}), said
            names = [name for name, _ in build(found, registry).module.named_parameters()]
        if (found.table, found.spec) != (first.table, first.spec):
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
        weights = dict(found.weights)
        averaged = {name: _narrowed(weights.pop(name)) for name in names}
        write_snapshot(folder, length, images, averaged, buffers=weights)
    if first is None:
        raise DataError(
            f"{source} must hold snapshots of a training, got no {pattern}; write the folder of "
            "the training's snapshots"
        )
    images = max(images for images, _ in read)
    average, error = reconstruct(snapshots_in(folder), ema_length, images)
    note = f"the snapshots represent an average of this length with an error of {error:.2%}"
    averaged_file = replace(first, weights=average, images=images, ema_length=ema_length)
    return averaged_file, [*notes, note]


def _narrowed(weights: Tensor) -> Tensor:
    """Return weights in float16 where it holds the same values, which takes half the disk space."""
    half = weights.half()
    return half if bool((half == weights).all()) else weights


def read_apart(
    importer: Mapping[str, Any], file: Path, folder: Path
) -> tuple[NetworkFile, list[str]]:
    """Read a file in a process of its own, within limits of memory and time.

    Args:
        importer: table of the component.
        file: to read.
        folder: folder for the files of that process.

    Returns:
        The network, and sentences that a user should know.

    Raises:
        DataError: the file cannot be read, or takes more than it may.
        PluginError: the importer's code failed.
    """
    seconds = _LEAST_SECONDS + file.stat().st_size // _BYTES_A_SECOND
    module = "genkit_files.import_worker"
    # -P: a file of the working folder that is called like a module is not imported.
    command = [sys.executable, "-P", "-m", module, json.dumps(importer), str(file), str(folder)]
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
    from genkit.artifacts import NetworkFile

    found: dict[str, Any] = json.loads((folder / FOUND).read_text(encoding="utf-8"))
    if "error" in found:
        kind = PluginError if found.get("of_plugin") else DataError
        refused = kind(found["error"], Code[found["code"]])
        refused.add_note(found.get("traceback", ""))  # shown by --traceback
        raise refused
    network: NetworkFile = NetworkFile.load(folder / NETWORK)
    return network, found["notes"]


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
        else "trained for a number of images that the file's name does not tell",
    ]
    if file.ema_length is not None:
        parts.append(f"averaged over a relative length of {file.ema_length}")
    return ", ".join(parts)
