"""Inputs of a component that is used outside of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Never

import torch

from genkit.artifacts import Artifact
from genkit.errors import Code, UsageError
from genkit.settings import quote


def _refusal(stage: str) -> Exception:
    return UsageError(
        f"stage {quote(stage)} cannot be read outside of a run; write a recipe, or pass inputs",
        Code.UNKNOWN_STAGE,
    )


@dataclass(frozen=True)
class NoStages:
    """Implements :class:`genkit.interfaces.Inputs` without earlier stages.

    Attributes:
        device: device of the computation.
        refusal: function from the id of a stage to the error that is raised if a component reads
            the stage.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    refusal: Callable[[str], Exception] = _refusal

    def network(self, stage: str) -> Never:
        raise self.refusal(stage)

    def read(self, stage: str, artifact: type[Artifact]) -> Never:
        raise self.refusal(stage)

    def digest(self, stage: str) -> Never:
        raise self.refusal(stage)
