"""Compare EDM with EDM-AOT on Fashion-MNIST, and separate the effects of pairs and noise levels.

    genkit data get fashion-mnist --root data/fashion-mnist
    genkit run fashion_mnist/classifier
    genkit export runs/fashion-mnist-classifier fashion-classifier.safetensors --stage classifier
    OMP_NUM_THREADS=1 python benchmarks/fashion_mnist.py

runs the recipes `fashion_mnist/edm` and `fashion_mnist/edm_aot`, and writes
`docs/results/fashion_mnist.md` and `docs/images/fashion-mnist.png`. Finished runs are not repeated.
The interpretation in `docs/results/fashion_mnist_reading.md` is written by hand and inserted into the
page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from digits_judge import provenance
from matplotlib.figure import Figure

import genkit
from genkit.artifacts import Run, SamplingCosts, Scores
from genkit.artifacts.record import read_rows
from genkit.parts.no_stages import NoStages

RESULTS = Path(__file__).parents[1] / "docs" / "results"
READING = RESULTS / "fashion_mnist_reading.md"
PICTURE = RESULTS.parent / "images" / "fashion-mnist.png"

METHODS = {"EDM": "edm", "EDM-AOT": "edm_aot"}
FRECHET, SPREAD = "frechet_classifier", "spread_pixels"
ROWS, COLUMNS = 6, 6
"""Images in a panel of the picture."""


def recipe_name(method: str) -> str:
    """Return the name of the recipe of a method."""
    return f"fashion_mnist/{METHODS[method]}"


def run(method: str, out: Path) -> Run:
    """Run the recipe of a method, unless it is finished, and return the run."""
    folder = out / f"fashion-mnist-{METHODS[method].replace('_', '-')}"
    return Run.load(genkit.run_recipe(recipe_name(method), out=folder, progress=True).folder)


def scores_of(run: Run, stage: str) -> Scores:
    """Return the scores of a stage."""
    return run.stage(stage).read(Scores)


def main_table(runs: Mapping[str, Run]) -> str:
    """Return the scores of 7 Heun steps, at EDM's and at fitted noise levels, in Markdown."""
    lines = [
        "| method | noise levels | NFE | Fréchet distance | spread | curvature |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for stage, levels in (("scores", "rho 7, sigma_max 80"), ("scores-fitted", "fitted")):
        for method, found in runs.items():
            (row,) = scores_of(found, stage).rows
            distance = f"{row[FRECHET]:.2f} ± {row[f'{FRECHET}_std']:.2f}"
            optional = [f"{row[key]:.3g}" if key in row else "" for key in (SPREAD, "curvature")]
            cells = [method, levels, f"{row['nfe']:g}", distance, *optional]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def control_table(runs: Mapping[str, Run], score: str, digits: int) -> str:
    """Return a score of the control experiment and the NFE in Markdown: a row for each schedule.

    Args:
        runs: map from method to run.
        score: name of the score.
        digits: number of decimal places.
    """
    found: dict[tuple[int, float, float], dict[str, str]] = {}
    for method, each in runs.items():
        for row in scores_of(each, "control").rows:
            rho, sigma_max, steps = (
                row[f"schedule.{key}"] for key in ("rho", "sigma_max", "steps")
            )
            cell = f"{row[score]:.{digits}f} ({row['nfe']:g})"
            found.setdefault((steps, rho, sigma_max), {})[method] = cell
    lines = [
        "| Heun steps | rho | sigma_max | " + " | ".join(f"{m} (NFE)" for m in runs) + " |",
        "|--:" * (len(runs) + 3) + "|",
    ]
    for (steps, rho, sigma_max), values in sorted(found.items()):
        cells = [f"{steps}", f"{rho:g}", f"{sigma_max:g}", *(values[method] for method in runs)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_table(runs: Mapping[str, Run]) -> str:
    """Return the time of training and of pairing in Markdown."""
    lines = [
        "| method | pool | images | seconds of training | seconds of waiting for pairs | "
        "seconds of solving, in the background | cost of the pairs / cost of random pairs |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for method, found in runs.items():
        stage = found.stage("denoiser")
        rows = read_rows(stage.folder / "metrics.jsonl")
        steps = [row for row in rows if "images_per_second" in row]
        pools = [row for row in rows if "cost_after" in row]
        ends = [row["images"] for row in steps]
        seconds = sum(
            (end - before) / row["images_per_second"]
            for before, end, row in zip([0, *ends], ends, steps, strict=False)
        )
        waited = sum(row["seconds_waited_for_pairs"] for row in steps)
        solving = sum(row["seconds_solving"] for row in pools)
        ratio = sum(row["cost_after"] for row in pools) / sum(row["cost_before"] for row in pools)
        lines.append(
            f"| {method} | {stage.settings['pool_size']:,} | {ends[-1]:,} | {seconds:,.0f} | "
            f"{waited:.1f} | {solving:.1f} | {ratio:.3f} |"
        )
    return "\n".join(lines)


def page(runs: Mapping[str, Run]) -> str:
    """Return the page of results."""
    first = next(iter(runs.values()))
    environment = json.loads((first.folder / "environment.json").read_text(encoding="utf-8"))
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    facts = scores_of(first, "scores").facts[FRECHET]
    control = scores_of(first, "control").facts[FRECHET]
    samples = first.stage("samples")
    cost = samples.read(SamplingCosts).rows[0]
    recipes = " and ".join(f"`{recipe_name(method)}`" for method in runs)
    return f"""# Fashion-MNIST: EDM against EDM-AOT

The data are the 60,000 training images of Fashion-MNIST, of 28x28 pixels. The network is a U-Net with 0.35 GFLOP per image,
and is the same for both methods, as are batch size, number of training images, noise distribution and optimizer. There is
one training run of each. For EDM, noise is independent of the images. For EDM-AOT, it is assigned by the Hungarian
algorithm in pools of 2,048, and sampling starts from the
[corrected start](../explanation/science.md#the-start), which takes one more call of the denoiser.

Samples and images are compared as 8-bit images. The Fréchet distance is computed in the features of a classifier of
Fashion-MNIST, the recipe `fashion_mnist/classifier`. **It is not an FID.** Lower is better. The spread is the standard
deviation of the samples divided by that of the images, in pixels, as the mean over 16 principal directions; 1 is best.
Curvature is defined in [The method](../explanation/science.md#what-is-measured).

{READING.read_text(encoding="utf-8").strip()}

![Images of the data set, and samples of EDM and EDM-AOT from the same noise](../images/fashion-mnist.png)

## 7 Heun steps

Mean and standard deviation over 3 sets of {int(samples.settings["count"]) // 3:,} samples. The levels of the stage
[`fit-schedule`](fitted_schedules.md) are fitted to each denoiser with other noise than that of the scored samples.

{main_table(runs)}

## Pairs, rho and sigma_max, separated

Fréchet distance of {int(control["samples"]):,} samples, and NFE in parentheses. With fewer samples the distance has a larger
bias, so that only values within this table are comparable. The start of EDM-AOT is `auto`: it is corrected once at
sigma_max 80 and twice at sigma_max 8.

{control_table(runs, FRECHET, 2)}

Spread of the same samples:

{control_table(runs, SPREAD, 3)}

## Time

{cost_table(runs)}

## How it was measured

- {provenance()}
- Recipes: {recipes}, seed 0
- Hardware of the runs: {environment["hardware"]}, {environment["cores"]} cores, threads used: {environment["threads"]}
- Versions: Python {environment["python"]}, {packages}
- Samples: {facts["samples"]} in each set, against {facts["reference"]} real images; {facts["features"]} features
- Arithmetic of a sample with 7 steps: {cost.gflop_per_image:.2f} GFLOP
- Protocol: {facts["protocol"]}
- Extractor: {facts["extractor"]}

There is one training run of each method, so differences between training runs are unknown.
"""


def draw(runs: Mapping[str, Run], root: str) -> None:
    """Draw images of the data set beside samples of each method from the same noise."""
    count = ROWS * COLUMNS
    dataset = genkit.component("dataset", "fashion-mnist", root=root)
    real = dataset.load(NoStages()).data
    panels = [("images of the data set", real[:: len(real) // count][:count])]
    for steps in (4, 7):
        for method, found in runs.items():
            trained = found.stage("denoiser").folder / "denoiser.safetensors"
            levels = found.stage("levels").folder / "levels.json"
            fitted = {"use": "fitted", "levels": str(levels)}
            # With 4 steps, the best schedule of both methods in the control experiment.
            schedule = {"sigma_max": 8.0} if steps == 4 else fitted
            images = genkit.load_denoiser(trained, "cpu").sample(
                count, schedule={"steps": steps, **schedule}, seed=1
            )
            name = "fitted levels" if steps == 7 else "rho 7, sigma_max 8"
            panels.append((f"{method}, {steps} Heun steps\n{name}", images))
    figure = Figure(figsize=(15, 3.3), facecolor="white")
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.02, top=0.84, wspace=0.04)
    for axes, (title, images) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(tiles(images), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(title, loc="left", fontsize="medium")
        axes.set_axis_off()
    figure.savefig(PICTURE, dpi=110)


def tiles(images: torch.Tensor) -> torch.Tensor:
    """Join images, ``[N, 1, H, W]``, uint8 or in [-1, 1], into one image of ROWS by COLUMNS tiles."""
    if images.is_floating_point():
        images = ((images.clamp(-1, 1) + 1) * 127.5).round()
    framed = torch.nn.functional.pad(images[:, 0].float(), (0, 1, 0, 1), value=255.0)
    height, width = framed.shape[-2:]
    grid = framed.reshape(ROWS, COLUMNS, height, width).permute(0, 2, 1, 3)
    return grid.reshape(ROWS * height, COLUMNS * width)


def main() -> None:
    """Parse the command line, run the recipes, and write the page and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--root", default="data/fashion-mnist", help="folder of the data set")
    chosen = parser.parse_args()
    runs: dict[str, Any] = {method: run(method, chosen.out) for method in METHODS}
    (RESULTS / "fashion_mnist.md").write_text(page(runs), encoding="utf-8")
    draw(runs, chosen.root)
    print(main_table(runs))


if __name__ == "__main__":
    main()
