"""Build trained networks from their files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Never, TypeVar

import torch
from torch import Tensor, nn

from genkit.artifacts import Artifact
from genkit.artifacts.network import NetworkFile, convert_errors
from genkit.blame import fault, plugin_errors, require_method, require_type
from genkit.designs import components
from genkit.errors import Code, DataError
from genkit.files import expand_user
from genkit.interfaces import (
    BoundGuidance,
    Design,
    Guidance,
    Inputs,
    Network,
    Preconditioned,
    Trained,
)
from genkit.parts.meta import without_memory
from genkit.parts.no_stages import NoStages
from genkit.plugin.manager import load_plugins
from genkit.random import seeded
from genkit.recipe.decode import component
from genkit.settings import quote
from genkit.tensors import file_digest
from genkit.types import DataSpec
from genkit.versions import versions_of

if TYPE_CHECKING:
    from genkit.plugin.registry import Registry

AnyArtifact = TypeVar("AnyArtifact", bound=Artifact)


def load_network(
    path: Path,
    registry: Registry,
    device: torch.device | str = "cpu",
    kind: type[NetworkFile] = NetworkFile,
) -> Trained:
    """Build a network from its file or from a training checkpoint, in eval mode.

    Raises:
        DataError: the file is damaged, was not written by genkit, or is not of the type ``kind``;
            or the weights do not fit the network.
        PluginError: a required component is not installed.
    """
    file = kind.load(path)
    try:
        return build(file, registry, device)
    except DataError as error:
        raise DataError(f"{path}: {error}", error.code) from error


def build(file: NetworkFile, registry: Registry, device: torch.device | str = "cpu") -> Trained:
    """Build a network with its weights, in eval mode, with gradients disabled.

    Raises:
        DataError: the file does not describe a network, or the weights do not fit or are not
            finite; the message contains the name of the first such tensor.
        PluginError: a required component is not installed.
    """
    design = design_of(file, registry)
    contained = {name: build(inner, registry, device) for name, inner in file.contained.items()}
    inputs = NetworkInputs(torch.device(device), given=contained)
    with convert_errors("its description"), plugin_errors(registry):
        if not contained:  # contained networks have real tensors, which do not mix with meta ones
            _require_sizes(design, inputs, file.weights)
        with seeded(0):  # initial weights are replaced, but must not advance the global generator
            model = build_module(design.settings, inputs, design.spec)
    require_fit(model, file.weights)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in file.weights.items():  # buffers may be infinite, such as attention masks
        wrong = ~tensor.isfinite() if name in parameters else tensor.isnan()
        if bool(wrong.any()):
            got = tensor[wrong][0].item()
            raise DataError(
                f"the weights must be finite, got {got} in {name}; use an earlier checkpoint",
                Code.NOT_FINITE,
            )
    model.load_state_dict(file.weights)
    model = model.to(device).eval().requires_grad_(False)
    return Trained(
        design.settings,
        design.spec,
        model,
        file.coupling,
        gradient_only=file.gradient_only,
        denoiser_digest=file.denoiser_digest,
    )


def build_module(network: Network, inputs: NetworkInputs, spec: DataSpec) -> nn.Module:
    """Return the module of a network, freshly initialized from torch's global generator.

    Raises:
        DataError: the result is not a module, or a contained network is not frozen; the message
            contains network and plugin.
    """
    result = require_method(network, network.bind(inputs), "build").build(spec)
    model = require_type(network, "build", result, nn.Module)
    if isinstance(model, Preconditioned):
        require_type(network, "build_network", model.network, nn.Module)
    _require_frozen(network, model, [trained.module for trained in inputs.given.values()])
    return model


def _require_sizes(design: Design, inputs: NetworkInputs, weights: Mapping[str, Tensor]) -> None:
    """Raise DataError if weights and network differ, before memory is allocated.

    A damaged file may describe a network that is larger than the memory. A network that cannot be
    built on the device "meta", since it reads values of tensors, is compared after it is built.
    """
    with suppress(NotImplementedError, RuntimeError, TypeError), seeded(0), without_memory():
        require_fit(build_module(design.settings, inputs, design.spec), weights)


@dataclass(frozen=True)
class NetworkInputs(NoStages):
    """Inputs that provide only networks, such as the networks that a file contains.

    Attributes:
        given: map from a reference to the network.
    """

    given: Mapping[str, Trained] = field(default_factory=dict)

    def network(self, stage: str) -> Trained:  # type: ignore[override]
        """Return the network of a reference.

        Raises:
            DataError: there is no such network.
        """
        if stage in self.given:
            return self.given[stage]
        raise DataError(
            f"the file must contain the network {quote(stage)} to which it refers; load the file "
            "that is written at the end of training, since checkpoints do not contain other "
            "networks"
        )


class FileInputs(NetworkInputs):
    """Inputs outside of a run, where a reference is the path of a file."""

    def network(self, stage: str) -> Trained:  # type: ignore[override]
        return self.given.get(stage) or load_network(
            expand_user(stage), load_plugins().registry, self.device
        )

    def read(self, stage: str, artifact: type[AnyArtifact]) -> AnyArtifact:  # type: ignore[override]
        return artifact.load(expand_user(stage))

    def digest(self, stage: str) -> str:  # type: ignore[override]
        return file_digest(expand_user(stage))


class UnknownDenoiser(nn.Module):
    """Placeholder for the denoiser of samples if it is unknown; a call raises DataError."""

    def forward(self, *arguments: object) -> Never:
        raise DataError(
            "the denoiser of the samples is unknown; remove the metric, which requires it"
        )


def bind_guidance(guidance: Guidance, inputs: Inputs, denoiser: Trained) -> BoundGuidance:
    """Return a guidance bound to its networks, with its interval and component."""
    bound = require_type(guidance, "bind", guidance.bind(inputs, denoiser), BoundGuidance)
    bound.component, bound.interval = guidance, guidance.interval
    return bound


def code_of_network(path: Path, registry: Registry) -> str:
    """Return the versions and code on which the networks of a file depend, as JSON.

    Weights are not read.

    Raises:
        DataError: as for :func:`load_network`.
        PluginError: a required component is not installed.
    """
    parts = (c for n in _networks(NetworkFile.outline(path), registry) for c in components(n))
    return json.dumps(versions_of(parts, registry), sort_keys=True)


def _networks(file: NetworkFile, registry: Registry) -> Iterator[Network]:
    """Yield the network of a file, and the networks that it contains."""
    yield design_of(file, registry).settings
    for inner in file.contained.values():
        yield from _networks(inner, registry)


def _require_frozen(network: Network, model: nn.Module, contained: Iterable[nn.Module]) -> None:
    """Raise DataError if tensors of contained networks are part of the state of a module.

    They would be averaged and saved with the weights of the module itself.
    """
    frozen = {id(t) for part in contained for t in part.state_dict(keep_vars=True).values()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in frozen:
            raise fault(
                network,
                "must wrap the network of an earlier stage in genkit.parts.frozen.Frozen, got "
                f"{name} among its own weights",
            )


def design_of(file: NetworkFile, registry: Registry) -> Design:
    """Return the settings and the data specification of the network of a file.

    Raises:
        DataError: the file does not describe a network.
        PluginError: a required component is not installed.
    """
    with convert_errors("its description"), plugin_errors(registry):
        settings = component(registry, file.kind, file.table)
        if not isinstance(settings, Network):
            raise DataError(f"kind must be a kind of network, got {file.kind}")
    return Design(
        settings,
        file.spec,
        gradient_only=file.gradient_only,
        denoiser_digest=file.denoiser_digest,
    )


def require_fit(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise DataError with the first name, shape or dtype in which weights and network differ."""
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in weights:
            raise DataError(
                f"the weights do not fit the network: the weights have no {name}", Code.CONFLICT
            )
        if (found := weights[name]).shape != tensor.shape or found.dtype != tensor.dtype:
            raise DataError(
                f"the weights do not fit the network: {name} must be {_in_words(tensor)}, got "
                f"{_in_words(found)}",
                Code.CONFLICT,
            )
    for name in weights:
        if name not in wanted:
            raise DataError(
                f"the weights do not fit the network: the network has no {name}", Code.CONFLICT
            )


def _in_words(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"
