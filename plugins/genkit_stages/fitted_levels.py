"""Artifact of the stage ``fit-schedule``: noise levels, and the sampler they were fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from genkit.artifacts import Artifact
from genkit.errors import Code, DataError
from genkit.files import read_json_with_digest, write_json_with_digest
from genkit.interfaces import Sampler, Solver
from genkit.sample import resolve_start
from genkit.settings import Ref
from genkit.tensors import network_digest
from genkit.types import ResolvedStart
from genkit_stages.level_search import KnownLevels


@dataclass(frozen=True)
class FittedLevels(Artifact):
    """Noise levels for a denoiser, a solver, a number of steps and a start.

    Attributes:
        levels: noise levels above 0, one for each step, decreasing.
        denoiser: digest of the denoiser, see :func:`genkit.tensors.network_digest`.
        solver: solver with its settings, see :func:`name_of`.
        start: distribution of the state at the first noise level.
        energy: energy distance of the samples to the data, without the term that depends on the
            data alone.
        usual: the lower of the energy distances for rho 7 and rho 90 over the whole range.
        samples: number of samples that were drawn for the fit.
    """

    name = "levels"
    suffix = ".json"

    levels: Sequence[float]
    denoiser: str
    solver: str
    start: ResolvedStart
    energy: float
    usual: float
    samples: int

    def save(self, path: Path) -> None:
        # The file may be used outside of its run, which records a digest of it.
        write_json_with_digest(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> FittedLevels:
        try:
            values = read_json_with_digest(path)
            values["levels"] = tuple(float(level) for level in values["levels"])
            fitted = cls(**values)
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise cls._unreadable(path, str(error)) from error
        if not fitted.levels or any(a <= b for a, b in pairwise([*fitted.levels, 0.0])):
            raise cls._unreadable(path, "its levels do not decrease")
        return fitted

    @staticmethod
    def _unreadable(path: Path, reason: str) -> DataError:
        return DataError(
            f"{path} must be a file of fitted noise levels, but is missing or corrupt: {reason}; "
            "run the stage fit-schedule again",
            Code.UNREADABLE,
        )

    def require(self, sampler: Sampler, steps: int) -> None:
        """Check that a sampler has the denoiser, solver, steps and start of the fit.

        Raises:
            DataError: one of them differs.
        """
        levels = KnownLevels.of(self.levels)
        start = resolve_start(sampler.start, sampler.denoiser, sampler.coupling, levels)
        comparisons = {
            "denoiser": (self.denoiser, network_digest(sampler.denoiser)),
            "solver": (self.solver, name_of(sampler.solver)),
            "number of steps": (str(len(self.levels)), str(steps)),
            "start": (self.start, start),
        }
        for what, (fitted, got) in comparisons.items():
            if fitted != got:
                raise DataError(
                    f"schedule must be fitted to the {what} of the sampler, {got}, got levels "
                    f"for {fitted}; fit a schedule to it with a stage fit-schedule",
                    Code.CONFLICT,
                )


LevelsRef = Annotated[str, Ref(FittedLevels)]
"""Id of an earlier stage that writes fitted noise levels."""


def name_of(solver: Solver) -> str:
    """Return a description of a solver: its class and all settings."""
    return repr(solver)
