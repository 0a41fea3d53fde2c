"""``genkit bench couplers``: parse arguments, measure couplers, and print the results."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated

import typer

from genkit.errors import Code, InterruptedRun, UsageError
from genkit.recipe.source import parse_component
from genkit.terminal import check_device, console, say
from genkit_bench.options import AsJson, Device, parse_shape, parse_sizes

if TYPE_CHECKING:
    from genkit_bench.couplers import Row

SHAPE, CLASSES = "3,32,32", 10
MIN_IMAGES = 2048  # synthetic images, since dataset couplers choose among the whole data set


def couplers(
    sizes: Annotated[str, typer.Option(metavar="N,N,...", help="Pool sizes.")] = "256,512,1024",
    coupler: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Coupler, as a name or a table, such as "
            '\'{ use = "hungarian", cost = "squared" }\'; repeatable. By default all couplers.',
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Data set, as a name or a table; by default synthetic images.",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,N",
            help="Shape of synthetic items: channels, height and width, or length of a vector; "
            f"by default {SHAPE}.",
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=f"Number of classes of the synthetic images; by default {CLASSES}.",
        ),
    ] = None,
    device: Device = "auto",
    repeats: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Number of pools of each size; times are medians."),
    ] = 3,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of data and noise.")] = 0,
    limit: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Maximum time for a pool; couplers that are expected to take longer are skipped.",
        ),
    ] = 120.0,
    reference_limit: Annotated[
        int, typer.Option(metavar="N", min=0, help="Maximum pool size for plain scipy.")
    ] = 4096,
    as_json: AsJson = False,
) -> None:
    """Measure time, gap to the optimum and memory of couplers; the reference is plain scipy."""
    pool_sizes, item = parse_sizes(sizes), parse_shape(SHAPE if shape is None else shape)
    tables = [parse_component(text, "--coupler") for text in coupler or ()]
    check_device(device)
    if not 0 < limit < math.inf:
        raise UsageError(
            f"--limit must be a number of seconds above 0, got {limit:g}; write 120",
            Code.OUT_OF_RANGE,
        )
    if data is not None and (shape is not None or classes is not None):
        raise UsageError(
            "--shape and --classes require synthetic images, got --data; remove --data",
            Code.CONFLICT,
        )
    table = parse_component("synthetic" if data is None else data, "--data")
    if data is None:
        count = max(MIN_IMAGES, pool_sizes[-1])
        number = CLASSES if classes is None else classes
        table = {**table, "shape": list(item), "classes": number, "count": count, "seed": seed}

    from rich.console import Console

    from genkit.machine import resolve_device
    from genkit.plugin.manager import load_plugins
    from genkit_bench.candidates import all_candidates, chosen_candidates
    from genkit_bench.couplers import Limits, measure_couplers
    from genkit_bench.pools import Pools, complete, load_items
    from genkit_bench.tables import couplers_report

    where, plugins = resolve_device(device), load_plugins()
    candidates = (
        chosen_candidates(plugins.registry, tables, where)
        if tables
        else all_candidates(plugins.registry, where)
    )
    items = load_items(plugins.registry, table, pool_sizes[-1])
    pools = Pools(complete(items, seed), seed, where)
    limits = Limits(repeats, limit, reference_limit)
    rows: list[Row] = []
    stopped = False
    try:
        with Console(stderr=True).status("starting") as status:
            rows.extend(measure_couplers(candidates, pools, pool_sizes, limits, status.update))
    except KeyboardInterrupt:
        stopped = True
    if as_json:
        report = couplers_report(rows, pools, limits, plugins, data or "synthetic")
        typer.echo(json.dumps({**report, "stopped": stopped}, indent=2))
    else:
        _show(rows)
    if stopped:
        typer.echo("\nStopped; only finished pool sizes are shown.", err=True)
        raise typer.Exit(InterruptedRun.exit_code)


def _show(rows: list[Row]) -> None:
    from genkit_bench.tables import COUPLERS, COUPLERS_CAPTION, notes, table

    to = console()
    if any(row.seconds is not None for row in rows):
        to.print(table(rows, COUPLERS, section=lambda row: row.pool))
        say(to, f"\n{COUPLERS_CAPTION}")
    for note in notes(rows):
        say(to, note)
