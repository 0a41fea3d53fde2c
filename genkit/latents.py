"""The default draws of samples, derived from the seed of the run and the seed of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from genkit.interfaces import Latents
from genkit.random import PerSample
from genkit.types import Draws


@dataclass(frozen=True, kw_only=True)
class Derived(Latents):
    """Latents and noise from separate generators, each derived from the run's seed and a sample's.

    Sample k is of class k modulo the number of classes. Numbers are drawn on the CPU, so that they
    are the same on every device.
    """

    source = "genkit.random: a generator is a function of the run's seed, a purpose and the sample"

    def draw(
        self,
        shape: tuple[int, ...],
        seeds: Sequence[int],
        classes: int,
        device: torch.device,
        run_seed: int,
    ) -> Draws:
        latents = PerSample(run_seed, ("latent",), seeds).draw(shape).to(device)
        labels = torch.tensor([k % classes for k in seeds], device=device) if classes else None
        return Draws(latents, labels, PerSample(run_seed, ("churn",), seeds).randn_like)
