"""``genkit bench sample``: how fast samples are drawn, and what of it is the network's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genkit.bench.options import parse_component, parse_sizes
from genkit.errors import UsageError
from genkit.recipe.source import read_source
from genkit.terminal import check_device, console, say

if TYPE_CHECKING:
    import torch

    from genkit.interfaces import Schedule, Solver, Trained
    from genkit.plugin.manager import Plugins


def sample(
    denoiser: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|RECIPE",
            help="A denoiser's file; or a recipe, whose untrained denoiser takes as long.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of the recipe; may be given several times.",
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="ID", help="Stage of the recipe; the first that samples.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A data set in place of the recipe's, such as synthetic."
        ),
    ] = None,
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
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Batches of each; the median is shown.")
    ] = 3,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure sampling without guidance at several steps and batch sizes."""
    check_device(device)
    sizes = parse_sizes(batch_sizes, "--batch-size")
    counts = None if steps is None else parse_sizes(steps, "--steps")
    levels, method = parse_component(schedule, "--schedule"), parse_component(solver, "--solver")
    table = None if data is None else parse_component(data, "--data")

    from rich.console import Console

    from genkit.bench.sampling import measure_sampling
    from genkit.bench.speed import SAMPLING_CAPTION, sampling_facts, sampling_table
    from genkit.plugin.manager import load_plugins
    from genkit.run.engine import resolve_device
    from genkit.run.environment import environment

    where, plugins = resolve_device(device), load_plugins()
    if denoiser.endswith(".safetensors"):
        from genkit.api import sampling_parts
        from genkit.train.checkpoint import load_network

        chosen = sampling_parts(levels, method)
        parts = chosen.schedule, chosen.solver
        trained = load_network(Path(denoiser), plugins.registry, where)
    else:
        trained, parts = _untrained(denoiser, plugins, overrides or [], stage, table, where)
    noise_levels, integrator = parts
    with Console(stderr=True).status("starting") as status:
        found = measure_sampling(
            trained,
            noise_levels,
            integrator,
            counts or (noise_levels.steps,),
            sizes,
            rounds,
            where,
            status.update,
        )
    if as_json:
        told = {"denoiser": denoiser, "rounds": rounds}
        told |= {"environment": environment(where, plugins), **asdict(found)}
        typer.echo(json.dumps(told, indent=2))
        return
    to = console()
    to.print(sampling_table(found))
    say(to, f"\n{SAMPLING_CAPTION}\n")
    for fact in sampling_facts(found):
        say(to, fact)


def _untrained(
    recipe: str,
    plugins: Plugins,
    overrides: list[str],
    wanted: str | None,
    data: Mapping[str, Any] | None,
    device: torch.device,
) -> tuple[Trained, tuple[Schedule, Solver]]:
    """Return the denoiser that a sample stage draws from, freshly built, and how it draws."""
    from genkit.bench.stage import load_stages
    from genkit.interfaces import Trained
    from genkit.random import seeded
    from genkit.run.stages.sample import sample_stage
    from genkit.run.stages.train import Train

    source = read_source(recipe)
    chosen, stages = load_stages(source, plugins, overrides, "sample", wanted, data)
    drawing = sample_stage(stages[chosen])
    training = stages[drawing.denoiser]
    if not isinstance(training, Train):
        raise UsageError(f"{type(training).__name__} is not the stage `train` of the core")
    with seeded(0):
        module = training.network.build(training.spec())
    module = module.to(device).eval().requires_grad_(False)
    trained = Trained(module, training.spec(), training.network)
    return trained, (drawing.schedule, drawing.solver)
