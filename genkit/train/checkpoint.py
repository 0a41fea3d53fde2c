"""What training leaves on disk: checkpoints to go on from, and networks to use.

Both are safetensors files with their settings in the metadata. Nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from genkit import tensors
from genkit.errors import DataError
from genkit.interfaces import Network, Trained
from genkit.types import DataSpec

if TYPE_CHECKING:
    from genkit.plugin.registry import Registry
    from genkit.train.trainer import Trainer

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Replace the folder's checkpoint in one step."""
    state, numbers = trainer.state()
    tensors.save(folder / CHECKPOINT, state, {"numbers": json.dumps(numbers)})


def load_checkpoint(folder: Path, trainer: Trainer) -> bool:
    """Go on from the folder's checkpoint; False where there is none.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return False
    try:
        state, metadata = tensors.load(path)
        trainer.restore(state, json.loads(metadata["numbers"]))
    except (DataError, KeyError, RuntimeError, ValueError) as error:
        raise DataError(f"{error}; delete {path} to train this stage from its beginning") from error
    return True


def save_network(
    path: Path, model: nn.Module, kind: str, table: dict[str, Any], spec: DataSpec, images: int
) -> None:
    """Write a trained network with all that is needed to build it again.

    Args:
        path: of the file.
        model: what the network's ``build`` returned.
        kind: ``denoiser``, ``discriminator`` or ``classifier``.
        table: the recipe table that decodes to the network's settings.
        spec: of the data it was trained on.
        images: it was trained for.
    """
    metadata = {
        "kind": kind,
        "network": json.dumps(table, sort_keys=True),
        "spec": json.dumps(dataclasses.asdict(spec), sort_keys=True),
        "images": str(images),
    }
    tensors.save(path, model.state_dict(), metadata)


def load_network(path: Path, registry: Registry, device: torch.device | str = "cpu") -> Trained:
    """Build a network from its file, in eval mode.

    Raises:
        DataError: the file is damaged or not one that :func:`save_network` wrote.
        PluginError: a component it needs is not installed.
    """
    from genkit.recipe.decode import component

    weights, metadata = tensors.load(path)
    missing = {"kind", "network", "spec"} - metadata.keys()
    if missing:
        raise DataError(f"{path}: not a network that genkit saved: no {', '.join(sorted(missing))}")
    fields = json.loads(metadata["spec"])
    spec = DataSpec(**{**fields, "shape": tuple(fields["shape"])})
    settings = component(registry, metadata["kind"], json.loads(metadata["network"]))
    if not isinstance(settings, Network):
        raise DataError(f"{path}: {metadata['kind']} is no kind of network")
    model = settings.build(spec)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"{path}: the weights do not fit the network: {error}") from error
    return Trained(model.to(device).eval().requires_grad_(False), spec, settings)
