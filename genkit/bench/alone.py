"""The inputs of a component that is measured alone."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch

from genkit.errors import UsageError
from genkit.interfaces import Trained
from genkit.settings import shown
from genkit.types import Batch


class NoStages:
    """Implements :class:`genkit.interfaces.Inputs` where no stage came before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def _refuse(self, stage: str) -> NoReturn:
        raise UsageError(f"it needs what a stage {shown(stage)} left, and a bench runs no stages")

    def network(self, stage: str) -> Trained:
        self._refuse(stage)

    def samples(self, stage: str) -> Batch:
        self._refuse(stage)

    def path(self, stage: str) -> Path:
        self._refuse(stage)

    def digest(self, stage: str) -> str:
        self._refuse(stage)
