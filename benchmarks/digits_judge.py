"""Draw and score samples of digits; the other benchmarks import this module."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor

from genkit import component
from genkit.artifacts.statistics import Statistics
from genkit.denoiser import Denoiser
from genkit.features import DatasetReference, Extractors, FileContext
from genkit.interfaces import Schedule
from genkit.latents import Derived, draws_of
from genkit.plugin.manager import load_plugins
from genkit.sample import sample
from genkit.start import ResolvedStart
from genkit.tensors import as_stored
from genkit_metrics.gaussians import frechet_distance
from genkit_metrics.spread import spread

CLASSIFIER: dict[str, Any] = {"use": "classifier", "file": "digits"}
PIXELS: dict[str, Any] = {"use": "pixels"}
SCORE_SEED, FIT_SEED = 0, 1
"""Seed of the samples that are scored, and seed of the samples with which settings are chosen."""

DIRECTIONS = 3
_BATCH = 256


def draw(
    denoiser: Denoiser,
    schedule: Schedule,
    seeds: range,
    *,
    seed: int = SCORE_SEED,
    solver: str = "heun",
    start: ResolvedStart = "noise",
) -> tuple[Tensor, float]:
    """Return samples ``[N, 1, 8, 8]``, not rounded to 8 bits, and the network calls per sample."""
    parts, nfe, steps = [], 0.0, component("solver", solver)
    spec, classes = denoiser.spec, denoiser.classes
    for first in range(seeds.start, seeds.stop, _BATCH):
        part = range(first, min(first + _BATCH, seeds.stop))
        draws = draws_of(Derived(), spec.shape, part, classes, denoiser.device, seed)
        drawn = sample(denoiser.module, draws, schedule=schedule, solver=steps, start=start)
        parts.append(drawn.batch.data)
        nfe = drawn.nfe
    return torch.cat(parts), nfe


def _extractor(use: str, **settings: Any) -> Any:
    return component("extractor", use, **settings)


class Judge:
    """Compare samples with the 1,797 digits; both are rounded to 8 bits."""

    def __init__(self) -> None:
        self.place = FileContext(registry=load_plugins().registry, warn=print)
        self._extractors = Extractors(self.place)
        data = DatasetReference(component("dataset", "digits"), self._extractors)
        self._parts = {
            name: (extractor, data.statistics(extractor))
            for name, extractor in (
                ("classifier", _extractor(**CLASSIFIER)),
                ("pixels", _extractor(**PIXELS)),
            )
        }

    def _features(self, name: str, items: Tensor) -> tuple[Tensor, Statistics]:
        extractor, real = self._parts[name]
        return self._extractors.compute(extractor, as_stored(items, "sample"), "sample"), real

    def frechet(self, items: Tensor, features: str = "classifier") -> float:
        """Return the Fréchet distance in features of genkit's digits classifier, or in pixel space."""
        found, real = self._features(features, items)
        return frechet_distance(Statistics.of(found), real)

    def spread(self, items: Tensor) -> list[float]:
        """Return the ratio of standard deviations (samples / data) along the first directions."""
        return spread(*self._features("pixels", items), DIRECTIONS)

    def scores(self, items: Tensor) -> dict[str, Any]:
        """Return both Fréchet distances and the spread, by name."""
        return {
            "classifier": self.frechet(items),
            "pixels": self.frechet(items, "pixels"),
            "spread": self.spread(items),
        }


def made_with() -> str:
    """Return the commit and the hardware as text."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    threads = torch.get_num_threads()
    return f"commit {commit}; {platform.machine()}, {os.cpu_count()} cores, {threads} threads"


def provenance() -> str:
    """Return the command, the commit and the hardware, in Markdown."""
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()}"
    return f"Command: `{threads} python {' '.join(sys.argv)}`; {made_with()}"
