"""Measure what couplers cost and what they give, and write the page of it.

    python benchmarks/couplers.py speed
    python benchmarks/couplers.py sinkhorn
    python benchmarks/couplers.py growth
    python benchmarks/couplers.py waiting
    python benchmarks/couplers.py page

Each but the last measures one thing with `genkit_bench` and writes it to `couplers/NAME.json` in
`docs/results`. `page` writes `couplers.md` and its picture from whatever was measured, that of
`couplers_torchcfm.py` and `couplers_digits.py` included. With `--images FILE`, a safetensors file
that has uint8 `train_images` [N, 3, 32, 32] such as CIFAR-10, pools are of real images.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import tomli_w
import torch
from couplers_page import write_page

import genkit
from genkit.machine import resident, resolve_device
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Registry
from genkit.recipe.source import read_source
from genkit.types import Batch
from genkit_bench.candidates import Candidate, chosen_candidates, every_candidate, name_of
from genkit_bench.couplers import Limits, measure_couplers
from genkit_bench.measure import cost_at_random, cost_of, solve
from genkit_bench.pools import Pools, completed
from genkit_bench.synthetic import synthetic
from genkit_bench.tables import couplers_report

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PARTS = RESULTS / "couplers"
SHAPE, CLASSES = (3, 32, 32), 10
SINKHORN = ({"use": "sinkhorn"}, {"use": "sinkhorn", "rounded": True})
SMALL, LARGE = 4096, 16_384
Table = dict[str, Any]
Choose = Callable[[Registry, Pools], list[Candidate]]


def speed(chosen: argparse.Namespace) -> None:
    """Measure `hungarian` for both costs beside plain scipy."""
    tables = [{"use": "hungarian", "cost": cost} for cost in ("euclidean", "squared")]
    limits = Limits(chosen.repeats, seconds=1e4, reference=max(chosen.sizes))
    write("speed", measured(chosen, chosen.sizes, limits, of(tables)))


def sinkhorn(chosen: argparse.Namespace) -> None:
    """Measure `sinkhorn` where the optimum is known, then alone in a process, on a large pool."""
    small, large = min(chosen.sizes), max(chosen.sizes)
    limits = Limits(chosen.repeats, seconds=1e4, reference=small)
    found = measured(chosen, [small], limits, of(SINKHORN))
    found["alone"] = []
    for table in SINKHORN:
        tell(f"pool {large:,}, alone: {name_of(table)}")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            found["alone"].append(fresh.submit(alone, chosen, table, large).result())
    write("sinkhorn", found)


def alone(chosen: argparse.Namespace, table: Table, size: int) -> Table:
    """Return what one pool takes in a process that does nothing else."""
    pools, _ = pools_of(chosen, size)
    settings = {key: value for key, value in table.items() if key != "use"}
    coupler = genkit.component("coupler", table["use"], **settings)
    solve(pools, coupler, 32, 1)  # imports what it needs
    before = resident("VmHWM") or 0
    solved = solve(pools, coupler, size, 0)
    return {
        "coupler": name_of(table),
        "pool": size,
        **asdict(solved),
        "random_cost": cost_at_random(pools, cost_of(coupler), size, 0),
        "process_bytes": max(before, resident("VmHWM") or 0),
    }


def growth(chosen: argparse.Namespace) -> None:
    """Measure every coupler from small pools to large ones."""
    limits = Limits(chosen.repeats, chosen.limit, reference=max(chosen.sizes))
    write("growth", measured(chosen, chosen.sizes, limits, every_coupler))


def every_coupler(registry: Registry, pools: Pools) -> list[Candidate]:
    """Return each registered coupler, `conditional` for embeddings, and `semidiscrete`.

    A semidiscrete coupler needs a potential for these images. It takes the same time whatever the
    potential, so that one of zeros will do.
    """
    candidates = every_candidate(registry, pools.device)
    if find_spec("genkit_semidiscrete"):
        from genkit_semidiscrete.coupler import BoundSemidiscrete, Semidiscrete
        from genkit_semidiscrete.potential import Potential, describe

        data, zeros = pools.data.data, torch.zeros(len(pools.data))
        fitted = Potential(describe(pools.data, ()), zeros, tuple(data.shape[1:]), ())
        coupler, bound = Semidiscrete(potential="zeros"), BoundSemidiscrete(fitted)
        candidates = [c for c in candidates if c.name != "semidiscrete"]
        candidates.append(Candidate("semidiscrete(potential=zeros)", coupler, bound))
    embeddings = {"use": "conditional", "by": "embedding"}
    return [*candidates, *chosen_candidates(registry, [embeddings], pools.device)]


def of(tables: Sequence[Table]) -> Choose:
    """Return what chooses the couplers of some tables."""
    return lambda registry, pools: chosen_candidates(registry, tables, pools.device)


def measured(
    chosen: argparse.Namespace, sizes: Sequence[int], limits: Limits, choose: Choose
) -> Table:
    """Return the report of `genkit bench` for the couplers that are chosen."""
    pools, data = pools_of(chosen, max(sizes))
    plugins = load_plugins()
    candidates = choose(plugins.registry, pools)
    rows = list(measure_couplers(candidates, pools, sorted(sizes), limits, tell))
    return couplers_report(rows, pools, limits, plugins, data)


def pools_of(chosen: argparse.Namespace, largest: int) -> tuple[Pools, str]:
    """Return pools of real or of synthetic images, and what they are."""
    if chosen.images is None:
        count, name = max(2048, largest), "synthetic images"
        items = synthetic(SHAPE, CLASSES, count, chosen.seed)
    else:
        stored = safetensors.torch.load_file(chosen.images)
        images = stored["train_images"].float() / 127.5 - 1
        items, name = Batch(images, stored["train_labels"].long()), chosen.images.stem
    return Pools(completed(items, chosen.seed), chosen.seed, resolve_device(chosen.device)), name


def waiting(chosen: argparse.Namespace) -> None:
    """Train a recipe's denoiser, or read a run, and see how long it waited for pairs."""
    if chosen.run:
        write("waiting", waited_in(chosen.run, chosen.stage))
        return
    with tempfile.TemporaryDirectory() as folder:
        write("waiting", waited_in(trained_alone(chosen, Path(folder)), chosen.stage))


def waited_in(folder: Path, stage: str) -> Table:
    """Return how long a stage of a run waited for pairs."""
    (place,) = folder.glob(f"[0-9][0-9]-{stage}")
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    pools, steps = [r for r in rows if "pool" in r], [r for r in rows if "loss" in r]
    before = [0, *(row["images"] for row in steps)]
    seconds = sum(
        (row["images"] - since) / row["images_per_second"]
        for since, row in zip(before, steps, strict=False)
    )
    waited = sum(row["seconds_waited_for_pairs"] for row in steps)
    recipe = tomllib.loads((folder / "resolved.toml").read_text(encoding="utf-8"))
    settings = next(found for found in recipe["stage"] if found["id"] == stage)
    where = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return {
        "recipe": recipe["name"],
        "pool": settings.get("pool_size") or settings["batch_size"],
        "coupler": name_of({"use": settings["coupler"]["use"]}),
        "images": steps[-1]["images"],
        "pools": len(pools),
        "seconds_training": seconds,
        "seconds_waited": waited,
        "share": waited / seconds,
        "seconds_solving": sorted(row["seconds_solving"] for row in pools)[len(pools) // 2],
        "seed": recipe["seed"],
        "environment": where,
    }


def trained_alone(chosen: argparse.Namespace, folder: Path) -> Path:
    """Run one stage of a recipe by itself and return the folder of the run."""
    table = dict(read_source(chosen.recipe).table)
    table["stage"] = [stage for stage in table["stage"] if stage["id"] == chosen.stage]
    written = folder / "alone.toml"
    written.write_text(tomli_w.dumps(table), encoding="utf-8")
    settings = {f"{chosen.stage}.images": chosen.count} if chosen.count else {}
    run = genkit.run_recipe(
        written, out=folder / "run", settings=settings, device=chosen.device, progress=True
    )
    return run.folder


def write(name: str, found: Table) -> None:
    """Write one part; those of a GPU lie beside those of a CPU."""
    on_gpu = found["environment"]["device"].startswith("cuda")
    path = PARTS / f"{name}{'_cuda' if on_gpu else ''}.json"
    where = dict(found["environment"])
    del where["command"]  # has the paths of this machine
    whole = {"command": command(), "commit": commit(), **found, "environment": where}
    PARTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    tell(f"wrote {path}")


def command() -> str:
    """Return what was typed, files without their folders."""
    typed = [Path(part).name if "/" in part else part for part in sys.argv[1:]]
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()}"
    return " ".join([threads, "python benchmarks/couplers.py", *typed])


def commit() -> str:
    """Return the commit that is measured, marked where the tree differs from it."""
    run = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    return subprocess.run(
        run, cwd=RESULTS, capture_output=True, text=True, check=True
    ).stdout.strip()


def tell(text: str) -> None:
    """Say on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Parse the command line, measure or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    sizes = {
        speed: [512, 1024, 2048, 4096],
        sinkhorn: [SMALL, LARGE],
        growth: [2**k for k in range(8, 15)],
    }
    for part, default in sizes.items():
        parsed = parts.add_parser(part.__name__, help=part.__doc__)
        parsed.set_defaults(act=part)
        parsed.add_argument("--sizes", type=int, nargs="+", default=default)
        parsed.add_argument("--repeats", type=int, default=3, help="pools of each size")
        parsed.add_argument("--images", type=Path, help="real images; synthetic ones by default")
        parsed.add_argument("--device", default="cpu")
        parsed.add_argument("--seed", type=int, default=0)
        if part is growth:
            parsed.add_argument("--limit", type=float, default=60.0, help="seconds for a pool")
    parsed = parts.add_parser("waiting", help=waiting.__doc__)
    parsed.set_defaults(act=waiting)
    parsed.add_argument("--recipe", default="edm_aot")
    parsed.add_argument("--stage", default="denoiser")
    parsed.add_argument("--count", type=int, help="images to train for, if not the recipe's")
    parsed.add_argument("--run", type=Path, help="a run that is finished, instead of a new one")
    parsed.add_argument("--device", default="cpu")
    parts.add_parser("page", help="write couplers.md").set_defaults(act=write_page)
    chosen = parser.parse_args()
    chosen.act(chosen)


if __name__ == "__main__":
    main()
