"""``genkit sample``: draw samples from the file of a denoiser, and write one file per seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from genkit.errors import Code, UsageError
from genkit.files import require_regular
from genkit.recipe.source import parse_component, shipped_recipes
from genkit.settings import quote
from genkit.terminal import check_device, console, processes, say, show_progress, warn
from genkit.types import SEED_LIMIT
from genkit_files.disk import user_errors

if TYPE_CHECKING:
    from genkit.denoiser import Denoiser
    from genkit.types import Start

MAX_SEEDS = 10_000_000


def _require_checkpoint(checkpoint: Path) -> Path:
    """Check the file before other arguments, so that a wrong file is reported first."""
    prefix = "CHECKPOINT must be the file of a denoiser, got"
    if checkpoint.suffix == ".toml" or str(checkpoint) in shipped_recipes():
        raise UsageError(
            f"{prefix} the recipe {checkpoint}; train its denoiser with genkit run {checkpoint}, "
            "and write the denoiser to a file with genkit export",
            Code.WRONG_KIND,
        )
    require_regular(checkpoint)
    if not checkpoint.is_file():
        got = (
            f"the folder {checkpoint}"
            if checkpoint.is_dir()
            else f"{checkpoint}, which does not exist"
        )
        raise UsageError(
            f"{prefix} {got}; create one with genkit export from a run, or with genkit "
            "import from published weights",
            Code.NOT_FOUND,
        )
    if checkpoint.suffix in (".pkl", ".pt"):
        raise UsageError(
            f"{prefix} the pickle {checkpoint}; convert it with genkit import", Code.WRONG_KIND
        )
    return checkpoint


def sample(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="File of a denoiser, from `genkit export`, `genkit import` or a train stage.",
            callback=_require_checkpoint,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the samples.")],
    seeds: Annotated[
        str, typer.Option(metavar="N-N,N,...", help="Seeds of the samples: 0-63, or 5,7,100-199.")
    ] = "0-63",
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Number of solver steps; heun takes two network calls per step."
        ),
    ] = None,
    rho: Annotated[
        float | None,
        typer.Option(
            metavar="RHO",
            help="Exponent of EDM's noise levels; higher values put more steps at low noise.",
        ),
    ] = None,
    schedule: Annotated[
        str, typer.Option(metavar="NAME", help="Noise schedule, as a name or a table.")
    ] = "edm",
    solver: Annotated[
        str, typer.Option(metavar="NAME", help="Solver, as a name or a table.")
    ] = "heun",
    latents: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Random numbers, as a name or a table; edm draws them like EDM's generate.py.",
        ),
    ] = "derived",
    fit_to: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Data set, as a name or a table, to which the noise levels are fitted for --steps "
            "and --solver; the levels are cached for later calls.",
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="State at the first noise level: noise, corrected, corrected-twice, or auto; auto "
            "chooses by the statistics of the training pairs.",
        ),
    ] = "auto",
    guidance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE",
            help="Guidance, as a table in which networks are paths of files; repeatable, and "
            "several are summed.",
        ),
    ] = None,
    class_index: Annotated[
        int | None,
        typer.Option(
            "--class",
            metavar="K",
            min=0,
            help="Class index of all samples; by default --latents draws the classes.",
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Number of samples drawn at a time, which affects rounding."
        ),
    ] = 64,
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Precision of the networks: float32, tf32, bfloat16 or float16."
        ),
    ] = "float32",
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
) -> None:
    """Draw samples from the file of a denoiser."""
    with processes() as world:
        seed_list = parse_seeds(seeds)
        options = {"steps": steps, "rho": rho}
        given = {name: value for name, value in options.items() if value is not None}
        levels = {**parse_component(schedule, "--schedule"), **given}
        method = parse_component(solver, "--solver")
        fit_data = None if fit_to is None else parse_component(fit_to, "--fit-to")
        if fit_data is not None and (rho is not None or levels != _default_schedule(steps)):
            raise UsageError(
                "--fit-to must not be combined with --schedule or --rho, which set the noise "
                "levels; remove one of them"
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
        from genkit.sample import network_levels
        from genkit.start import SamplingWarning, sampling_warnings
        from genkit.tensors import file_digest
        from genkit.world import SINGLE_PROCESS
        from genkit_files.fitting import fit_schedule
        from genkit_files.sample_files import SampleFiles

        world = world or SINGLE_PROCESS
        arithmetic = require_precision(precision)
        parts = sampling_parts(levels, method, draws)  # raises before slow files are read
        registry = load_plugins().registry
        guides: list[Any] = [checked(registry, "guidance", table) for table in corrections]
        denoiser = load_denoiser(checkpoint, str(resolve_device(device, world)))
        _check_class(class_index, denoiser)
        chosen_start = cast("Start", start)
        if fit_data is not None:
            levels = world.on_main(partial(fit_schedule, denoiser, fit_data, method, start, steps))
            if world.is_main:
                say(console(), f"Noise levels fitted to {checkpoint}: {levels['levels']}")
            parts = sampling_parts(levels, method, draws)
        level_files = list(references(parts.schedule))
        parts = denoiser.bind_schedule(parts, chosen_start)  # raises if a file is missing
        level_digests = _digests(level_files)
        denoiser.require(parts, seed_list)
        bound = denoiser.bind_guidance(guides, parts.solver)
        resolved_start = denoiser.resolve_start(parts.schedule, chosen_start)
        if world.is_main:
            known = parts.solver, bound, network_levels(denoiser.module, parts.schedule)
            for text in sampling_warnings(chosen_start, denoiser.coupling, *known):
                warn(text)
        files = SampleFiles(out, denoiser.spec)

        def begin() -> list[int]:
            settings: dict[str, Any] = {"checkpoint": file_digest(checkpoint), "class": class_index}
            settings |= {"schedule": levels, "solver": method, "latents": draws}
            settings |= {"precision": arithmetic, "start": resolved_start}
            if level_digests:
                settings["levels"] = level_digests
            settings["guidance"] = [
                {"settings": table, "files": _digests(references(guide))}
                for table, guide in zip(corrections, guides, strict=True)
            ]
            inner = (part for outer in (*parts, *guides) for part in components(outer))
            settings["file"] = [version for part in inner if (version := part.version())]
            if parts.latents.depends_on_device:
                settings["device"] = denoiser.device.type
            return files.begin(settings, seed_list)

        with user_errors(out), _enough_memory(batch_size), warnings.catch_warnings():
            warnings.simplefilter("ignore", SamplingWarning)  # already printed above
            missing = world.on_main(begin)
            mine = world.shard(missing)
            for part in _tracked(mine, batch_size, visible=world.is_main):
                labels = None if class_index is None else [class_index] * len(part)
                data = denoiser.sample(
                    part,
                    schedule=parts.schedule,
                    solver=method,
                    latents=draws,
                    start=resolved_start,
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
                files.save_grid(seed_list[:100])
        if world.is_main:
            count, new = len(seed_list), len(missing)
            say(console(), f"{count:,} samples in {out}, of which {new:,} are new")


def parse_seeds(text: str) -> list[int]:
    """Return the seeds in a string such as ``"0-63"`` or ``"5,7,100-199"``.

    Each seed is returned once, in the order of its first occurrence.

    Raises:
        UsageError: the string is invalid, or a seed is out of range.
    """
    parsed: dict[int, None] = {}
    for part in text.split(","):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(e.isascii() and e.isdigit() and len(e) < 40 for e in ends):
            raise UsageError(
                f"--seeds must be integers of at least 0 or ranges of them, got {quote(part)}; "
                "write 0-63 or 5,7,100-199"
            )
        first, last = int(ends[0]), int(ends[-1])
        if last >= SEED_LIMIT:
            raise UsageError(
                f"--seeds must be from 0 to {SEED_LIMIT - 1}, got {quote(part)}; "
                "write smaller seeds"
            )
        if last < first:
            raise UsageError(
                f"--seeds must be ascending ranges, got {quote(part)}; write {last}-{first}"
            )
        if len(parsed) + last - first >= MAX_SEEDS:
            raise UsageError(
                f"--seeds must contain at most {MAX_SEEDS:,} seeds, got {quote(text)}; draw the "
                "samples in several calls"
            )
        parsed |= dict.fromkeys(range(first, last + 1))
    return list(parsed)


def _default_schedule(steps: int | None) -> dict[str, Any]:
    """Return the table of the default schedule with a number of steps."""
    return {"use": "edm"} if steps is None else {"use": "edm", "steps": steps}


def _digests(paths: Iterable[str]) -> dict[str, str]:
    """Return a dict from the path of each file to its SHA-256 in hex."""
    from genkit.tensors import file_digest

    return {path: file_digest(Path(path).expanduser()) for path in paths}


def _check_class(class_index: int | None, denoiser: Denoiser) -> None:
    if class_index is not None and class_index >= denoiser.classes:
        hint = f"write 0 to {denoiser.classes - 1}" if denoiser.classes else "remove it"
        raise UsageError(
            f"--class must be a class of the denoiser, which has {denoiser.classes} classes, got "
            f"{class_index}; {hint}"
        )


def _tracked(seeds: Sequence[int], batch_size: int, *, visible: bool) -> Iterator[Sequence[int]]:
    """Yield batches of seeds, and show the progress on the terminal."""
    starts = range(0, len(seeds), batch_size)
    for start in show_progress(starts, "sampling") if visible else starts:
        yield seeds[start : start + batch_size]


@contextmanager
def _enough_memory(batch_size: int) -> Iterator[None]:
    """Convert an out-of-memory error in a ``with`` block to an error with a remedy."""
    from genkit.machine import is_out_of_memory

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError(
            f"out of memory; write a --batch-size below {batch_size} in the same command to resume"
        ) from error
