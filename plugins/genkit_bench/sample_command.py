"""``genkit bench sample``: how fast samples are drawn, and what of it is the network's."""

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
            help="A denoiser's file; or a recipe, whose untrained denoiser takes as long.",
        ),
    ],
    overrides: Overrides = None,
    stage: Annotated[
        str | None, typer.Option(metavar="ID", help="Stage of the recipe; the first that samples.")
    ] = None,
    data: Data = None,
    steps: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Solver steps; the recipe's, or 18.")
    ] = None,
    batch_sizes: Annotated[
        str, typer.Option("--batch-size", metavar="N,N,...", help="Samples drawn at a time.")
    ] = "64,256",
    schedule: Annotated[
        str, typer.Option(metavar="NAME", help="For a checkpoint: by name or by its table.")
    ] = "edm",
    solver: Annotated[
        str, typer.Option(metavar="NAME", help="For a checkpoint: by name or by its table.")
    ] = "heun",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="float32, tf32, bfloat16 or float16.")
    ] = "float32",
    rounds: Rounds = 3,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure sampling without guidance at several steps and batch sizes."""
    check_device(device)
    sizes = parse_sizes(batch_sizes, "--batch-size")
    counts = None if steps is None else parse_sizes(steps, "--steps")
    levels, method = parse_component(schedule, "--schedule"), parse_component(solver, "--solver")
    replaced = None if data is None else parse_component(data, "--data")

    from rich.console import Console

    from genkit.machine import environment, resolve_device
    from genkit.parts.precision import require_precision
    from genkit.plugin.manager import load_plugins
    from genkit_bench.sampling import measure_sampling
    from genkit_bench.tables import SAMPLING, SAMPLING_CAPTION, sampling_facts, table

    arithmetic = require_precision(precision)
    where, plugins = resolve_device(device), load_plugins()
    measured, noise_levels, integrator = (
        _of_file(denoiser, plugins, levels, method, device)
        if denoiser.endswith(".safetensors")
        else _untrained(denoiser, plugins, overrides or [], stage, replaced, where)
    )
    counts = counts or (noise_levels.steps,)
    with Console(stderr=True).status("starting") as status:
        found = measure_sampling(
            measured, noise_levels, integrator, counts, sizes, arithmetic, rounds, status.update
        )
    if as_json:
        told = {"denoiser": denoiser, "rounds": rounds, "precision": precision}
        told |= {"environment": environment(where, plugins), **asdict(found)}
        typer.echo(json.dumps(told, indent=2))
        return
    to = console()
    to.print(table(found.rows, SAMPLING))
    say(to, "\n".join(["", SAMPLING_CAPTION, "", *sampling_facts(found)]))


def _of_file(
    path: str,
    plugins: Plugins,
    schedule: Mapping[str, Any],
    solver: Mapping[str, Any],
    device: str,
) -> tuple[genkit.Denoiser, Schedule, Solver]:
    """Return the denoiser of a file, and the parts that options name."""
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


def _untrained(
    recipe: str,
    plugins: Plugins,
    overrides: Sequence[str],
    wanted: str | None,
    data: Mapping[str, Any] | None,
    device: torch.device,
) -> tuple[genkit.Denoiser, Schedule, Solver]:
    """Return the denoiser that a sample stage draws from, freshly built, and how it draws."""
    import genkit
    from genkit.interfaces import Trained
    from genkit.random import seeded
    from genkit_bench.stages import load_stages

    source = read_source(recipe)
    chosen, stages = load_stages(source, plugins, overrides, "sample", wanted, data)
    # The names `sample` and `train` are the core's, and so are the settings behind them.
    drawing: Any = stages[chosen]
    training: Any = stages[drawing.denoiser]
    if not hasattr(training, "network"):
        raise UsageError(
            f'stage {drawing.denoiser} must be of `use = "train"`, got '
            f"{type(training).__name__}; give its file instead of the recipe",
            Code.WRONG_KIND,
        )
    with seeded(0):
        module = training.network.build(training.spec())
    module = module.to(device).eval().requires_grad_(False)
    trained = Trained(training.network, training.spec(), module)
    return genkit.Denoiser(trained, device), drawing.schedule, drawing.solver
