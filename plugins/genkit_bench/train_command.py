"""``genkit bench train``: how fast a recipe's network is trained, and where the time goes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, cast

import typer

from genkit.recipe.source import parse_component, read_source
from genkit.terminal import check_device, console, say
from genkit_bench.options import AsJson, Data, Device, Overrides, Rounds
from genkit_bench.variants import parse_variants, usual_variants


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A TOML file, or a shipped recipe's name.")
    ],
    overrides: Overrides = None,
    stage: Annotated[
        str | None, typer.Option(metavar="ID", help="Which stage; the first that trains.")
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Ways to compute it: plain (everything off), recipe (as it is written), or some "
            "of float32, tf32, bfloat16, float16, channels-last and compiled, joined by +.",
        ),
    ] = None,
    data: Data = None,
    images: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Timed for each variant; 12 batches by default."),
    ] = None,
    rounds: Rounds = 3,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Images of a step, computed at once; the recipe's by default."
        ),
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of weights and pairs.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a training step in several ways beside plain PyTorch, in turns within one run."""
    check_device(device)
    names = None if variants is None else parse_variants(variants)
    replaced = None if data is None else parse_component(data, "--data")
    source = read_source(recipe)

    from rich.console import Console

    from genkit.machine import environment, resolve_device
    from genkit.plugin.manager import load_plugins
    from genkit_bench.stages import TrainStage, changed, load_stages
    from genkit_bench.tables import TRAINING, TRAINING_CAPTION, table, training_facts
    from genkit_bench.training import Effort, measure_training

    where, plugins = resolve_device(device), load_plugins()
    chosen, stages = load_stages(source, plugins, overrides or (), "train", stage, replaced)
    training = cast(TrainStage, stages[chosen])
    if batch_size is not None:
        pool = max(training.pool, batch_size) if training.pool_size else None
        training = changed(
            training, {"batch_size": batch_size, "micro_batch": None, "pool_size": pool}
        )
    effort = Effort(images or 12 * training.batch_size, rounds)
    names = names or usual_variants(where.type == "cuda")
    with Console(stderr=True).status("starting") as status:
        found = measure_training(training, names, where, effort, seed, status.update)
    if as_json:
        told = {"recipe": recipe, "stage": chosen, "effort": asdict(effort), "seed": seed}
        told |= {"environment": environment(where, plugins), **asdict(found)}
        typer.echo(json.dumps(told, indent=2))
        return
    to = console()
    to.print(table(found.rows, TRAINING))
    say(to, "\n".join(["", TRAINING_CAPTION, "", *training_facts(found)]))
