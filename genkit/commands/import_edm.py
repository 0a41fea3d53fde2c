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
from genkit.terminal import console, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genkit.interfaces import Trained

_LEAST_SECONDS = 120
_BYTES_A_SECOND = 2_000_000  # a slow disk on a busy machine


def import_edm(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A network-snapshot-*.pkl or training-state-*.pt."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, .safetensors.")],
) -> None:
    """Bring in a denoiser that the code of EDM or EDM-AOT trained; none of its code is run."""
    if not file.is_file():
        raise UsageError(f"{file} is no file; name a network snapshot or a training state")
    with mendable(out):
        require_new(out)
        with tempfile.TemporaryDirectory(prefix="genkit-import-") as folder:
            found = read_apart("edm", file, Path(folder))
            trained = _checked(found, Path(folder) / WEIGHTS, out)
    to = console()
    say(to, f"{out}: {_summary(trained, found)}")
    for note in found["notes"]:
        say(to, f"Note: {note}.")
    say(to, f"Draw samples with: genkit sample {out} --out DIR")


def read_apart(importer: str, file: Path, folder: Path) -> dict[str, Any]:
    """Read a file in a process of its own, within limits of memory and time.

    Args:
        importer: name of the component.
        file: to read.
        folder: in which the weights are left, as :data:`~genkit.commands.import_worker.WEIGHTS`.

    Returns:
        ``network``, ``spec``, ``images`` and ``notes``, in plain values.

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


def _checked(found: Mapping[str, Any], path: Path, out: Path) -> Trained:
    """Build the network that was found, with its weights, and write it."""
    from genkit import tensors
    from genkit.plugin.manager import load_plugins
    from genkit.train.checkpoint import rebuilt, save_network

    weights, _ = tensors.load(path)
    described = {name: json.dumps(found[name], sort_keys=True) for name in ("network", "spec")}
    described["kind"] = "denoiser"
    trained = rebuilt(weights, described, load_plugins().registry)
    save_network(out, weights, described, found["images"])
    return trained


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
    return ", ".join(parts)
