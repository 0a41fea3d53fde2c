"""Does a larger pool pay? Curvature and Frechet distance on digits for several couplers and pools.

    OMP_NUM_THREADS=1 python benchmarks/couplers_digits.py --jobs 2

runs the shipped recipe `edm_aot` with each coupler and seed and writes `couplers_digits.json` to
`docs/results`; `couplers.py` makes a page of it. Finished runs are not repeated. `semidiscrete` is in a
distribution of its own, `plugins/genkit-semidiscrete`, which must be installed.

Network, batch, images seen, learning rate, noise levels and initial weights are the same for all
arms of a seed, and so is the classifier whose features are compared: it follows from the seed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import tomllib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

import genkit

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RECIPE = RESULTS.parents[1] / "recipes" / "edm_aot.toml"
FOUND = RESULTS / "couplers_digits.json"
STEPS = [5, 7]  # of Heun: 9 and 13 NFE
SAMPLES = 8192  # twice the recipe's: the finite sample alone costs the distance about a unit
Table = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One way to pair.

    Attributes:
        coupler: the table of the recipe.
        pool: pairs that are made together.
        before: stages that the coupler needs.
    """

    coupler: Table
    pool: int
    before: tuple[Table, ...] = ()


ARMS = {
    "random": Arm({"use": "random"}, 256),
    "hungarian-128": Arm({"use": "hungarian"}, 128),
    "hungarian-512": Arm({"use": "hungarian"}, 512),
    "hungarian-1536": Arm({"use": "hungarian"}, 1536),
    "sinkhorn-1536": Arm({"use": "sinkhorn"}, 1536),
    "sinkhorn-4096": Arm({"use": "sinkhorn"}, 4096),
    "semidiscrete": Arm(
        {"use": "semidiscrete", "potential": "potential"},
        512,
        ({"id": "potential", "use": "fit-potential"},),
    ),
}


def recipe(arm: Arm, seed: int) -> Table:
    """Return the shipped recipe with another coupler."""
    table = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    stages = {stage["id"]: stage for stage in table["stage"]}
    stages["denoiser"] |= {"coupler": arm.coupler, "pool_size": arm.pool}
    stages["sweep"] |= {"count": SAMPLES, "vary": {"schedule": {"steps": STEPS}}}
    return table | {"seed": seed, "stage": [*arm.before, *table["stage"]]}


def measure(name: str, seed: int, out: Path) -> Table:
    """Run an arm with a seed and return what was found."""
    arm, folder = ARMS[name], out / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "arm.toml"
    written.write_text(tomli_w.dumps(recipe(arm, seed)), encoding="utf-8")
    run = genkit.run_recipe(written, out=folder / "run", device="cpu")
    (training,) = run.folder.glob("[0-9][0-9]-denoiser")
    rows = [json.loads(line) for line in (training / "metrics.jsonl").read_text().splitlines()]
    pools = [row for row in rows if "pool" in row]
    results = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))
    return {
        "seed": seed,
        "curvature": run.scores["scores"][0]["curvature"],
        "frechet": {row["nfe"]: row["frechet_classifier"] for row in run.scores["sweep"]},
        "reduction": statistics.fmean(row["reduction"] for row in pools),
        "seconds_solving_a_pool": statistics.median(row["seconds_solving"] for row in pools),
        "facts": results["stages"]["sweep"]["facts"],
        "environment": json.loads((run.folder / "environment.json").read_text(encoding="utf-8")),
    }


def summary(name: str, runs: list[Table]) -> Table:
    """Return an arm's scores by seed and their medians."""
    arm, nfes = ARMS[name], sorted(runs[0]["frechet"])
    found = {
        "curvature": [run["curvature"] for run in runs],
        **{f"frechet_{nfe}": [run["frechet"][nfe] for run in runs] for nfe in nfes},
        "reduction": [run["reduction"] for run in runs],
        "seconds_solving_a_pool": [run["seconds_solving_a_pool"] for run in runs],
    }
    return {
        "name": name,
        "coupler": arm.coupler,
        "pool": arm.pool,
        "by_seed": [
            {"seed": run["seed"]} | {score: values[k] for score, values in found.items()}
            for k, run in enumerate(runs)
        ],
        "medians": {score: statistics.median(values) for score, values in found.items()},
    }


def shared_facts(runs: list[Table]) -> Table:
    """Return what all runs depend on.

    Raises:
        ValueError: two arms of a seed were compared by different classifiers.
    """
    extractors: dict[int, str] = {}
    for run in runs:
        told = run["facts"]["extractor"]
        if extractors.setdefault(run["seed"], told) != told:
            raise ValueError(f"seed {run['seed']}: {told} is not {extractors[run['seed']]}")
    first = runs[0]
    kept = ("hardware", "cores", "threads", "python", "packages")
    return {
        **{key: first["environment"][key] for key in kept},
        "samples": SAMPLES,
        "reference": first["facts"]["reference"],
        "features": first["facts"]["features"],
        "extractors": {str(seed): told for seed, told in sorted(extractors.items())},
    }


def commit() -> str:
    """Return the commit that is measured, marked where the tree differs from it."""
    run = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    return subprocess.run(
        run, cwd=RESULTS, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/couplers-digits"))
    chosen = parser.parse_args()
    runs: dict[str, list[Table]] = {name: [] for name in chosen.arms}
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.jobs, mp_context=fresh) as workers:
        started = {
            workers.submit(measure, name, seed, chosen.out): name
            for seed in chosen.seeds
            for name in chosen.arms
        }
        for done in as_completed(started):
            runs[started[done]].append(found := done.result())
            scores = {k: found[k] for k in ("seed", "curvature", "frechet", "reduction")}
            print(started[done], json.dumps(scores), flush=True)
    for found in runs.values():
        found.sort(key=lambda run: run["seed"])
    command = (
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '')} "
        f"python benchmarks/couplers_digits.py --jobs {chosen.jobs} "
        f"--seeds {' '.join(map(str, chosen.seeds))} --arms {' '.join(chosen.arms)}"
    )
    report = {
        "command": command,
        "commit": commit(),
        **shared_facts([run for found in runs.values() for run in found]),
        "seeds": chosen.seeds,
        "images": tomllib.loads(RECIPE.read_text(encoding="utf-8"))["stage"][0]["images"],
        "arms": [summary(name, found) for name, found in runs.items()],
    }
    FOUND.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
