"""``genkit bench sample``: measure the speed of sampling, and the network's share of the time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from genkit.errors import Code, SettingError, UsageError
from genkit.recipe.source import parse_component, read_source
from genkit.terminal import check_device, console, say
from genkit_bench.options import AsJson, Data, Device, Overrides, Rounds, parse_sizes

if TYPE_CHECKING:
    import torch

    import genkit
    from genkit.interfaces import Schedule, Solver
    from genkit.plugin.manager import Plugins


def sample(
    denoiser: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|RECIPE",
            help="File of a denoiser; or a recipe, of which the untrained denoiser is measured.",
        ),
    ],
    overrides: Overrides = None,
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Id of a sample stage of the recipe; by default the first one."
        ),
    ] = None,
    data: Data = None,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Numbers of solver steps; by default that of the recipe, or 18.",
        ),
    ] = None,
    batch_sizes: Annotated[
        str,
        typer.Option("--batch-size", metavar="N,N,...", help="Numbers of samples drawn at a time."),
    ] = "64,256",
    schedule: Annotated[
        str, typer.Option(metavar="NAME", help="Schedule for a checkpoint, as a name or a table.")
    ] = "edm",
    solver: Annotated[
        str, typer.Option(metavar="NAME", help="Solver for a checkpoint, as a name or a table.")
    ] = "heun",
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Precision of the network: float32, tf32, bfloat16 or float16."
        ),
    ] = "float32",
    rounds: Rounds = 3,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure sampling without guidance, for several numbers of steps and batch sizes."""
    check_device(device)
    sizes = parse_sizes(batch_sizes, "--batch-size")
    counts = None if steps is None else parse_sizes(steps, "--steps")
    levels, method = parse_component(schedule, "--schedule"), parse_component(solver, "--solver")
    replacement = None if data is None else parse_component(data, "--data")

    from rich.console import Console

    from genkit.machine import environment, resolve_device
    from genkit.parts.precision import require_precision
    from genkit.plugin.manager import load_plugins
    from genkit_bench.sampling import measure_sampling
    from genkit_bench.tables import SAMPLING, SAMPLING_CAPTION, sampling_facts, table

    arithmetic = require_precision(precision)
    where, plugins = resolve_device(device), load_plugins()
    network, noise_levels, integrator = (
        _load(denoiser, plugins, levels, method, device)
        if denoiser.endswith(".safetensors")
        else _build(denoiser, plugins, overrides or [], stage, replacement, where)
    )
    counts = counts or (noise_levels.steps,)
    with Console(stderr=True).status("starting") as status:
        results = measure_sampling(
            network, noise_levels, integrator, counts, sizes, arithmetic, rounds, status.update
        )
    if as_json:
        report = {"denoiser": denoiser, "rounds": rounds, "precision": precision}
        report |= {"environment": environment(where, plugins), **asdict(results)}
        typer.echo(json.dumps(report, indent=2))
        return
    to = console()
    to.print(table(results.rows, SAMPLING))
    say(to, "\n".join(["", SAMPLING_CAPTION, "", *sampling_facts(results)]))


def _load(
    path: str,
    plugins: Plugins,
    schedule: Mapping[str, Any],
    solver: Mapping[str, Any],
    device: str,
) -> tuple[genkit.Denoiser, Schedule, Solver]:
    """Return the denoiser in a file, and the schedule and solver from the options."""
    import genkit
    from genkit.recipe.decode import component

    parts = [
        cast(Any, component(plugins.registry, kind, table))
        for kind, table in (("schedule", schedule), ("solver", solver))
    ]
    for part in parts:
        if problems := list(part.check({})):
            raise SettingError(type(part).__name__, problems)
    levels, integrator = parts
    return genkit.load_denoiser(path, device), levels, integrator


def _build(
    recipe: str,
    plugins: Plugins,
    overrides: Sequence[str],
    stage_id: str | None,
    data: Mapping[str, Any] | None,
    device: torch.device,
) -> tuple[genkit.Denoiser, Schedule, Solver]:
    """Return the untrained denoiser of a sample stage, and the stage's schedule and solver."""
    import genkit
    from genkit.interfaces import Trained
    from genkit.random import seeded
    from genkit_bench.stages import load_stages

    source = read_source(recipe)
    name, stages = load_stages(source, plugins, overrides, "sample", stage_id, data)
    # Other plugins cannot register the names `sample` and `train`, so their settings are known.
    sampling: Any = stages[name]
    training: Any = stages[sampling.denoiser]
    if not hasattr(training, "network"):
        raise UsageError(
            f'stage {sampling.denoiser} must have use = "train", got '
            f"{type(training).__name__}; write the file of its denoiser instead of the recipe",
            Code.WRONG_KIND,
        )
    with seeded(0):
        module = training.network.build(training.spec())
    module = module.to(device).eval().requires_grad_(False)
    trained = Trained(training.network, training.spec(), module)
    return genkit.Denoiser(trained, device), sampling.schedule, sampling.solver
