"""The sections of the page of `couplers.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genkit_bench.tables import gap_text, memory_text, time_text

READING = Path(__file__).parents[1] / "docs" / "results" / "couplers_digits_reading.md"
Table = dict[str, Any]


def rows_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown, the first column left, the others right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def share(row: Table, least: float | None) -> str:
    """Return the gain of a row over random pairs, as a share of the greatest that is possible."""
    if least is None:
        return ""
    return f"{100 * (row['random_cost'] - row['mean_cost']) / (row['random_cost'] - least):.2f} %"


def described(part: Table) -> str:
    """Return what the pools are made of, in a sentence."""
    data = part["data"]
    shape = "x".join(map(str, data["shape"]))
    repeats = part["limits"]["repeats"]
    over = "One pool of each size" if repeats == 1 else f"Medians over {repeats} pools of each size"
    return f"{over}, {data['name']} of shape {shape}."


def beside(part: Table) -> Iterator[tuple[Table, Table]]:
    """Yield the row of plain scipy with that of the coupler, by cost and pool."""
    measured = [row for row in part["rows"] if row["seconds"] is not None]
    plain = {(r["cost"], r["pool"]): r for r in measured if r["coupler"].startswith("plain")}
    others = [row for row in measured if not row["coupler"].startswith("plain")]
    for row in sorted(others, key=lambda r: (r["cost"], r["pool"])):
        if (row["cost"], row["pool"]) in plain:
            yield plain[row["cost"], row["pool"]], row


def speed(part: Table) -> str:
    """Return the section of exact pairs on a CPU."""
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

`hungarian` finds the pairs of least total cost. The gap is the mean cost of its pairs over that of
scipy's, less 1. {described(part)}

{rows_of(head, rows)}"""


def speed_on_gpu(part: Table) -> str:
    """Return the section of exact pairs on a GPU."""
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

The images and the noise lie on the GPU. {described(part)}

{rows_of(head, rows)}"""


def sinkhorn(part: Table) -> str:
    """Return the section of approximate pairs."""
    rows = [
        [
            row["coupler"],
            f"{row['pool']:,}",
            time_text(row["seconds"]),
            f"{100 * row['gain']:.2f} %",
        ]
        for _, row in beside(part)
    ]
    # The same pool for all: what one of them proves of its least cost holds for all.
    known = [row for row in part["alone"] if row["bound"] is not None]
    least = max((row["mean_cost"] / (1 + row["bound"]) for row in known), default=None)
    large = [
        [
            row["coupler"],
            f"{row['pool']:,}",
            time_text(row["seconds"]),
            f"{100 * (1 - row['mean_cost'] / row['random_cost']):.2f} %",
            share(row, least),
            memory_text(row["process_bytes"]),
        ]
        for row in part["alone"]
    ]
    exact = next(row for row, _ in beside(part))
    reduction = 100 * (1 - exact["mean_cost"] / exact["random_cost"])
    return f"""## Near the optimum, on large pools

`sinkhorn` draws its pairs from an entropic plan, or rounds the plan to a permutation. Where the exact
optimum is known, its gain is the share of the exact pairs' gain over random pairs that it reaches.
Drawn pairs may reach more than all of it: in one pool some noises serve several images. {described(part)}

{rows_of(["coupler", "pool", "time", "gain"], rows)}

On a large pool, in a process of its own. Memory is the most that the whole process held, the images,
the noise and PyTorch included. The reduction is that of the
mean cost against random pairs. The exact pairs of a pool of {exact["pool"]:,} reduce it by
{reduction:.2f} %; a larger pool allows more. The optimum of the large pool is not known. Rounding
proves a cost below which no permutation of it can be, and the gain is measured against that.

{rows_of(["coupler", "pool", "time", "reduction", "gain, at least", "memory"], large)}"""


def waiting(part: Table) -> str:
    """Return the section of the waiting share."""
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

The next pools are coupled while the current one is trained on. The share is
that of the time in which the training waits for pairs. The seconds are those of the run's own
`metrics.jsonl`, the first pool included.

{rows_of(head, [row])}"""


def torchcfm(part: Table) -> str:
    """Return the section of the comparison with torchcfm."""
    sizes = sorted({row["size"] for row in part["rows"]})
    heads = [f"{size:,}" for size in sizes]
    verdicts = [
        [
            ours,
            rival,
            *(f"{found[size]['speedup']:.1f}" if size in found else "" for size in sizes),
            f"{max(verdict['cost_ratio'] for verdict in found.values()):.6f}",
        ]
        for (ours, rival), found in by_size(part["verdicts"], "genkit", "torchcfm").items()
    ]
    times = [
        [
            label,
            *(time_text(found[size]["seconds"]) if size in found else "" for size in sizes),
            f"{found[max(found)]['dropped_images'] / max(found):.0%}",
            f"{found[max(found)]['dropped_noises'] / max(found):.0%}",
            troubles(found),
        ]
        for (label,), found in by_size(part["rows"], "label").items()
    ]
    return f"""## Against torchcfm

The same pools of {part["dimensions"]:,}-dimensional images through torchcfm's `OTPlanSampler`. By
default it draws its pairs from the plan with replacement, and so never uses a third of the images and
of the noises of a pool.

How many times faster genkit's coupler is than torchcfm's of the same kind, by pool. The cost ratio is
that of the worst pool: what genkit's pairs cost over what torchcfm's plan expects to pay, in squared
distance, which torchcfm minimizes.

{rows_of(["genkit", "torchcfm", *heads, "cost ratio"], verdicts)}

Time for a pool, what is never used of a pool of {sizes[-1]:,}, and with which pools torchcfm warned
that its plan is not what was asked for:

{rows_of(["method", *heads, "images unused", "noises unused", "warned"], times)}"""


def troubles(found: dict[int, Table]) -> str:
    """Return at which sizes torchcfm's plan was not what was asked for."""
    told = {"fell_back": "random pairs", "stopped": "not optimal"}
    return "; ".join(
        f"{text}: {', '.join(f'{size:,}' for size in sizes)}"
        for key, text in told.items()
        if (sizes := [size for size, row in sorted(found.items()) if row[key]])
    )


def by_size(rows: Sequence[Table], *keys: str) -> dict[tuple[str, ...], dict[int, Table]]:
    """Return rows by what they have under some keys, and by size."""
    found: dict[tuple[str, ...], dict[int, Table]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), {})[row["size"]] = row
    return found


def digits(part: Table) -> str:
    """Return the section of larger pools."""
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
    return f"""## Does a larger pool pay?

The digits, the network and the training of the recipe `edm_aot`, with other couplers and pools. Each
cell is the median over the seeds {", ".join(map(str, part["seeds"]))}, with the least and the
greatest. What the pairs do to samples is in [Pairs on the digits](pairs.md).

{rows_of(head, rows)}

{reading}""".rstrip()
