"""Guidance outside of a run: what refers to a stage in a recipe is the path of a file here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from genkit.artifacts import Artifact, NetworkFile
from genkit.blame import refused
from genkit.errors import Code, GenkitError, Key, Problem, SettingError
from genkit.field_types import Reference, Slot
from genkit.fields import fields_of
from genkit.interfaces import BoundGuidance, Component, Design, Guidance, Inputs, Trained
from genkit.networks import load_network
from genkit.plugin.manager import load_plugins
from genkit.tensors import file_digest

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class Files:
    """Artifacts by the paths of their files; implements :class:`genkit.interfaces.Inputs`.

    Attributes:
        device: device of the networks.
        networks: networks by the paths of their files.
    """

    device: torch.device
    networks: Mapping[str, Trained]

    def network(self, stage: str) -> Trained:
        return self.networks[stage]

    def read(self, stage: str, artifact: type[A]) -> A:
        return artifact.load(Path(stage).expanduser())

    def digest(self, stage: str) -> str:
        return file_digest(Path(stage).expanduser())


def bind_to_files(guidance: Guidance, denoiser: Design, device: torch.device) -> BoundGuidance:
    """Return a guidance with the networks of the files that it names.

    Args:
        guidance: guidance, whose references are paths of files of networks.
        denoiser: denoiser that it guides.
        device: device of the networks.

    Raises:
        SettingError: a file is missing, damaged or of another kind of network, or the guidance
            cannot guide the denoiser; all mistakes at once.
    """
    registry = load_plugins().registry
    networks, problems = {}, []
    for key, artifact, path in _references(guidance):
        try:
            file = Path(path).expanduser()
            if issubclass(artifact, NetworkFile):
                networks[path] = load_network(file, registry, device, artifact)
            else:
                artifact.load(file)
        except (GenkitError, OSError, RuntimeError) as error:
            reason = str(error) if isinstance(error, GenkitError) else f"{path}: {error}"
            hint = f"write the {artifact.name} file of a run or of genkit export"
            problems.append(Problem(key, reason, hint, Code.DATA))
    problems += guidance.check_guided(denoiser, networks)
    if problems:
        raise SettingError("guidance", problems)
    return bind(guidance, Files(device, networks))


def bind(guidance: Guidance, inputs: Inputs) -> BoundGuidance:
    """Return a guidance with its networks, by whose component messages name it."""
    bound: object = guidance.bind(inputs)
    if not isinstance(bound, BoundGuidance):
        raise refused(guidance, f"must bind to a BoundGuidance, got {type(bound).__name__}")
    bound.component = guidance
    return bound


def digests(guidance: Component) -> dict[str, str]:
    """Return the SHA-256 of the files that a guidance names, by their paths.

    Raises:
        DataError: a file cannot be read.
    """
    return {path: file_digest(Path(path).expanduser()) for _, _, path in _references(guidance)}


def _references(component: Component, *above: str) -> Iterator[tuple[Key, type[Artifact], str]]:
    """Yield key, artifact and value of each reference of a component, at any depth."""
    for field in fields_of(type(component)):
        key = (*above, field.name)
        for kind, value in field.type.leaves(getattr(component, field.name)):
            if isinstance(kind, Reference):
                yield key, kind.artifact, value
            elif isinstance(kind, Slot):
                yield from _references(value, *key)
