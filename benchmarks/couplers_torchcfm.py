"""Compare genkit's couplers with torchcfm's OTPlanSampler, on the same pools in the same run.

    nox -s torchcfm

installs torchcfm in an environment of its own, runs this file there, prints a table and writes
`docs/results/couplers_torchcfm.json`. What is timed is what a training loop asks for: from images and
noise to images and noise in their pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torchcfm.optimal_transport import OTPlanSampler

from genkit.machine import environment
from genkit.plugin.manager import load_plugins
from genkit.random import derive_seed, generator
from genkit.recipe.decode import component
from genkit.tensors import pairwise_cost
from genkit.types import Batch
from genkit_bench.pools import Pools
from genkit_bench.synthetic import synthetic

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SHAPE, CLASSES = (3, 32, 32), 10
EQUAL = 1 + 1e-6
"""Costs are called equal up to this factor: those of torchcfm are solved in float32."""

GENKIT = (
    {"use": "hungarian", "cost": "squared"},
    {"use": "sinkhorn", "cost": "squared", "rounded": True},
)
TORCHCFM: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("exact", {}, {}),
    ("exact", {}, {"replace": False}),
    ("sinkhorn", {}, {}),
    ("sinkhorn", {"normalize_cost": True}, {}),
    # The sharpest that is finite here: from 0.008 down exp(-cost / reg) is 0 in float32.
    ("sinkhorn", {"normalize_cost": True, "reg": 0.01}, {}),
)
"""Method of OTPlanSampler, its other arguments, and those of ``sample_plan``. Empty: defaults."""

RIVALS = {"hungarian": "exact", "sinkhorn": "sinkhorn"}
"""torchcfm's method of the same kind as a coupler of genkit."""

FALLEN_BACK = "reverting to uniform plan"
"""In the warning with which torchcfm replaces a plan of zeros by random pairs."""

STOPPED = "numItermax reached"
"""In the warning with which POT returns a plan that is not optimal yet."""

LOSSES = ("dropped_images", "dropped_noises", "doubled_images", "doubled_noises")
"""How many are never used, and how many more than once."""

MEANS = ("cost", "expected_cost", "random_cost", *LOSSES)
"""Of which a row gives the mean over the pools."""


@dataclass(frozen=True)
class Drawn:
    """What a method made of a pool: the pairs in their order, and what it expects them to cost."""

    seconds: float
    images: Tensor
    noises: Tensor
    plan: np.ndarray[Any, Any] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """One way to pair, from either library."""

    library: str
    name: str
    settings: dict[str, Any]
    draw: Callable[[Tensor, Tensor, int], Drawn]

    def described(self) -> dict[str, Any]:
        """Return what a row says of it."""
        told = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return {
            "library": self.library,
            "method": self.name,
            "settings": self.settings,
            "label": f"{self.library} {self.name}" + (f" ({told})" if told else ""),
        }


class Recorded(OTPlanSampler):  # type: ignore[misc]
    """The sampler as it is, remembering its plan and the indices that it drew."""

    plan: Any = None
    drawn: Any = None

    def get_map(self, *args: Any) -> Any:
        """Return the plan."""
        self.plan = super().get_map(*args)
        return self.plan

    def sample_map(self, *args: Any, **kwargs: Any) -> Any:
        """Return the indices."""
        self.drawn = super().sample_map(*args, **kwargs)
        return self.drawn


def of_genkit(coupler: Any, table: dict[str, Any]) -> Method:
    """Return one of genkit's couplers."""

    def draw(images: Tensor, noise: Tensor, index: int) -> Drawn:
        begun = time.perf_counter()
        pairs = coupler.pair(Batch(images), noise, generator(0, "torchcfm", index))
        _ = images[pairs.data], noise[pairs.noise]
        return Drawn(time.perf_counter() - begun, pairs.data, pairs.noise)

    return Method("genkit", table["use"], {k: table[k] for k in table if k != "use"}, draw)


def of_torchcfm(name: str, arguments: dict[str, Any], asked: dict[str, Any]) -> Method:
    """Return OTPlanSampler with a method."""

    def draw(images: Tensor, noise: Tensor, index: int) -> Drawn:
        sampler = Recorded(name, **arguments)
        # It draws its pairs from numpy's global generator.
        np.random.seed(derive_seed(0, "torchcfm", index) % 2**32)  # noqa: NPY002
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            begun = time.perf_counter()
            sampler.sample_plan(noise, images, **asked)
            seconds = time.perf_counter() - begun
        told = tuple(dict.fromkeys(str(w.message).splitlines()[0] for w in caught))
        noises, chosen = (torch.as_tensor(i) for i in sampler.drawn)
        return Drawn(seconds, chosen, noises, sampler.plan.T, told)

    return Method("torchcfm", name, {**arguments, **asked}, draw)


def pool_row(drawn: Drawn, cost: Tensor) -> dict[str, Any]:
    """Return what a method made of one pool.

    Args:
        drawn: its pairs.
        cost: ``[N, N]`` float64 squared distances, images in rows.
    """
    size = len(cost)
    paid = float(cost[drawn.images, drawn.noises].mean())
    plan = drawn.plan
    expected = paid if plan is None else float((plan * cost.numpy()).sum() / plan.sum())
    uses = {
        "images": torch.bincount(drawn.images, minlength=size),
        "noises": torch.bincount(drawn.noises, minlength=size),
    }
    return {
        "seconds": drawn.seconds,
        "cost": paid,
        "expected_cost": expected,
        "random_cost": float(cost.mean()),
        **{f"dropped_{name}": int((count == 0).sum()) for name, count in uses.items()},
        **{f"doubled_{name}": int((count > 1).sum()) for name, count in uses.items()},
        "warnings": list(drawn.warnings),
    }


def measure(
    methods: Sequence[Method], pools: Pools, size: int, repeats: int
) -> list[dict[str, Any]]:
    """Return a row for each method; the methods take turns on each pool."""
    found: list[list[dict[str, Any]]] = [[] for _ in methods]
    for index in range(repeats):
        images, noise = pools.batch(size, index).data, pools.noise(size, index)
        cost = pairwise_cost(images.double(), noise.double(), "squared")
        for rows, method in zip(found, methods, strict=True):
            rows.append(pool_row(method.draw(images, noise, index), cost))
    return [
        {
            **method.described(),
            "size": size,
            "seconds": statistics.median(row["seconds"] for row in rows),
            **{key: statistics.mean(row[key] for row in rows) for key in MEANS},
            "fell_back": any(FALLEN_BACK in text for row in rows for text in row["warnings"]),
            "stopped": any(STOPPED in text for row in rows for text in row["warnings"]),
            "pools": rows,
        }
        for rows, method in zip(found, methods, strict=True)
    ]


def verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how each of genkit's couplers stands against torchcfm's of its kind, size by size."""
    return [
        {
            "size": mine["size"],
            "genkit": mine["label"],
            "torchcfm": rival["label"],
            "speedup": rival["seconds"] / mine["seconds"],
            "cost_ratio": max(_ratios(mine, rival)),
            "faster": mine["seconds"] < rival["seconds"],
            "equal_or_lower_cost": max(_ratios(mine, rival)) <= EQUAL,
            "each_once": not any(mine[key] for key in LOSSES),
            "fell_back": rival["fell_back"],
        }
        for mine in rows
        for rival in rows
        if (mine["library"], rival["library"]) == ("genkit", "torchcfm")
        and rival["size"] == mine["size"]
        and rival["method"] == RIVALS[mine["method"]]
    ]


def _ratios(mine: dict[str, Any], rival: dict[str, Any]) -> list[float]:
    """Return cost over the cost that the rival's plan expects, for each pool.

    Not over the cost of the pairs that it drew: draws with replacement scatter around the plan.
    """
    pools = zip(mine["pools"], rival["pools"], strict=True)
    return [own["cost"] / other["expected_cost"] for own, other in pools]


def line_of(row: dict[str, Any]) -> str:
    """Return a row for people."""
    note = "failed: random pairs" if row["fell_back"] else ""
    return (
        f"{row['size']:>5}  {row['label']:<50}{1e3 * row['seconds']:>8,.0f} ms, "
        f"cost {row['cost']:,.1f}, of the plan {row['expected_cost']:,.1f}, "
        f"{row['dropped_images'] / row['size']:.0%} of the images never used  "
        f"{'stopped before the optimum' if row['stopped'] else note}"
    )


def images_of(path: Path | None, largest: int, seed: int) -> tuple[str, Batch]:
    """Return the images that pools are drawn from, and what they are."""
    if path is None:
        told = f"synthetic, genkit_bench.synthetic.synthetic({SHAPE}, {CLASSES}, {largest}, {seed})"
        return told, synthetic(SHAPE, CLASSES, largest, seed)
    values = safetensors.torch.load_file(path)["train_images"]
    return f"{path.name}, {len(values)} images", Batch(values.float() / 127.5 - 1)


def commit() -> str:
    """Return the commit of the checkout."""
    run = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    return subprocess.run(
        run, cwd=RESULTS, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=5, help="pools of each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data", type=Path, help="safetensors file with uint8 train_images [N, 3, 32, 32]"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "couplers_torchcfm.json")
    chosen = parser.parse_args()
    plugins = load_plugins()
    told, data = images_of(chosen.data, max(chosen.sizes), chosen.seed)
    pools = Pools(data, chosen.seed, torch.device("cpu"))
    couplers = [component(plugins.registry, "coupler", table) for table in GENKIT]
    methods = [of_genkit(*pair) for pair in zip(couplers, GENKIT, strict=True)]
    methods += [of_torchcfm(*arguments) for arguments in TORCHCFM]
    measure(methods, pools, 64, 1)  # imports and first calls
    rows: list[dict[str, Any]] = []
    for size in chosen.sizes:
        rows += measure(methods, pools, size, chosen.repeats)
        print(*map(line_of, rows[-len(methods) :]), sep="\n", flush=True)
    where = environment(pools.device, plugins)
    where["packages"]["torchcfm"] = version("torchcfm")
    sizes = " ".join(map(str, chosen.sizes))
    report = {
        "command": f"nox -s torchcfm -- --sizes {sizes} --repeats {chosen.repeats}",
        "commit": commit(),
        "environment": {key: value for key, value in where.items() if key != "command"},
        "data": told,
        "dimensions": data.data[0].numel(),
        "seed": chosen.seed,
        "repeats": chosen.repeats,
        "rows": rows,
        "verdicts": verdicts(rows),
    }
    chosen.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for verdict in report["verdicts"]:
        kept = all(verdict[key] for key in ("faster", "equal_or_lower_cost", "each_once"))
        print(
            f"{verdict['size']:>5}  {verdict['genkit']} against {verdict['torchcfm']}: "
            f"{verdict['speedup']:.2f} times as fast, cost ratio {verdict['cost_ratio']:.6f}"
            f"{'' if kept else '  NOT REACHED'}"
        )


if __name__ == "__main__":
    main()
