"""Bind guidance outside of a run, where references are paths of files instead of stage ids."""

from __future__ import annotations

import torch

from genkit.artifacts import NetworkFile
from genkit.errors import Code, GenkitError, Problem, SettingError
from genkit.field_types import Reference
from genkit.fields import leaves_of
from genkit.files import expand_user
from genkit.interfaces import BoundGuidance, Guidance, Solver, Trained
from genkit.networks import FileInputs, bind_guidance, load_network
from genkit.plugin.manager import load_plugins


def bind_to_files(
    guidance: Guidance, denoiser: Trained, device: torch.device, solver: Solver | None
) -> BoundGuidance:
    """Return a guidance bound to networks that are loaded from files.

    Args:
        guidance: guidance whose references are paths of files.
        denoiser: guided denoiser.
        device: device of the networks.
        solver: solver with which the guidance is used; None to skip the check of this combination.

    Raises:
        SettingError: a file is missing, damaged or of the wrong type, or the guidance does not fit
            the denoiser or the solver. The error contains all problems.
    """
    registry = load_plugins().registry
    networks, problems = {}, []
    for key, kind, path in leaves_of(guidance):
        if not isinstance(kind, Reference):
            continue
        artifact = kind.artifact
        try:
            file = expand_user(path)
            if issubclass(artifact, NetworkFile):
                networks[path] = load_network(file, registry, device, artifact)
            else:
                artifact.load(file)
        except (GenkitError, OSError) as error:
            reason = str(error) if isinstance(error, GenkitError) else f"{path}: {error}"
            code = error.code if isinstance(error, GenkitError) else Code.IO_ERROR
            exported = " or of genkit export" if issubclass(artifact, NetworkFile) else ""
            hint = f"write the {artifact.name} file of a run{exported}"
            problems.append(Problem(key, reason, hint, code))
    problems += guidance.check_guided(denoiser, networks)
    problems += guidance.check_solver(solver) if solver else ()
    if problems:
        raise SettingError("guidance", problems)
    return bind_guidance(guidance, FileInputs(device, given=networks), denoiser)
