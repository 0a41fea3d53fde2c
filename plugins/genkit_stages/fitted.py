"""The schedule ``fitted``, which uses noise levels of the stage ``fit-schedule``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genkit.errors import Code, Problem
from genkit.interfaces import Inputs, Sampler, Schedule, Solver, Stages
from genkit.settings import setting
from genkit.types import Start
from genkit_stages.fit_schedule import FitSchedule
from genkit_stages.fitted_levels import FittedLevels, LevelsRef
from genkit_stages.level_search import KnownLevels


@dataclass(frozen=True, kw_only=True)
class Fitted(Schedule):
    """Uses noise levels that a stage `fit-schedule` fitted to this denoiser, solver and steps.

    Outside a run, `levels` is the path of a file `levels.json` that such a stage wrote.
    """

    source = "genkit's digits study; see the stage fit-schedule"

    levels: LevelsRef = setting(doc="stage that fitted the noise levels")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        stage = earlier.get(self.levels)
        if isinstance(stage, FitSchedule) and stage.steps != self.steps:
            yield Problem(
                ("steps",),
                f"must be {stage.steps}, the steps of stage {self.levels}, got {self.steps}",
                f"write steps = {stage.steps}, or fit a schedule with {self.steps} steps",
                Code.CONFLICT,
            )

    def check_sampler(
        self, denoiser: str, solver: Solver, start: Start, earlier: Stages
    ) -> Iterator[Problem]:
        stage = earlier.get(self.levels)
        if not isinstance(stage, FitSchedule):
            return
        if stage.denoiser != denoiser:
            reason = f"must be fitted to the denoiser {denoiser}, got levels for {stage.denoiser}"
            hint = "fit a schedule to this denoiser"
            yield Problem(("levels",), reason, hint, Code.CONFLICT)
        if stage.solver != solver:
            reason = f"must be fitted to {solver}, got levels for {stage.solver}"
            yield Problem(("levels",), reason, "fit a schedule to this solver", Code.CONFLICT)
        if "auto" not in (stage.start, start) and stage.start != start:
            reason = f'must be fitted to the start "{start}", got levels for "{stage.start}"'
            hint = f'write start = "{stage.start}", or fit a schedule to this start'
            yield Problem(("levels",), reason, hint, Code.CONFLICT)

    def bind(self, inputs: Inputs, sampler: Sampler) -> Schedule:
        """Return the fitted levels.

        Raises:
            DataError: denoiser, solver, number of steps or start differ from those of the fit.
        """
        fitted = inputs.read(self.levels, FittedLevels)
        fitted.require(sampler, self.steps)
        return KnownLevels.of(fitted.levels)
