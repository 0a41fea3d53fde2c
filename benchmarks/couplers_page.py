"""Write `couplers.md`, the page of `couplers.py`, from all available measurements."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from couplers_growth import draw_growth, growth
from couplers_sections import digits, sinkhorn, speed, speed_on_gpu, torchcfm, waiting

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PAGE = RESULTS / "couplers.md"
Table = dict[str, Any]

INTRODUCTION = """# Couplers: cost and effect

A coupler assigns noise samples to images, once per pool. This page shows the time of couplers, how close their total cost
is to the minimum, and how long training waits for pairs. *Plain scipy* is the method of the EDM-AOT paper's code: the full
cost matrix, then `scipy.optimize.linear_sum_assignment`. It is measured in the same run and on the same pools, directly
before the other couplers. `genkit bench couplers` repeats these measurements on your machine."""

WHAT_NOT = """## Limits of these figures

- The times are those of one machine. Ratios of times differ less between machines than times, but both depend on the
  number of cores.
- No other programs ran on the machine. When a network is trained on the same cores, couplers take longer. Only the share of
  time spent waiting for pairs was measured during training.
- Pairs of lower cost do not always give better samples. The effect on samples was measured only on the digits, which are
  tiny images."""

HOW = "## How it was measured"

SECTIONS = {
    "speed": speed,
    "speed_cuda": speed_on_gpu,
    "sinkhorn": sinkhorn,
    "growth": growth,
    "waiting": waiting,
    "waiting_cuda": waiting,
    "torchcfm": torchcfm,
    "digits": digits,
}
"""Dict from each measurement to the function that returns its section, in the order of the page."""

OTHERS = ("torchcfm", "digits")
"""Measurements with separate scripts: `couplers_NAME.py` writes `couplers_NAME.json`."""


def write_page(_: argparse.Namespace) -> None:
    """Write the page and its picture."""
    files = {name: RESULTS / "couplers" / f"{name}.json" for name in SECTIONS}
    files |= {name: RESULTS / f"couplers_{name}.json" for name in OTHERS}
    parts: dict[str, Table] = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in files.items()
        if path.exists()
    }
    if "growth" in parts:
        draw_growth(parts["growth"]["rows"])
    text = [SECTIONS[name](part) for name, part in parts.items()]
    made = [made_by(name, part) for name, part in parts.items()]
    whole = "\n\n".join([INTRODUCTION, *text, WHAT_NOT, HOW, *made])
    PAGE.write_text(f"{whole}\n", encoding="utf-8")
    print(f"wrote {PAGE.name} with {', '.join(parts)}")


def made_by(name: str, part: Table) -> str:
    """Return the command, commit, hardware and versions of a measurement, in Markdown."""
    where = part.get("environment", part)  # the digits have no separate table of the environment
    packages = ", ".join(f"{package} {version}" for package, version in where["packages"].items())
    seeds = part.get("seeds", [part.get("seed")])
    return f"""**{name}**

- Command: `{part["command"]}`
- Commit: {part["commit"]}
- Hardware: {where["hardware"]}, {where["cores"]} cores, threads used: {where["threads"]}
- Versions: Python {where["python"]}, {packages}
- {counts(part)}; seed{"" if len(seeds) == 1 else "s"} {", ".join(map(str, seeds))}"""


def counts(part: Table) -> str:
    """Return the extent of a measurement: the number of pools, or of images and samples."""
    if "arms" in part:
        return f"{part['images']:,} training images for each network, {part['samples']:,} samples"
    if "pools" in part:
        return f"{part['images']:,} training images in {part['pools']:,} pools"
    repeats = part["limits"]["repeats"] if "limits" in part else part["repeats"]
    data = (
        part["data"]
        if isinstance(part["data"], str)
        else "the {items:,} images of {name}".format(**part["data"])
    )
    return f"{repeats} pool{'' if repeats == 1 else 's'} of each size, of {data}"
