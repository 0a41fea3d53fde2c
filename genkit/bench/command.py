"""``genkit bench``: parses, measures, prints. Heavy imports wait until a command runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from genkit.bench.options import parse_component, parse_shape, parse_sizes
from genkit.bench.sample_command import sample
from genkit.bench.train_command import train
from genkit.errors import InterruptedRun, UsageError
from genkit.terminal import check_device, console, say

if TYPE_CHECKING:
    from genkit.bench.couplers import Row

app = typer.Typer(
    help="Measure components on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SHAPE, CLASSES = "3,32,32", 10


@app.callback()
def _group() -> None: ...


@app.command()
def couplers(
    sizes: Annotated[str, typer.Option(metavar="N,N,...", help="Pool sizes.")] = "256,512,1024",
    coupler: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A coupler by name or by its table, such as "
            '\'{ use = "hungarian", cost = "squared" }\'; may be given several times. '
            "Every registered one by default.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A data set by name or by its table; synthetic images by default.",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,N",
            help=f"Of a synthetic item: channels, height and width, or a vector's length; {SHAPE}.",
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help=f"Classes of the synthetic images; {CLASSES}."),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    repeats: Annotated[
        int, typer.Option(metavar="N", min=1, help="Pools of each size; the median is shown.")
    ] = 3,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Chooses data and noise.")] = 0,
    limit: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="A coupler expected to take longer for a pool is not tried."
        ),
    ] = 120.0,
    reference_limit: Annotated[
        int, typer.Option(metavar="N", min=0, help="Largest pool that plain scipy solves.")
    ] = 4096,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure couplers: time, gap to the optimum, memory, beside plain scipy in the same run."""
    pool_sizes, item = parse_sizes(sizes), parse_shape(SHAPE if shape is None else shape)
    table = None if data is None else parse_component(data, "--data")
    tables = [parse_component(text, "--coupler") for text in coupler or ()]
    check_device(device)
    if not 0 < limit < math.inf:
        raise UsageError(f"--limit {limit:g} is no time; write a number of seconds above 0")
    if data is not None and (shape is not None or classes is not None):
        raise UsageError("--shape and --classes describe synthetic images; leave out --data")

    from rich.console import Console

    from genkit.bench.candidates import chosen_candidates, every_candidate
    from genkit.bench.couplers import Limits, measure_couplers
    from genkit.bench.data import Pools, completed, load_items, synthetic_items
    from genkit.bench.report import report
    from genkit.plugin.manager import load_plugins
    from genkit.run.engine import resolve_device

    where = resolve_device(device)
    plugins = load_plugins()
    candidates = (
        chosen_candidates(plugins.registry, tables, where)
        if tables
        else every_candidate(plugins.registry, where)
    )
    items = (
        synthetic_items(item, CLASSES if classes is None else classes, pool_sizes[-1], seed)
        if table is None
        else load_items(plugins.registry, table, pool_sizes[-1])
    )
    pools, limits = (
        Pools(completed(items, seed), seed, where),
        Limits(repeats, limit, reference_limit),
    )
    rows: list[Row] = []
    stopped = False
    try:
        with Console(stderr=True).status("starting") as status:
            rows.extend(measure_couplers(candidates, pools, pool_sizes, limits, status.update))
    except KeyboardInterrupt:
        stopped = True
    if as_json:
        found = report(rows, pools, limits, plugins, data or "synthetic")
        typer.echo(json.dumps({**found, "stopped": stopped}, indent=2))
    else:
        _show(rows)
    if stopped:
        typer.echo("\nStopped; the sizes that were finished are shown.", err=True)
        raise typer.Exit(InterruptedRun.exit_code)


def _show(rows: Sequence[Row]) -> None:
    from genkit.bench.report import CAPTION, coupler_table, notes

    to = console()
    if any(row.seconds is not None for row in rows):
        to.print(coupler_table(rows))
        say(to, f"\n{CAPTION}")
    for note in notes(rows):
        say(to, note)


app.command()(train)
app.command()(sample)
