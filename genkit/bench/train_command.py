"""``genkit bench train``: how fast a recipe's network is trained, and where the time goes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Annotated

import typer

from genkit.bench.options import parse_component
from genkit.bench.variants import parse_variants, usual_variants
from genkit.errors import UsageError
from genkit.recipe.source import read_source
from genkit.terminal import check_device, console, say


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A TOML file, or a shipped recipe's name.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting, such as denoiser.micro_batch=256; may be given several times.",
        ),
    ] = None,
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
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A data set by name or by its table in place of the recipe's; synthetic needs "
            "no files and has the shape of CIFAR-10, '{ use = \"synthetic\", shape = [1, 8, 8] }' "
            "another.",
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Timed for each variant; 12 batches by default."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="In which the variants take turns.")
    ] = 3,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Images of a step, computed at once; the recipe's by default."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of weights and pairs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure a training step in several ways beside plain PyTorch, in turns within one run."""
    check_device(device)
    names = None if variants is None else parse_variants(variants)
    table = None if data is None else parse_component(data, "--data")
    source = read_source(recipe)

    from rich.console import Console

    from genkit.bench.speed import TRAINING_CAPTION, training_facts, training_table
    from genkit.bench.stage import load_stages
    from genkit.bench.training import Effort, measure_training
    from genkit.plugin.manager import load_plugins
    from genkit.run.engine import resolve_device
    from genkit.run.environment import environment
    from genkit.run.stages.train import Train

    where, plugins = resolve_device(device), load_plugins()
    chosen, stages = load_stages(source, plugins, overrides or (), "train", stage, table)
    training = stages[chosen]
    if not isinstance(training, Train):
        raise UsageError(f"{type(training).__name__} is not the stage `train` of the core")
    if batch_size is not None:
        pool = max(training.pool, batch_size) if training.pool_size else None
        training = replace(training, batch_size=batch_size, micro_batch=None, pool_size=pool)
    effort = Effort(images or 12 * training.batch_size, rounds)
    with Console(stderr=True).status("starting") as status:
        found = measure_training(
            training,
            names or usual_variants(where.type == "cuda"),
            where,
            effort,
            seed,
            status.update,
        )
    if as_json:
        told = {"recipe": recipe, "stage": chosen, "effort": asdict(effort), "seed": seed}
        told |= {"environment": environment(where, plugins), **asdict(found)}
        typer.echo(json.dumps(told, indent=2))
        return
    to = console()
    to.print(training_table(found))
    say(to, f"\n{TRAINING_CAPTION}\n")
    for fact in training_facts(found):
        say(to, fact)
