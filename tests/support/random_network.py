"""Files of networks with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from genkit.artifacts.coupling import Coupling
from genkit.interfaces import Network
from genkit.plugin.manager import load_plugins
from genkit.random import seeded
from genkit.recipe.decode import component
from genkit.recipe.encode import table
from genkit.types import DataSpec


def save(path: Path, spec: DataSpec, kind: str = "denoiser", **settings) -> Path:
    """Write a network with random weights."""
    registry = load_plugins().registry
    network = component(registry, kind, settings)
    assert isinstance(network, Network)
    with seeded(0):  # all weights: those of outputs begin with zeros
        weights = {
            k: v + torch.randn(v.shape) / 4 for k, v in network.build(spec).state_dict().items()
        }
    coupling = Coupling(True, True, (), independent=True, preserves_score=True)
    network.output(table(registry, network), spec, weights, images=5, coupling=coupling).save(path)
    return path
