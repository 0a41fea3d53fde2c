"""Format measurements as tables and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from rich.box import SIMPLE
from rich.table import Table

from genkit.machine import environment
from genkit.plugin.manager import Plugins
from genkit_bench import couplers, sampling, training
from genkit_bench.contender import PHASES
from genkit_bench.pools import Pools
from genkit_bench.variants import PLAIN


class Row(Protocol):
    """A row of one of the three tables."""

    @property
    def images_per_second(self) -> float | None:
        """Images per second; None if it was not measured."""
        ...


T = TypeVar("T")
R = TypeVar("R", bound=Row)
Columns = Mapping[str, Callable[[R], str]]
"""Dict from the heading of each column to a function that returns the cell of a row as text."""


def gap_text(value: float) -> str:
    """Return a relative gap as text; values below the rounding error of float64 sums are 0."""
    return "0" if abs(value) < 1e-12 else f"{value:.2g}"


def time_text(seconds: float) -> str:
    """Return a time as text, in seconds or milliseconds."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def memory_text(count: int) -> str:
    """Return a number of bytes as text, in MiB."""
    return f"{count / 2**20:,.0f} MiB"


def _known(value: T | None, write: Callable[[T], str]) -> str:
    return "" if value is None else write(value)


COUPLERS: Columns[couplers.Row] = {
    "coupler": lambda row: row.coupler,
    "pool": lambda row: f"{row.pool:,}",
    "cost matrix": lambda row: _known(row.matrix_seconds, time_text),
    "solve": lambda row: _known(row.seconds, time_text),
    "against scipy": lambda row: _known(row.speed, "{:.3g}x".format),
    "gap": lambda row: (
        _known(row.bound, "<= {:.2g}".format) if row.gap is None else gap_text(row.gap)
    ),
    "gain": lambda row: _known(row.gain, "{:.1%}".format),
    "memory": lambda row: _known(row.peak_bytes, memory_text),
    "images/s": lambda row: _known(row.images_per_second, "{:,.0f}".format),
}

COUPLERS_CAPTION = """\
cost matrix: time of genkit.tensors.pairwise_cost alone, for the cost that the coupler minimizes
solve: median time of a whole call of pair, including the cost matrix and checks of the input
against scipy: time of plain scipy (cost matrix and linear_sum_assignment) divided by solve
gap: relative excess of the mean cost over that of the optimal pairs; below 0 if a coupler chooses
     among more than the pool; <= marks an upper bound from the coupler if scipy is not measured
gain: reduction of the mean cost relative to random pairs, divided by that of the optimal pairs
memory: peak memory of the call, minus the memory before the call
images/s: pairs per second if nothing else runs on this machine"""

TRAINING: Columns[training.Row] = {
    "variant": lambda row: row.variant,
    "images/s": lambda row: _known(row.images_per_second, "{:,.4g}".format),
    f"against {PLAIN}": lambda row: _known(row.against_plain, "{:.2f}x".format),
    "forward": lambda row: time_text(row.phases["forward"]),
    "backward": lambda row: time_text(row.phases["backward"]),
    "optimizer": lambda row: time_text(row.phases["optimizer"]),
    "EMA": lambda row: time_text(row.phases["EMA"]),
    "waiting": lambda row: _known(row.seconds_waited, time_text),
    "memory": lambda row: _known(row.peak_bytes, memory_text),
    "of peak": lambda row: _known(row.utilization, "{:.0%}".format),
}

TRAINING_CAPTION = f"""\
images/s: median over the rounds, including all waiting
against {PLAIN}: ratio of images/s within a round, median over the rounds; {PLAIN} is float32
     without compilation, NCHW, explicit attention matrices, an optimizer that updates one tensor
     at a time, and a synchronization for every loss
{", ".join(PHASES)}: time of each phase in a step; the device is synchronized after each phase, so
     their sum is larger than the time of a step; the norm of the gradient is part of backward
waiting: time in which a step waits for its pairs
memory: peak memory of weights, averages, optimizer and a step
of peak: share of the device's peak in this precision, according to its data sheet"""

SAMPLING: Columns[sampling.Row] = {
    "steps": lambda row: str(row.steps),
    "batch": lambda row: f"{row.batch_size:,}",
    "NFE": lambda row: str(row.nfe),
    "images/s": lambda row: _known(row.images_per_second, "{:,.4g}".format),
    "network": lambda row: _known(row.seconds_network, time_text),
    "solver": lambda row: _known(row.seconds_solver, time_text),
    "memory": lambda row: _known(row.peak_bytes, memory_text),
    "of peak": lambda row: _known(row.utilization, "{:.0%}".format),
}

SAMPLING_CAPTION = """\
images/s: median over the rounds
network, solver: time for a batch in the network, and outside of the network
memory: peak memory without the weights
of peak: share of the device's peak in this precision, according to its data sheet"""


def table(rows: Sequence[R], columns: Columns[R], section: Callable[[R], object] = type) -> Table:
    """Return a table of the measured rows.

    Args:
        rows: all rows; those that were not measured are omitted.
        columns: columns; the first is left-aligned.
        section: function of a row; where its value changes, a new section of the table starts.
    """
    shown = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        shown.add_column(column, justify="right" if index else "left", no_wrap=index > 0)
    measured = [row for row in rows if row.images_per_second is not None]
    for row, following in zip(measured, [*measured[1:], None], strict=True):
        last = following is not None and section(following) != section(row)
        shown.add_row(*(write(row) for write in columns.values()), end_section=last)
    return shown


def notes(rows: Sequence[couplers.Row]) -> list[str]:
    """Return one line for each coupler and reason for missing values, with the pool sizes."""
    sizes: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row.note:
            sizes.setdefault((row.coupler, row.note), []).append(row.pool)
    return [
        f"{coupler}, pool {', '.join(f'{size:,}' for size in pools)}: {note}"
        for (coupler, note), pools in sizes.items()
    ]


def training_facts(results: training.Training) -> list[str]:
    """Return lines with facts about all variants, and the reasons for unmeasured variants."""
    return [
        f"{results.parameters:,} parameters; {results.flops / 1e9:.3g} GFLOP per image, forward "
        f"and backward; batch {results.batch_size:,}, pool {results.pool_size:,}",
        f"per batch: data {time_text(results.seconds_data)} alone, coupling "
        f"{time_text(results.seconds_coupling)} during training",
        *(f"{row.variant}: {row.note}" for row in results.rows if row.note),
    ]


def sampling_facts(results: sampling.Sampling) -> list[str]:
    """Return lines with facts about all rows, and the reasons for unmeasured rows."""
    gflop = results.flops / 1e9
    return [
        f"{results.parameters:,} parameters; {gflop:.3g} GFLOP per call and image",
        *(f"{r.steps} steps, batch {r.batch_size:,}: {r.note}" for r in results.rows if r.note),
    ]


def couplers_report(
    rows: Sequence[couplers.Row],
    pools: Pools,
    limits: couplers.Limits,
    plugins: Plugins,
    data: str,
) -> dict[str, Any]:
    """Return the rows, data, limits and environment of a measurement as a JSON object.

    Args:
        rows: all rows.
        pools: pools that were coupled.
        limits: limits of the measurement.
        plugins: loaded plugins.
        data: name of the data set.
    """
    return {
        "data": {
            "name": data,
            "items": len(pools.data),
            "shape": list(pools.data.data.shape[1:]),
            "classes": 0 if pools.data.labels is None else int(pools.data.labels.max()) + 1,
        },
        "seed": pools.seed,
        "limits": asdict(limits),
        "environment": environment(pools.device, plugins),
        "rows": [asdict(row) for row in rows],
    }
