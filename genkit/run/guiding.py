"""Guidance outside of a run: what refers to a stage in a recipe is the path of a file here."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch

from genkit.artifacts import Artifact, NetworkFile
from genkit.errors import Code, GenkitError, Problem, SettingError
from genkit.field_types import Reference
from genkit.fields import leaves_of
from genkit.interfaces import BoundGuidance, Design, Guidance
from genkit.networks import Networks, bind_guidance, load_network
from genkit.plugin.manager import load_plugins
from genkit.tensors import file_digest

A = TypeVar("A", bound=Artifact)


class Files(Networks):
    """Inputs from files, whose paths are the references; of networks those that are given."""

    def read(self, stage: str, artifact: type[A]) -> A:  # type: ignore[override]
        return artifact.load(Path(stage).expanduser())

    def digest(self, stage: str) -> str:  # type: ignore[override]
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
    for key, kind, path in leaves_of(guidance):
        if not isinstance(kind, Reference):
            continue
        artifact = kind.artifact
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
    return bind_guidance(guidance, Files(device, given=networks))
