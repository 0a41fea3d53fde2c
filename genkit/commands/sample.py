"""``genkit sample``: images from a checkpoint alone, one file for each seed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genkit.bench.options import parse_component
from genkit.errors import UsageError
from genkit.settings import shown
from genkit.terminal import check_device, console, say

if TYPE_CHECKING:
    from torch import Tensor

    from genkit.api import Denoiser

SETTINGS = "sampling.json"
GRID = "grid.png"
MOST_SEEDS = 10_000_000


def sample(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A file of `genkit export` or a training.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the samples go.")],
    seeds: Annotated[
        str, typer.Option(metavar="N-N,N,...", help="Which samples: 0-63, or 5,7,100-199.")
    ] = "0-63",
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Solver steps; two network calls each in heun.")
    ] = None,
    rho: Annotated[
        float | None, typer.Option(metavar="RHO", help="Greater puts more steps at low noise.")
    ] = None,
    schedule: Annotated[
        str, typer.Option(metavar="NAME", help="Noise levels, by name or by its table.")
    ] = "edm",
    solver: Annotated[str, typer.Option(metavar="NAME", help="By name or by its table.")] = "heun",
    class_index: Annotated[
        int | None,
        typer.Option("--class", metavar="K", min=0, help="All of one class; else each in turn."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Samples drawn at a time; changes none.")
    ] = 64,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
) -> None:
    """Draw samples from a denoiser's file."""
    chosen = parse_seeds(seeds)
    asked = {"steps": steps, "rho": rho}
    levels = {
        **parse_component(schedule, "--schedule"),
        **{name: value for name, value in asked.items() if value is not None},
    }
    method = parse_component(solver, "--solver")
    check_device(device)

    import torch

    from genkit.api import load_denoiser, sampling_parts
    from genkit.files import write_json
    from genkit.report.grid import save_grid
    from genkit.tensors import file_digest

    sampling_parts(levels, method)  # a mistake in them shows first
    denoiser = load_denoiser(checkpoint, device)
    if class_index is not None and class_index >= denoiser.classes:
        known = f"write 0 to {denoiser.classes - 1}" if denoiser.classes else "leave it out"
        raise UsageError(f"--class {class_index}: the denoiser has no such class; {known}")
    told = {
        "checkpoint": file_digest(checkpoint),
        "class": class_index,
        "schedule": levels,
        "solver": method,
    }
    ending = suffix(denoiser)
    missing = _begin(out, told, chosen, ending)
    write_json(out / SETTINGS, told)

    from rich.console import Console
    from rich.progress import track

    to = Console(stderr=True)
    starts = range(0, len(missing), batch_size)
    for start in track(starts, "sampling", console=to, transient=True, disable=not to.is_terminal):
        part = missing[start : start + batch_size]
        labels = None if class_index is None else [class_index] * len(part)
        data = denoiser.sample(
            part, schedule=levels, solver=method, labels=labels, batch_size=batch_size
        )
        for seed, item in zip(part, data, strict=True):
            _save(_place(out, seed, ending), item)
    save_grid(out / GRID, torch.stack([_load(_place(out, seed, ending)) for seed in chosen[:100]]))
    say(console(), f"{len(chosen):,} samples in {out}, of which {len(missing):,} are new")


def parse_seeds(text: str) -> list[int]:
    """Return the numbers of ``"0-63"`` or ``"5,7,100-199"``, each once, in their order.

    Raises:
        UsageError: something else is written.
    """
    chosen: dict[int, None] = {}
    for part in text.split(","):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(e.isascii() and e.isdigit() and len(e) < 16 for e in ends):
            raise UsageError(
                f"--seeds: {shown(part)} is no range of seeds; write 0-63 or 5,7,100-199"
            )
        first, last = int(ends[0]), int(ends[-1])
        if last < first:
            raise UsageError(f"--seeds: {shown(part)} ends before it begins; write {last}-{first}")
        if last - first >= MOST_SEEDS:
            raise UsageError(f"--seeds: {shown(part)} are more than {MOST_SEEDS:,} samples")
        chosen |= dict.fromkeys(range(first, last + 1))
    return list(chosen)


def suffix(denoiser: Denoiser) -> str:
    """Return the ending of a sample's file: PNG holds grey and coloured images."""
    channels = denoiser.spec.shape[0] if denoiser.spec.is_image else 0
    return "png" if channels in (1, 3) else "npy"


def _begin(out: Path, told: dict[str, Any], chosen: Iterable[int], ending: str) -> list[int]:
    """Make the folder, or go on in it; return the seeds that are not there yet."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; choose a folder with --out")
    if out.is_dir() and any(out.iterdir()):
        try:
            found = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UsageError(f"{out} holds something else; choose another --out") from None
        differ = sorted(name for name in told if found.get(name) != told[name])
        if differ:
            raise UsageError(
                f"{out} holds samples of another {' and '.join(differ)}; choose another --out"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be made: {error.strerror}") from error
    return [seed for seed in chosen if not _place(out, seed, ending).exists()]


def _place(out: Path, seed: int, ending: str) -> Path:
    return out / f"{seed:06d}.{ending}"


def _save(path: Path, item: Tensor) -> None:
    """Write one sample: an image as PNG, anything else as a float32 array."""
    import io

    import numpy as np
    from PIL import Image

    from genkit.files import write_bytes
    from genkit.tensors import encoded

    content = io.BytesIO()
    if path.suffix == ".png":
        pixels = encoded(item).movedim(0, -1).squeeze(-1)
        Image.fromarray(pixels.numpy()).save(content, format="png")
    else:
        np.save(content, item.numpy(), allow_pickle=False)
    write_bytes(path, content.getvalue())


def _load(path: Path) -> Tensor:
    """Read what :func:`_save` wrote."""
    import numpy as np
    import torch
    from PIL import Image

    from genkit.tensors import decoded

    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False))
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image))
    return decoded(pixels.reshape(*pixels.shape[:2], -1).movedim(-1, 0))
