"""An importer of bare weights of a multilayer perceptron."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genkit import component
from genkit.plugin import DataError, DataSpec, Imported, Importer, load_tensors, require_finite


@dataclass(frozen=True, kw_only=True)
class RawImporter(Importer):
    """Reads a safetensors file of the weights of `mlp` for vectors, and nothing else."""

    def read(self, path: Path) -> Imported:
        weights, _ = load_tensors(path)
        try:
            width, dimensions = weights["network.stem.weight"].shape
        except (KeyError, ValueError) as error:
            raise DataError(f"{path} must be the weights of a perceptron: {error!r}") from error
        blocks = len({name.split(".")[2] for name in weights if name.startswith("network.blocks.")})
        for name, tensor in weights.items():
            require_finite(tensor.reshape(1, -1), f"{path}: {name}")
        network = component("denoiser", "mlp", width=width, blocks=blocks)
        return Imported(network, DataSpec((dimensions,)), weights, 0, ("these weights are bare",))
