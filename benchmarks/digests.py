"""Measure the share of digests in saving, loading and resuming.

    OMP_NUM_THREADS=2 python benchmarks/digests.py

The network is EDM's for CIFAR-10, with random weights. The checkpoint also contains the average of the
weights and both moments of Adam. Times are elapsed seconds, as the median of several rounds; a digest is
timed in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from digits_judge import made_with

from genkit import Batch, component, load_denoiser, tensors
from genkit.artifacts import DenoiserFile, checkpoint
from genkit.interfaces import Context
from genkit.random import derive_seed
from genkit.train.trainer import Compute, Trainer
from genkit.types import DataSpec
from genkit.world import SINGLE_PROCESS

SPEC = DataSpec((3, 32, 32))


def seconds(action: Callable[[], object]) -> float:
    """Return the elapsed time of a call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def trainer() -> Trainer:
    """Return the trainer of EDM's network."""
    cpu, seed = torch.device("cpu"), partial(derive_seed, 0)
    context = SimpleNamespace(device=cpu, world=SINGLE_PROCESS, seed=seed)
    return Trainer(
        cast(Context, context),
        component("denoiser", "ncsnpp").build(SPEC),
        component("objective", "denoising"),
        component("optimizer", "adam"),
        component("average", "ema"),
        SPEC.shape,
        Compute(),
    )


def trained() -> Trainer:
    """Return a trainer after one step, so that its optimizer has moments."""
    one = trainer()
    noise = torch.randn((1, *SPEC.shape), generator=torch.Generator().manual_seed(0))
    half = torch.full((1,), 0.5, dtype=torch.float64)
    one.step(Batch(torch.zeros(1, *SPEC.shape), quantile=half), noise)
    return one


def resume(folder: Path) -> None:
    """Build a trainer, and restore it from the checkpoint in a folder."""
    found = checkpoint.load(folder)
    if found is not None:
        trainer().restore(found.tensors, found.numbers)


def main() -> None:
    """Parse the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    one = trained()
    state, numbers = one.state()
    weights = one.model.state_dict()
    file = DenoiserFile({"use": "ncsnpp"}, SPEC, weights)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = folder / DenoiserFile.filename()
        actions: dict[str, tuple[Callable[[], Any], dict[str, torch.Tensor]]] = {
            "save a network": (lambda: file.save(path), weights),
            "load its tensors": (lambda: tensors.load(path), weights),
            "open a denoiser": (lambda: load_denoiser(path, "cpu"), weights),
            "save a checkpoint": (lambda: checkpoint.save(folder, state, numbers, {}), state),
            "resume a training": (lambda: resume(folder), state),
        }
        print(f"{made_with()}\n")
        print(
            "| | MB | seconds | without the digest | share of the digest |\n|---|--:|--:|--:|--:|"
        )
        for name, (action, content) in actions.items():
            found = [
                (seconds(action), seconds(lambda c=content: tensors.content_digest(c, {})))
                for _ in range(rounds)
            ]
            whole, digest = (statistics.median(values) for values in zip(*found, strict=True))
            size = sum(tensor.nbytes for tensor in content.values()) / 1e6
            print(
                f"| {name} | {size:.0f} | {whole:.2f} | {whole - digest:.2f} | {digest / whole:.0%} |"
            )


if __name__ == "__main__":
    main()
