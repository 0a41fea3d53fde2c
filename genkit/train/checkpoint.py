"""What training leaves on disk: checkpoints to go on from, and networks to use.

Both are safetensors files with their settings in the metadata. Nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genkit import tensors
from genkit.errors import DataError, GenkitError, PluginError
from genkit.interfaces import Design, Network, Trained
from genkit.random import seeded
from genkit.settings import shown
from genkit.types import Batch, DataSpec

if TYPE_CHECKING:
    from genkit.plugin.registry import Registry
    from genkit.train.trainer import Trainer

CHECKPOINT = "checkpoint.safetensors"

NetworkFile = tuple[dict[str, Tensor], dict[str, str]]
"""Weights and metadata of a network, as :func:`read_network` returns them."""

AVERAGED = "averaged."
"""Prefix of the averaged weights in a checkpoint."""


def description(kind: str, table: Mapping[str, Any], spec: DataSpec) -> dict[str, str]:
    """Return what a file tells of its network, so that it can be built again.

    Args:
        kind: ``denoiser``, ``discriminator`` or ``classifier``.
        table: the recipe table that decodes to the network's settings.
        spec: of the data it is trained on.
    """
    return {
        "kind": kind,
        "network": json.dumps(table, sort_keys=True),
        "spec": json.dumps(dataclasses.asdict(spec), sort_keys=True),
    }


def save_checkpoint(folder: Path, trainer: Trainer, described: Mapping[str, str]) -> None:
    """Replace the folder's checkpoint in one step; ``described`` is of :func:`description`."""
    state, numbers = trainer.state()
    tensors.save(folder / CHECKPOINT, state, {"numbers": json.dumps(numbers), **described})


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
    path: Path,
    weights: Mapping[str, Tensor],
    described: Mapping[str, str],
    images: int,
    contained: Mapping[str, NetworkFile] = MappingProxyType({}),
) -> None:
    """Write a trained network with all that is needed to build it again.

    Args:
        path: of the file.
        weights: the state of what the network's ``build`` returned.
        described: of :func:`description`.
        images: it was trained for.
        contained: files of the networks that it contains, as :func:`read_network` returns them,
            by the references of its settings.
    """
    weights, metadata = dict(weights), {**described, "images": str(images)}
    for name, (inner, _) in contained.items():
        weights |= {f"{name}/{key}": tensor for key, tensor in inner.items()}
    if contained:
        metadata["contains"] = json.dumps({name: inner for name, (_, inner) in contained.items()})
    tensors.save(path, weights, metadata)


def read_network(path: Path) -> NetworkFile:
    """Return the weights and the metadata of a network, or of the average in a checkpoint.

    Raises:
        DataError: the file is damaged, or has no network.
    """
    weights, metadata = tensors.load(path)
    missing = {"kind", "network", "spec"} - metadata.keys()
    if missing:
        raise DataError(f"{path}: not a network that genkit saved: no {', '.join(sorted(missing))}")
    if "numbers" in metadata:
        weights = {
            n.removeprefix(AVERAGED): t for n, t in weights.items() if n.startswith(AVERAGED)
        }
    with _readable(f"{path}: its description"):
        if "numbers" in metadata:
            metadata["images"] = str(int(json.loads(metadata.pop("numbers"))["images"]))
        int(metadata["images"])
    return weights, metadata


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Tell of metadata that is no such table as genkit writes."""
    try:
        yield
    except GenkitError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        raise DataError(f"{what} makes no network: {reason}") from error


def load_network(path: Path, registry: Registry, device: torch.device | str = "cpu") -> Trained:
    """Build a network from its file, or from the checkpoint of a training, in eval mode.

    Raises:
        DataError: the file is damaged, or not one that genkit wrote, or its weights do not fit.
        PluginError: a component it needs is not installed.
    """
    weights, metadata = read_network(path)
    try:
        return rebuilt(weights, metadata, registry, device)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def rebuilt(
    weights: Mapping[str, Tensor],
    described: Mapping[str, str],
    registry: Registry,
    device: torch.device | str = "cpu",
) -> Trained:
    """Build a network from its description, in eval mode.

    Raises:
        DataError: it is no network, or the weights do not fit it; the first difference is named.
        PluginError: a component it needs is not installed.
    """
    design = design_of(described, registry)
    own, contained = dict(weights), {}
    for name, inner in contents(described).items():
        mark = f"{name}/"
        theirs = {n.removeprefix(mark): own.pop(n) for n in weights if n.startswith(mark)}
        contained[name] = rebuilt(theirs, inner, registry, device)
    with _readable("its description"), seeded(0):  # its random weights are replaced
        inputs = Networks(torch.device(device), contained.get)
        model = design.settings.bind(inputs).build(design.spec)
    require_fit(model, own)
    model.load_state_dict(own)
    return Trained(design.settings, design.spec, model.to(device).eval().requires_grad_(False))


@dataclass(frozen=True)
class Networks:
    """Inputs of networks alone, such as those that a file contains.

    Attributes:
        device: device on which they are.
        find: returns the network of a reference, or None if there is none.
    """

    device: torch.device
    find: Callable[[str], Trained | None]

    def network(self, stage: str) -> Trained:
        """Return the network of a reference.

        Raises:
            DataError: there is none.
        """
        if found := self.find(stage):
            return found
        raise DataError(
            f"the network {shown(stage)} that it contains is not in the file; load the file that "
            "is written at the end of a training, not a checkpoint"
        )

    def samples(self, stage: str) -> Batch:
        raise self._absent(stage)

    def path(self, stage: str) -> Path:
        raise self._absent(stage)

    def digest(self, stage: str) -> str:
        raise self._absent(stage)

    def _absent(self, stage: str) -> DataError:
        return DataError(f"of {shown(stage)} only the network can be read here")


def contents(described: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the descriptions of the networks that a network contains, by its references."""
    with _readable("its description"):
        contains = json.loads(described.get("contains", "{}"))
        return {str(name): dict(inner) for name, inner in contains.items()}


def require_frozen(model: nn.Module, contained: Iterable[nn.Module]) -> None:
    """Raise PluginError if tensors of contained networks are part of a model's state.

    They would be averaged and saved with it.
    """
    frozen = {id(t) for part in contained for t in part.state_dict(keep_vars=True).values()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in frozen:
            raise PluginError(
                f"{type(model).__name__} must hold the network of an earlier stage in "
                f"genkit.parts.frozen.Frozen, got {name} among its own weights"
            )


def design_of(described: Mapping[str, str], registry: Registry) -> Design:
    """Return the network that a file describes.

    Raises:
        DataError: it describes no network.
        PluginError: a component it needs is not installed.
    """
    from genkit.recipe.decode import component

    with _readable("its description"):
        settings = component(registry, described["kind"], json.loads(described["network"]))
        if not isinstance(settings, Network):
            raise DataError(f"{described['kind']} is no kind of network")
        fields = json.loads(described["spec"])
        return Design(settings, DataSpec(**{**fields, "shape": tuple(fields["shape"])}))


def require_fit(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise DataError with the first name, shape or type in which weights and network differ."""
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in weights:
            raise DataError(f"the weights do not fit the network: there is no {name}")
        if (found := weights[name]).shape != tensor.shape or found.dtype != tensor.dtype:
            raise DataError(
                f"the weights do not fit the network: {name} is {_in_words(found)}, where the "
                f"network has {_in_words(tensor)}"
            )
    for name in weights:
        if name not in wanted:
            raise DataError(f"the weights do not fit the network: it has no {name}")


def _in_words(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"
