"""The sections of `couplers.md`, the page of `couplers.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genkit_bench.tables import gap_text, memory_text, time_text

READING = Path(__file__).parents[1] / "docs" / "results" / "couplers_digits_reading.md"
Table = dict[str, Any]


def rows_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is left-aligned, the others right-aligned."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def share(row: Table, minimum: float | None) -> str:
    """Return the cost reduction of a row, in percent of the maximum reduction.

    Args:
        row: measurements of a coupler.
        minimum: minimum mean cost; None if it is unknown.
    """
    if minimum is None:
        return ""
    return f"{100 * (row['random_cost'] - row['mean_cost']) / (row['random_cost'] - minimum):.2f} %"


def described(part: Table) -> str:
    """Return sentences on the number and the data of the pools."""
    data = part["data"]
    shape = "x".join(map(str, data["shape"]))
    repeats = part["limits"]["repeats"]
    over = "for one pool" if repeats == 1 else f"medians over {repeats} pools"
    return f"The figures are {over} of each size. The data are {data['name']}, of shape {shape}."


def beside(part: Table) -> Iterator[tuple[Table, Table]]:
    """Yield the row of plain scipy and the row of the coupler, for each cost and pool size."""
    measured = [row for row in part["rows"] if row["seconds"] is not None]
    plain = {(r["cost"], r["pool"]): r for r in measured if r["coupler"].startswith("plain")}
    others = [row for row in measured if not row["coupler"].startswith("plain")]
    for row in sorted(others, key=lambda r: (r["cost"], r["pool"])):
        if (row["cost"], row["pool"]) in plain:
            yield plain[row["cost"], row["pool"]], row


def speed(part: Table) -> str:
    """Return the section on couplers with minimum cost on a CPU."""
    rows = []
    for plain, row in beside(part):
        rows.append(
            [
                row["cost"],
                f"{row['pool']:,}",
                time_text(plain["seconds"]),
                time_text(row["seconds"]),
                f"{row['speed']:.1f}",
                gap_text(row["gap"]),
                memory_text(row["peak_bytes"]),
            ]
        )
    head = ["cost", "pool", "plain scipy", "hungarian", "times faster", "gap", "memory"]
    return f"""## Exact pairs, fast

`hungarian` computes the pairs of minimum total cost. The gap is the relative excess of their mean cost over that of
scipy's pairs. {described(part)}

{rows_of(head, rows)}"""


def speed_on_gpu(part: Table) -> str:
    """Return the section on couplers with minimum cost on a GPU."""
    rows = [
        [
            row["cost"],
            f"{row['pool']:,}",
            time_text(plain["seconds"]),
            time_text(row["seconds"]),
            f"{row['speed']:.1f}",
            gap_text(row["gap"]),
        ]
        for plain, row in beside(part)
    ]
    head = ["cost", "pool", "plain scipy", "hungarian", "times faster", "gap"]
    return f"""### On a GPU

The images and the noise are on the GPU. {described(part)}

{rows_of(head, rows)}"""


def sinkhorn(part: Table) -> str:
    """Return the section on couplers with approximately minimum cost."""
    rows = [
        [
            row["coupler"],
            f"{row['pool']:,}",
            time_text(row["seconds"]),
            f"{100 * row['gain']:.2f} %",
        ]
        for _, row in beside(part)
    ]
    # All rows are for the same pool, so a lower bound from one coupler is valid for all rows.
    bounded_rows = [row for row in part["alone"] if row["bound"] is not None]
    minimum = max((row["mean_cost"] / (1 + row["bound"]) for row in bounded_rows), default=None)
    large = [
        [
            row["coupler"],
            f"{row['pool']:,}",
            time_text(row["seconds"]),
            f"{100 * (1 - row['mean_cost'] / row['random_cost']):.2f} %",
            share(row, minimum),
            memory_text(row["process_bytes"]),
        ]
        for row in part["alone"]
    ]
    exact = next(row for row, _ in beside(part))
    reduction = 100 * (1 - exact["mean_cost"] / exact["random_cost"])
    return f"""## Near the optimum, on large pools

`sinkhorn` draws its pairs from an entropic transport plan, or rounds the plan to a permutation. The gain is the reduction
of the cost relative to random pairs, as a share of the reduction of the exact pairs. For drawn pairs it may exceed 100 %,
since some noise samples of a pool are assigned to several images. {described(part)}

{rows_of(["coupler", "pool", "time", "gain"], rows)}

The next table is for a large pool, which is coupled in a separate process. Memory is the peak memory of the whole process,
including the images, the noise and PyTorch. The reduction is that of the mean cost relative to random pairs. The exact
pairs of a pool of {exact["pool"]:,} reduce the mean cost by {reduction:.2f} %; in a larger pool, the maximum reduction is
larger. The optimum of the large pool is not known. Rounding proves a lower bound of the cost of any permutation, and the
gain is stated as a share of the reduction that this bound allows.

{rows_of(["coupler", "pool", "time", "reduction", "gain, at least", "memory"], large)}"""


def waiting(part: Table) -> str:
    """Return the section on the share of training time spent waiting for pairs."""
    device = part["environment"]["device"].partition(":")[0]
    title = "## Waiting for pairs" if device == "cpu" else "### Waiting on a GPU"
    row = [
        part["recipe"],
        part["coupler"],
        f"{part['pool']:,}",
        f"{part['pools']:,}",
        f"{part['seconds_training']:.0f} s",
        f"{part['seconds_waited']:.1f} s",
        f"{100 * part['share']:.1f} %",
    ]
    head = ["recipe", "coupler", "pool", "pools", "training", "waited", "share"]
    return f"""{title}

The next pools are coupled while the current one is used for training. The share is the fraction of the training time during
which the training waits for pairs. The seconds are those in `metrics.jsonl` of the run, including the first pool.

{rows_of(head, [row])}"""


def torchcfm(part: Table) -> str:
    """Return the section on the comparison with torchcfm."""
    sizes = sorted({row["size"] for row in part["rows"]})
    heads = [f"{size:,}" for size in sizes]
    verdicts = [
        [
            ours,
            rival,
            *(f"{by_pool[size]['speedup']:.1f}" if size in by_pool else "" for size in sizes),
            f"{max(verdict['cost_ratio'] for verdict in by_pool.values()):.6f}",
        ]
        for (ours, rival), by_pool in by_size(part["verdicts"], "genkit", "torchcfm").items()
    ]
    times = [
        [
            label,
            *(time_text(by_pool[size]["seconds"]) if size in by_pool else "" for size in sizes),
            f"{by_pool[max(by_pool)]['dropped_images'] / max(by_pool):.0%}",
            f"{by_pool[max(by_pool)]['dropped_noises'] / max(by_pool):.0%}",
            troubles(by_pool),
        ]
        for (label,), by_pool in by_size(part["rows"], "label").items()
    ]
    return f"""## Against torchcfm

The same pools of {part["dimensions"]:,}-dimensional images were passed to torchcfm's `OTPlanSampler`. By default it draws
pairs from the plan with replacement, so more than a third of the images and of the noise samples of a pool are not used.

The table shows the time of torchcfm's method divided by the time of the corresponding coupler of genkit, by pool size. The
cost ratio is the cost of genkit's pairs divided by the expected cost of torchcfm's plan, for the pool with the largest
ratio. The cost is the squared distance, which torchcfm minimizes.

{rows_of(["genkit", "torchcfm", *heads, "cost ratio"], verdicts)}

The next table shows the time per pool, and the shares of images and noise samples that are not used in a pool of
{sizes[-1]:,}. The last column shows the pool sizes for which torchcfm warned that its plan is not optimal, or that it was
replaced by random pairs:

{rows_of(["method", *heads, "images unused", "noise unused", "warned"], times)}"""


def troubles(rows: dict[int, Table]) -> str:
    """Return the pool sizes for which torchcfm warned, with the type of warning."""
    warnings = {"fell_back": "random pairs", "stopped": "not optimal"}
    return "; ".join(
        f"{text}: {', '.join(f'{size:,}' for size in sizes)}"
        for key, text in warnings.items()
        if (sizes := [size for size, row in sorted(rows.items()) if row[key]])
    )


def by_size(rows: Sequence[Table], *keys: str) -> dict[tuple[str, ...], dict[int, Table]]:
    """Return a dict from the values of ``keys`` to a dict from pool size to row."""
    found: dict[tuple[str, ...], dict[int, Table]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), {})[row["size"]] = row
    return found


def digits(part: Table) -> str:
    """Return the section on larger pools."""
    scores = ("curvature",)

    def cell(arm: Table, score: str) -> str:
        values = [found[score] for found in arm["by_seed"]]
        return f"{arm['medians'][score]:.2f} ({min(values):.2f} to {max(values):.2f})"

    rows = [
        [
            arm["coupler"]["use"],
            f"{arm['pool']:,}",
            f"{arm['medians']['reduction']:.1%}",
            *(cell(arm, score) for score in scores),
        ]
        for arm in part["arms"]
    ]
    head = ["coupler", "pool", "cost reduced by", "curvature"]
    reading = READING.read_text(encoding="utf-8").strip() if READING.exists() else ""
    return f"""## The effect of larger pools

Data, network and training are those of the recipe `edm_aot`, with several couplers and pool sizes. Each cell shows the
median over the seeds {", ".join(map(str, part["seeds"]))}, with the minimum and the maximum. The effect on samples is
shown in [Pairs on the digits](pairs.md).

{rows_of(head, rows)}

{reading}""".rstrip()
