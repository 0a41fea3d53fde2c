"""Measure EDM against EDM-AOT, and EDM-AOT with and without guidance, on the digits.

    python benchmarks/digits.py --seeds 0 1 2

runs the shipped recipes `edm` and `edm_aot_dg` for every seed (the denoiser of `edm_aot_dg` is that
of `edm_aot`: same settings, same seed, same weights) and writes `docs/results/digits.md` and
`docs/images/digits.png`. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import genkit

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PICTURE = RESULTS.parent / "images" / "digits.png"
STEPS = {9: 5, 13: 7, 17: 9, 27: 14, 35: 18}
FEWEST = min(STEPS)
METHODS = ("EDM", "EDM-AOT", "EDM-AOT + DG")
Run = dict[str, Any]


SAMPLES = 8192  # twice the recipes': the finite sample alone costs the distance about a unit


def measure(seed: int, out: Path, device: str) -> Run:
    """Run both recipes with a seed and return their scores by method."""
    settings = {
        "seed": seed,
        "sweep.count": SAMPLES,
        "sweep.vary.schedule.steps": list(STEPS.values()),
    }
    edm, aot = (
        genkit.run_recipe(
            recipe, out=out / f"{recipe}-{seed}", settings=settings, device=device, progress=True
        )
        for recipe in ("edm", "edm_aot_dg")
    )
    plain = [row for row in aot.scores["sweep"] if row["guidance.weight"] == 0]
    guided = [row for row in aot.scores["sweep"] if row["guidance.weight"] != 0]
    sweeps = dict(zip(METHODS, (edm.scores["sweep"], plain, guided), strict=True))
    return {
        "seed": seed,
        "runs": (edm, aot),
        "frechet": {
            m: {row["nfe"]: row["frechet_classifier"] for row in s} for m, s in sweeps.items()
        },
        "guidance_nfe": {row["nfe"]: row["guidance_nfe"] for row in guided},
        "trajectories": {
            m: run.scores["scores"][0] for m, run in zip(METHODS, (edm, aot), strict=False)
        },
        "facts": [
            json.loads((run.folder / "results.json").read_text())["stages"]["sweep"]["facts"]
            for run in (edm, aot)
        ],
    }


def page(runs: Sequence[Run], command: str) -> str:
    """Return the page of results."""
    seeds = ", ".join(str(run["seed"]) for run in runs)
    environment = json.loads((runs[0]["runs"][0].folder / "environment.json").read_text())
    packages = ", ".join(f"{k} {v}" for k, v in environment["packages"].items())
    ratios = _ratios(runs)
    facts = runs[0]["facts"][0]
    return f"""# Digits: EDM against EDM-AOT

Real data: the 1,797 handwritten digits that genkit carries, 8x8 pixels. Network, batch, images seen,
learning rate and seed are the same for both; noise is drawn at random for EDM, and assigned by the
Hungarian algorithm within pools of 512 for EDM-AOT. The guided rows use the same EDM-AOT denoiser
and a discriminator that was trained on AOT pairs as well.

The Frechet distance is taken over the features of a small classifier that the recipe trains on
these digits. **It is no FID** and compares with no published figure; it compares the columns here,
which share one classifier a seed. Its scale is that of the features, which are not normalised.
Curvature and truncation error are defined in `genkit show curvature` and `genkit show truncation`;
lower is better everywhere.

## Medians over seeds {seeds}

{_frechet_table(runs)}

{_trajectory_table(runs)}

- Curvature, EDM-AOT over EDM: **{ratios["curvature"]:.2f}**.
- Frechet distance at 13 NFE, EDM-AOT over EDM: **{ratios["frechet"]:.2f}**.
- The same at 35 NFE: **{ratios["many"]:.2f}**. With steps to spare EDM is ahead: the pairs help
  where steps are few.
- Frechet distance at 27 NFE, guided over unguided EDM-AOT: **{ratios["guidance"]:.2f}**.

![Samples of EDM and EDM-AOT from the same noise, and Frechet distance against NFE](../images/digits.png)

## Each seed

{_seed_table(runs)}

## How it was made

- Command: `{command}`
- Commit: {_commit()}
- Hardware: {environment["hardware"]}, {environment["cores"]} cores, threads used: {environment["threads"]}
- Versions: Python {environment["python"]}, {packages}
- Samples: {facts["samples"]} for each score, against {facts["reference"]} real images; {facts["features"]} features
- Extractors: {"; ".join(f"seed {run['seed']} {run['facts'][0]['extractor']}" for run in runs)}

The digits are tiny and the training is short. The table shows what the coupling changes at equal
cost; it says nothing about image quality on larger data.
"""


def _median(runs: Sequence[Run], method: str, nfe: int) -> float:
    return statistics.median(run["frechet"][method][nfe] for run in runs)


def _ratios(runs: Sequence[Run]) -> dict[str, float]:
    """Return the median over seeds of each ratio."""
    edm, aot, guided = METHODS
    return {
        "curvature": statistics.median(
            run["trajectories"][aot]["curvature"] / run["trajectories"][edm]["curvature"]
            for run in runs
        ),
        "frechet": statistics.median(
            run["frechet"][aot][13] / run["frechet"][edm][13] for run in runs
        ),
        "many": statistics.median(
            run["frechet"][aot][35] / run["frechet"][edm][35] for run in runs
        ),
        "guidance": statistics.median(
            run["frechet"][guided][27] / run["frechet"][aot][27] for run in runs
        ),
    }


def _frechet_table(runs: Sequence[Run]) -> str:
    head = "| Frechet distance at | " + " | ".join(f"{nfe} NFE" for nfe in STEPS) + " |"
    rows = [
        f"| {m} | " + " | ".join(f"{_median(runs, m, nfe):.2f}" for nfe in STEPS) + " |"
        for m in METHODS
    ]
    calls = runs[0]["guidance_nfe"]
    rows.append(
        "| calls of the discriminator | " + " | ".join(f"+{calls[n]}" for n in STEPS) + " |"
    )
    return "\n".join([head, "|---" * (len(STEPS) + 1) + "|", *rows])


def _trajectory_table(runs: Sequence[Run]) -> str:
    lines = ["| | mean curvature | truncation error, 5 steps |", "|---|---|---|"]
    for method in METHODS[:2]:
        found = [run["trajectories"][method] for run in runs]
        curvature = statistics.median(row["curvature"] for row in found)
        truncation = statistics.median(row["truncation"] for row in found)
        lines.append(f"| {method} | {curvature:.2f} | {truncation:.2f} |")
    return "\n".join(lines)


def _seed_table(runs: Sequence[Run]) -> str:
    nfes = " | ".join(f"{nfe} NFE" for nfe in STEPS)
    lines = [
        f"| seed | method | {nfes} | curvature | truncation |",
        "|---" * (len(STEPS) + 4) + "|",
    ]
    for run in runs:
        for method in METHODS:
            scores = " | ".join(f"{run['frechet'][method][nfe]:.2f}" for nfe in STEPS)
            row = run["trajectories"].get(method)
            ends = f"{row['curvature']:.2f} | {row['truncation']:.2f}" if row else " | "
            lines.append(f"| {run['seed']} | {method} | {scores} | {ends} |")
    return "\n".join(lines)


def draw(runs: Sequence[Run], device: str) -> None:
    """Draw samples of both denoisers from the same noise, and the score against NFE."""
    figure = Figure(figsize=(13, 4.2), layout="constrained", facecolor="white")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.2])
    for axes, run, method in zip((left, middle), runs[0]["runs"], METHODS, strict=False):
        images = run.denoiser(device=device).sample(64, schedule={"steps": STEPS[FEWEST]})[:, 0]
        axes.imshow(_tiles(images), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(f"{method}, {FEWEST} NFE", loc="left", fontweight="bold")
        axes.set_axis_off()
    for method, colour in zip(METHODS, ("#555555", "#0072b2", "#d55e00"), strict=True):
        values = [_median(runs, method, nfe) for nfe in STEPS]
        right.plot(list(STEPS), values, "o-", color=colour, label=method)
    right.set_yscale("log")
    right.set_xticks(list(STEPS))
    right.set_xlabel("NFE: calls of the denoiser for each sample")
    right.set_title("Frechet distance, classifier features", loc="left", fontweight="bold")
    right.grid(alpha=0.3)
    right.legend(frameon=False)
    figure.savefig(PICTURE, dpi=110)


def _tiles(images: torch.Tensor) -> torch.Tensor:
    """Return 64 images as one of 8x8 tiles, a pixel apart."""
    framed = torch.nn.functional.pad(images.clamp(-1, 1), (0, 1, 0, 1), value=1.0)
    size = framed.shape[-1]
    return framed.reshape(8, 8, size, size).permute(0, 2, 1, 3).reshape(8 * size, 8 * size)


def _commit() -> str:
    run = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    return subprocess.run(
        run, cwd=RESULTS, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/digits-results"))
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    runs = [measure(seed, chosen.out, chosen.device) for seed in chosen.seeds]
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()}"
    command = f"{threads} python benchmarks/digits.py --seeds {' '.join(map(str, chosen.seeds))}"
    (RESULTS / "digits.md").write_text(page(runs, command), encoding="utf-8")
    PICTURE.parent.mkdir(exist_ok=True)
    draw(runs, chosen.device)
    print(json.dumps(_ratios(runs), indent=2))


if __name__ == "__main__":
    main()
