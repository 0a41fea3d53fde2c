"""``genkit bench train``: measure the speed of training a recipe, and the phases of a step."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, cast

import typer

from genkit.recipe.source import parse_component, read_source
from genkit.terminal import check_device, console, say
from genkit_bench.options import AsJson, Data, Device, Overrides, Rounds
from genkit_bench.variants import default_variants, parse_variants


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="TOML file, or name of a shipped recipe.")
    ],
    overrides: Overrides = None,
    stage: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of a train stage; by default the first.")
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Variants: plain (no optimizations), recipe (settings of the recipe), or one or "
            "several of float32, tf32, bfloat16, float16, channels-last and compiled, joined by +.",
        ),
    ] = None,
    data: Data = None,
    images: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Number of images per variant; by default 12 batches."
        ),
    ] = None,
    rounds: Rounds = 3,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Batch size, without micro-batches; by default that of the recipe.",
        ),
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of weights and pairs.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure variants of a training step; the reference is plain PyTorch in the same run."""
    check_device(device)
    names = None if variants is None else parse_variants(variants)
    replacement = None if data is None else parse_component(data, "--data")
    source = read_source(recipe)

    from rich.console import Console

    from genkit.machine import environment, resolve_device
    from genkit.plugin.manager import load_plugins
    from genkit_bench.stages import TrainStage, load_stages, with_settings
    from genkit_bench.tables import TRAINING, TRAINING_CAPTION, table, training_facts
    from genkit_bench.training import Effort, measure_training

    where, plugins = resolve_device(device), load_plugins()
    name, stages = load_stages(source, plugins, overrides or (), "train", stage, replacement)
    training = cast(TrainStage, stages[name])
    if batch_size is not None:
        pool = max(training.pool, batch_size) if training.pool_size else None
        training = with_settings(
            training, {"batch_size": batch_size, "micro_batch": None, "pool_size": pool}
        )
    effort = Effort(images or 12 * training.batch_size, rounds)
    names = names or default_variants(where.type == "cuda")
    with Console(stderr=True).status("starting") as status:
        results = measure_training(training, names, where, effort, seed, status.update)
    if as_json:
        report = {"recipe": recipe, "stage": name, "effort": asdict(effort), "seed": seed}
        report |= {"environment": environment(where, plugins), **asdict(results)}
        typer.echo(json.dumps(report, indent=2))
        return
    to = console()
    to.print(table(results.rows, TRAINING))
    say(to, "\n".join(["", TRAINING_CAPTION, "", *training_facts(results)]))
