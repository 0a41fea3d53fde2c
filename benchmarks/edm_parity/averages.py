"""Compare averages reconstructed from snapshots with those of EDM2's reconstruct_phema.py."""

from __future__ import annotations

import copy
import importlib
import io
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import torch
from steps import EDM2
from torch import Tensor, nn

from genkit.cli import main
from genkit.tensors import load
from genkit_edm.reference.networks import from_reference

LENGTHS = (0.05, 0.1)  # relative lengths that are tracked
RECONSTRUCTED = (0.03, 0.08, 0.15)
SNAPSHOTS, STEPS, BATCH = 4, 64, 2048


def reconstructed() -> Iterator[tuple[str, float]]:
    """Yield the relative difference of reconstructed weights, for each of several lengths.

    The weights are a random walk. The reference tracks their averages, pickles snapshots of the
    averages in float16, and reconstructs averages of different lengths from the pickles. genkit
    imports the same folder with ``import-edm --ema-length``. The reference rounds its result to
    float16; genkit's float32 result is rounded for the comparison.
    """
    reference = importlib.import_module("reconstruct_phema")
    networks = importlib.import_module("training.networks_edm2")
    torch.manual_seed(0)
    net = networks.Precond(**EDM2)
    with tempfile.TemporaryDirectory() as folder:
        snapshots = Path(folder) / "snapshots"
        snapshots.mkdir()
        _tracked(net, importlib.import_module("training.phema"), snapshots)
        pickles = reference.list_input_pickles(str(snapshots))
        results = reference.reconstruct_phema(pickles, list(RECONSTRUCTED), verbose=False)
        *_, last = results
        for theirs in last.out:
            out = Path(folder) / f"{theirs.std}.safetensors"
            _run("import-edm", str(snapshots), str(out), "--ema-length", str(theirs.std))
            ours, _ = load(out)
            expected = from_reference(theirs.net.state_dict(), "Precond", EDM2)[2]
            rounded = {name: value.half().float() for name, value in ours.items()}
            yield f"length {theirs.std}", _apart(rounded, expected)


def _tracked(net: nn.Module, phema: ModuleType, folder: Path) -> None:
    """Write snapshots of averages of random weights, with the file names of EDM2's training."""
    averages = phema.PowerFunctionEMA(net, stds=list(LENGTHS))
    for step in range(1, SNAPSHOTS * STEPS + 1):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p) * 0.1)
        averages.update(cur_nimg=step * BATCH, batch_size=BATCH)
        if step % STEPS == 0:
            for average, suffix in averages.get():
                name = f"network-snapshot-{step * BATCH // 1000:07d}{suffix}.pkl"
                frozen = copy.deepcopy(average).eval().requires_grad_(False).half()
                with (folder / name).open("wb") as stream:
                    pickle.dump({"ema": frozen}, stream)


def _run(*arguments: str) -> None:
    with redirect_stdout(io.StringIO()):
        try:
            main(arguments)
        except SystemExit as ended:
            if ended.code:
                raise


def _apart(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    error, norm = (
        torch.cat([value.flatten() for value in values])
        for values in (
            [actual[name] - value for name, value in expected.items()],
            list(expected.values()),
        )
    )
    return float(error.norm() / norm.norm())
