"""``genkit sample``: images from a checkpoint alone, one file for each seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from genkit.errors import Code, UsageError
from genkit.recipe.source import parse_component, shipped_recipes
from genkit.settings import quote
from genkit.terminal import check_device, console, processes, say, show_progress, warn
from genkit.types import SEED_LIMIT
from genkit_files.disk import mendable

if TYPE_CHECKING:
    from genkit.denoiser import Denoiser
    from genkit.types import Start

MOST_SEEDS = 10_000_000


def _require_checkpoint(checkpoint: Path) -> Path:
    """Return the path of a network's file; other files are refused before options are missed."""
    wanted = "CHECKPOINT must be the file of a denoiser, got"
    if checkpoint.suffix == ".toml" or str(checkpoint) in shipped_recipes():
        raise UsageError(
            f"{wanted} the recipe {checkpoint}; genkit run {checkpoint} trains its denoiser, and "
            "genkit export writes the denoiser of the run to a file",
            Code.WRONG_KIND,
        )
    if not checkpoint.is_file():
        got = f"the folder {checkpoint}" if checkpoint.is_dir() else f"{checkpoint}, no file"
        raise UsageError(
            f"{wanted} {got}; genkit export writes one of a run, and genkit import one of "
            "published weights",
            Code.NOT_FOUND,
        )
    if checkpoint.suffix in (".pkl", ".pt"):
        raise UsageError(
            f"{wanted} the pickle {checkpoint}; genkit import converts it", Code.WRONG_KIND
        )
    return checkpoint


def sample(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A file of `genkit export` or a training.",
            callback=_require_checkpoint,
        ),
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
    latents: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Random draws, by name or by its table; edm: those of EDM's generate.py.",
        ),
    ] = "derived",
    fit_to: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Fit the noise levels for --steps and --solver to this data set, by name or by "
            "its table; they are kept for later calls.",
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="State at the first noise level: noise, corrected, corrected-twice, or auto, "
            "which is what the pairs of the training require.",
        ),
    ] = "auto",
    guidance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE",
            help="Correction of the denoiser, by its table, in which a network is the path of its "
            "file; several are summed.",
        ),
    ] = None,
    class_index: Annotated[
        int | None,
        typer.Option(
            "--class", metavar="K", min=0, help="All of one class; else as --latents draws them."
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Samples drawn at a time; they differ by rounding."),
    ] = 64,
    precision: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of the networks: float32, tf32, bfloat16 or float16."),
    ] = "float32",
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
) -> None:
    """Draw samples from a denoiser's file."""
    with processes() as world:
        chosen = parse_seeds(seeds)
        asked = {"steps": steps, "rho": rho}
        levels = {
            **parse_component(schedule, "--schedule"),
            **{name: value for name, value in asked.items() if value is not None},
        }
        method = parse_component(solver, "--solver")
        fitted_to = None if fit_to is None else parse_component(fit_to, "--fit-to")
        if fitted_to is not None and (rho is not None or levels != _plain(steps)):
            raise UsageError(
                "--fit-to finds the noise levels, and --schedule and --rho set them; leave these "
                "or --fit-to out"
            )
        draws = parse_component(latents, "--latents")
        corrections = [parse_component(text, "--guidance") for text in guidance or []]
        check_device(device)
        import torch

        from genkit.denoiser import load_denoiser, sampling_parts
        from genkit.designs import components, references
        from genkit.machine import resolve_device
        from genkit.parts.precision import require_precision
        from genkit.plugin.manager import load_plugins
        from genkit.recipe.decode import checked
        from genkit.start import SamplingWarning, sampling_warnings
        from genkit.tensors import file_digest
        from genkit.world import SINGLE_PROCESS
        from genkit_files.fitting import fitted
        from genkit_files.sample_files import SampleFiles

        world = world or SINGLE_PROCESS
        arithmetic = require_precision(precision)
        parts = sampling_parts(levels, method, draws)  # a mistake in them shows first
        registry = load_plugins().registry
        guides: list[Any] = [checked(registry, "guidance", table) for table in corrections]
        denoiser = load_denoiser(checkpoint, str(resolve_device(device, world)))
        _check_class(class_index, denoiser)
        chosen_start = cast("Start", start)
        if fitted_to is not None:
            levels = world.on_main(partial(fitted, denoiser, fitted_to, method, start, steps))
            parts = sampling_parts(levels, method, draws)
        named = list(references(parts.schedule))
        parts = denoiser.bind_schedule(parts, chosen_start)  # a missing file is its mistake
        files_of_levels = _digests(named)
        denoiser.require(parts, chosen)
        bound = denoiser.bind_guidance(guides, parts.solver)
        settled = denoiser.resolve_start(parts.schedule, chosen_start)
        if world.is_main:
            for text in sampling_warnings(chosen_start, denoiser.coupling, parts.solver, bound):
                warn(text)
        files = SampleFiles(out, denoiser.spec)

        def begin() -> list[int]:
            settings: dict[str, Any] = {"checkpoint": file_digest(checkpoint), "class": class_index}
            settings |= {"schedule": levels, "solver": method, "latents": draws}
            settings |= {"precision": arithmetic, "start": settled}
            if files_of_levels:
                settings["levels"] = files_of_levels
            settings["guidance"] = [
                {"settings": table, "files": _digests(references(guide))}
                for table, guide in zip(corrections, guides, strict=True)
            ]
            held = (part for one in (*parts, *guides) for part in components(one))
            settings["file"] = [version for part in held if (version := part.version())]
            if parts.latents.depends_on_device:
                settings["device"] = denoiser.device.type
            return files.begin(settings, chosen)

        with mendable(out), _enough_memory(batch_size), warnings.catch_warnings():
            warnings.simplefilter("ignore", SamplingWarning)  # printed above, once
            missing = world.on_main(begin)
            mine = world.shard(missing)
            for part in _tracked(mine, batch_size, visible=world.is_main):
                labels = None if class_index is None else [class_index] * len(part)
                data = denoiser.sample(
                    part,
                    schedule=parts.schedule,
                    solver=method,
                    latents=draws,
                    start=settled,
                    guidance=bound,
                    labels=labels,
                    batch_size=batch_size,
                    precision=arithmetic,
                    dtype=torch.float64,
                )
                for seed, item in zip(part, data, strict=True):
                    files.save(seed, item)
            world.barrier()
            if world.is_main:
                files.save_grid(chosen[:100])
        if world.is_main:
            say(console(), f"{len(chosen):,} samples in {out}, of which {len(missing):,} are new")


def parse_seeds(text: str) -> list[int]:
    """Return the numbers of ``"0-63"`` or ``"5,7,100-199"``, each once, in their order.

    Raises:
        UsageError: something else is written, or a seed is out of range.
    """
    chosen: dict[int, None] = {}
    for part in text.split(","):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(e.isascii() and e.isdigit() and len(e) < 40 for e in ends):
            raise UsageError(
                f"--seeds must be ranges of numbers from 0 on, got {quote(part)}; "
                "write 0-63 or 5,7,100-199"
            )
        first, last = int(ends[0]), int(ends[-1])
        if last >= SEED_LIMIT:
            raise UsageError(
                f"--seeds must be from 0 to {SEED_LIMIT - 1}, got {quote(part)}; "
                "write smaller seeds"
            )
        if last < first:
            raise UsageError(f"--seeds: {quote(part)} ends before it begins; write {last}-{first}")
        if len(chosen) + last - first >= MOST_SEEDS:
            raise UsageError(f"--seeds: {quote(text)} are more than {MOST_SEEDS:,} samples")
        chosen |= dict.fromkeys(range(first, last + 1))
    return list(chosen)


def _plain(steps: int | None) -> dict[str, Any]:
    """Return the table of the default schedule with a number of steps."""
    return {"use": "edm"} if steps is None else {"use": "edm", "steps": steps}


def _digests(paths: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of files in hex, by their paths."""
    from genkit.tensors import file_digest

    return {path: file_digest(Path(path).expanduser()) for path in paths}


def _check_class(class_index: int | None, denoiser: Denoiser) -> None:
    if class_index is not None and class_index >= denoiser.classes:
        known = f"write 0 to {denoiser.classes - 1}" if denoiser.classes else "leave it out"
        raise UsageError(f"--class {class_index}: the denoiser has no such class; {known}")


def _tracked(seeds: Sequence[int], batch_size: int, *, visible: bool) -> Iterator[Sequence[int]]:
    """Yield seeds in batches, and show how far they are."""
    starts = range(0, len(seeds), batch_size)
    for start in show_progress(starts, "sampling") if visible else starts:
        yield seeds[start : start + batch_size]


@contextmanager
def _enough_memory(batch_size: int) -> Iterator[None]:
    """Tell what to do about too little memory."""
    from genkit.machine import is_out_of_memory

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError(
            f"out of memory; write a --batch-size below {batch_size} in the same command to resume"
        ) from error
