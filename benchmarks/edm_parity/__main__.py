"""Compare genkit with checkouts of the reference implementations.

    python benchmarks/edm_parity --edm DIR
    python benchmarks/edm_parity --edm-aot DIR
    python benchmarks/edm_parity --edm2 DIR

DIR is a checkout of https://github.com/NVlabs/edm, https://github.com/large-scale-kim/EDM-AOT or
https://github.com/NVlabs/edm2. Only one is compared at a time, since their modules have the same
names. They require the packages ``click``, ``psutil``, ``requests`` and ``tqdm``. A comparison takes
a few minutes on the CPU. The output for all three is in ``docs/results/edm/parity.txt``.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import augmentation
import averages
import networks
import sampling
import steps
import torch
from torch import nn

IMAGES_OF = ("song, vp", "ncsnpp, ve", "adm, iddpm", "adm", "positional standard standard 2 taps")
"""Names of the networks from which images are drawn."""


def edm() -> Iterator[str]:
    """Yield the lines of the comparison with EDM."""
    reference = importlib.import_module("generate")
    yield from _networks(list(networks.cases()), "training.networks")
    yield from _steps(steps.edm())
    yield "\nsamplers, without the noise that the reference adds from rounding where there is no churn"
    yield f"{'':44} {'settings':>10} {'samples':>10}"
    for name, count, apart in sampling.samplers(reference):
        yield f"{name:44} {count:10} {apart:10.1e}"
    title = f"images of {sampling.IMAGES} seeds"
    yield f"\n{title:44} {'identical':>10} {'levels':>8} {'inside':>8} {'samples':>10}"
    for name, found in sampling.images(reference, _drawable()):
        yield (
            f"{name:44} {found.identical:10} {found.levels:8} {found.inside:8.0%} "
            f"{found.error:10.1e}"
        )
    yield "\naugmentation"
    yield from augmentation.lines()


def edm_aot() -> Iterator[str]:
    """Yield the lines of the comparison with EDM-AOT."""
    yield from _steps(steps.edm_aot())


def edm2() -> Iterator[str]:
    """Yield the lines of the comparison with EDM2."""
    yield from _networks(list(networks.edm2_cases()), "training.networks_edm2")
    yield from _steps(steps.edm2())
    yield "\naverages reconstructed from snapshots in float16"
    for name, apart in averages.reconstructed():
        yield f"{name:44} {apart:10.1e}"


def _networks(cases: list[tuple[str, str, networks.Arguments]], module: str) -> Iterator[str]:
    yield f"\n{'networks':44} {'weights':>10} {'output':>10} {'start':>8}"
    for name, precond, arguments in cases:
        count, output, deviation = networks.compared(precond, arguments, module)
        yield f"{name:44} {count:10,} {output:10.1e} {deviation:8.2%}"


def _steps(compared: Iterator[tuple[str, steps.Errors]]) -> Iterator[str]:
    yield f"\n{f'{steps.STEPS} training steps':44} {'loss':>10} {'weights':>10} {'average':>10}  pairs"
    for name, errors in compared:
        pairs = "" if errors.pairs is None else f"  {errors.pairs} differ"
        yield (
            f"{name:44} {errors.loss:10.1e} {errors.weights:10.1e} {errors.averages:10.1e}{pairs}"
        )


def _drawable() -> Iterator[tuple[str, nn.Module]]:
    """Yield each network from which images are drawn: its name, and its module with random weights."""
    module = importlib.import_module("training.networks")
    for name, precond, arguments in networks.cases():
        if name in IMAGES_OF:
            torch.manual_seed(0)
            net = getattr(module, precond)(**arguments)
            networks.randomised(net)
            yield name, net


def main() -> None:
    """Print the lines of one comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    for name in ("edm", "edm-aot", "edm2"):
        source.add_argument(f"--{name}", type=Path, metavar="DIR", help="a checkout")
    chosen = {name: folder for name, folder in vars(parser.parse_args()).items() if folder}
    ((name, folder),) = chosen.items()
    sys.path.insert(0, str(folder))
    run = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    commit = subprocess.run(run, cwd=Path(__file__).parent, capture_output=True, text=True)
    print(f"--{name.replace('_', '-')}, genkit {commit.stdout.strip()}, torch {torch.__version__}")
    for line in {"edm": edm, "edm_aot": edm_aot, "edm2": edm2}[name]():
        print(line, flush=True)


if __name__ == "__main__":
    main()
