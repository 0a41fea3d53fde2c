"""Measure the share of digests in saving and loading files of tensors, and in opening a denoiser.

    OMP_NUM_THREADS=1 python benchmarks/digests.py

The denoiser is EDM's network for CIFAR-10, with random weights. Times are CPU seconds, as the median of
several rounds; a digest is timed in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from digits_judge import made_with

from genkit import component, load_denoiser, tensors
from genkit.artifacts import DenoiserFile
from genkit.types import DataSpec


def seconds(action: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    begin = time.process_time()
    action()
    return time.process_time() - begin


def main() -> None:
    """Parse the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    network, spec = component("denoiser", "ncsnpp"), DataSpec((3, 32, 32))
    weights = {
        k: v.normal_() if v.is_floating_point() else v
        for k, v in network.build(spec).state_dict().items()
    }
    file = DenoiserFile({"use": "ncsnpp"}, spec, weights)
    size = sum(tensor.nbytes for tensor in weights.values())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DenoiserFile.filename()
        actions = {
            "save": lambda: file.save(path),
            "load": lambda: tensors.load(path),
            "open a denoiser": lambda: load_denoiser(path, "cpu"),
        }
        print(f"{size / 1e6:.0f} MB, {len(weights)} tensors, {made_with()}\n")
        print("| | seconds | digest | share |\n|---|--:|--:|--:|")
        for name, action in actions.items():
            found = [
                (seconds(action), seconds(lambda: tensors.content_digest(weights, {})))
                for _ in range(rounds)
            ]
            whole, digest = (statistics.median(values) for values in zip(*found, strict=True))
            print(f"| {name} | {whole:.3f} | {digest:.3f} | {digest / whole:.0%} |")


if __name__ == "__main__":
    main()
