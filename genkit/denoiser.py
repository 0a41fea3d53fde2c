"""A trained denoiser in Python: called, or sampled with any schedule, solver and guidance."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from genkit.artifacts import DenoiserFile
from genkit.blame import plugin_errors
from genkit.errors import Code, DataError, SettingError
from genkit.interfaces import BoundGuidance, Guidance, Latents, Sampler, Schedule, Solver, Trained
from genkit.latents import draws_of
from genkit.machine import resolve_device
from genkit.networks import FileInputs, load_network
from genkit.parts.precision import Precision, require_precision
from genkit.plugin.manager import load_plugins
from genkit.recipe import decode
from genkit.run.guiding import bind_to_files
from genkit.sample import bind_schedule, bind_solver, resolve_start, sample
from genkit.start import SamplingWarning, require_start, sampling_warnings
from genkit.types import ResolvedStart, Start

Table = str | Mapping[str, Any]
"""A component by its name, or by a table such as a recipe has."""

AnyGuidance = Table | Guidance | BoundGuidance
"""A guidance by its table, as a component, or with its networks."""


class SamplingParts(NamedTuple):
    """How samples are drawn.

    Attributes:
        schedule: schedule of noise levels.
        solver: solver of the sampling ODE.
        latents: random draws.
    """

    schedule: Schedule
    solver: Solver
    latents: Latents


@plugin_errors()
def sampling_parts(
    schedule: Table | Schedule | None = None,
    solver: Table | None = None,
    latents: Table | None = None,
) -> SamplingParts:
    """Return the parts of sampling: schedule `edm`, solver `heun` and latents `derived` by default.

    A table without ``use`` is of the default component.

    Raises:
        PluginError: a name is not that of a component.
        SettingError: a setting is unknown or wrong.
    """
    registry = load_plugins().registry
    if not isinstance(schedule, Schedule):
        schedule = cast(Schedule, decode.checked(registry, "schedule", schedule, "edm"))
    parts: Any = (
        schedule,
        decode.checked(registry, "solver", solver, "heun"),
        decode.checked(registry, "latents", latents, "derived"),
    )
    return SamplingParts(*parts)


class Denoiser:
    """A trained denoiser, ready to be sampled or called.

    Args:
        trained: as an earlier stage left it.
        device: it lies on.
    """

    def __init__(self, trained: Trained, device: torch.device) -> None:
        self.trained = trained
        self.module = trained.module
        self.spec = trained.spec
        self.classes = trained.classes
        self.coupling = trained.coupling
        self.device = device

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``D(x; sigma)`` for x ``[B, *shape]``, sigma ``[B]`` and labels ``[B]``."""
        result: Tensor = self.module(x, sigma, labels)
        return result

    @plugin_errors()
    def sample(
        self,
        count: int | Sequence[int],
        *,
        schedule: Table | Schedule | None = None,
        solver: Table | None = None,
        latents: Table | None = None,
        start: Start = "auto",
        guidance: AnyGuidance | Sequence[AnyGuidance] = (),
        labels: Sequence[int] | Tensor | None = None,
        seed: int = 0,
        batch_size: int = 256,
        precision: Precision = "float32",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw samples.

        Args:
            count: number of samples, N; or the seed of each, from 0 to 2^63 - 1. A sample does not
                depend on the others that are drawn with it.
            schedule: component, name, or table such as ``{"use": "edm", "steps": 14}``; ``edm``
                where none is given. A reference is the path of a file, as for ``guidance``.
            solver: name or table; ``heun`` where none is given.
            latents: name or table. With ``derived``, the default, all draws follow from ``seed``
                and the number of the sample; with ``edm`` they are those of EDM's generate.py for
                the number alone.
            start: state at the first noise level: ``noise``, ``corrected``, ``corrected-twice``, or
                ``auto``, which is what the pairs of the training require; see
                :mod:`genkit.start`. A warning states what is assumed.
            guidance: one or several, whose corrections are summed. In a table, a reference to a
                network is the path of its file: ``{"use": "discriminator", "discriminator":
                "discriminator.safetensors", "weight": 2.0}``.
            labels: ``[N]`` classes, for a conditional denoiser; drawn by ``latents`` unless given:
                by default sample k is of class k modulo their number.
            seed: seed that all samples share.
            batch_size: samples drawn at a time.
            precision: precision of all networks: ``float32``, ``tf32``, ``bfloat16``, ``float16``.
            dtype: type of the result; float64 keeps the precision of the solver's states.

        Returns:
            ``[N, *shape]`` on the CPU; images range over about [-1, 1].

        Raises:
            DataError: nothing is to be drawn, a seed is out of range, ``precision`` is none,
                ``dtype`` is no floating-point type, or labels or parts do not fit the denoiser.
            PluginError: a name is not that of a component.
            SettingError: a setting of the schedule, the solver, the latents or the guidance is
                unknown or wrong, or a guidance does not fit the denoiser.
        """
        several = isinstance(count, Iterable) and getattr(count, "ndim", 1) != 0
        chosen = _integers("seeds", count) if several else range(_integer("count", count))
        seed, batch_size = _integer("seed", seed), _integer("batch_size", batch_size)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise DataError(
                f"dtype must be floating-point, got {dtype}; write torch.float32", Code.WRONG_TYPE
            )
        if len(chosen) < 1 or batch_size < 1:
            raise DataError("count and batch_size must be at least 1", Code.OUT_OF_RANGE)
        parts = self.bind_schedule(sampling_parts(schedule, solver, latents), start)
        self.require(parts, chosen)
        bound = self.bind_guidance(guidance, parts.solver)
        for warning in sampling_warnings(start, self.coupling, parts.solver, bound):
            warnings.warn(warning, SamplingWarning, stacklevel=3)
        classes = self._labels(len(chosen), labels)
        draw = partial(
            sample,
            self.module,
            start=self.resolve_start(parts.schedule, start),
            precision=require_precision(precision),
        )
        drawn = []
        for first in range(0, len(chosen), batch_size):
            part = slice(first, first + batch_size)
            draws = draws_of(
                parts.latents, self.spec.shape, chosen[part], self.classes, self.device, seed
            )
            if classes is not None:
                draws = replace(draws, labels=classes[part].to(self.device))
            found = draw(draws, schedule=parts.schedule, solver=parts.solver, guidance=bound)
            drawn.append(found.batch.data.to(dtype))
        return torch.cat(drawn)

    def resolve_start(self, schedule: Schedule, start: Start = "auto") -> ResolvedStart:
        """Return where trajectories start under a schedule; see :mod:`genkit.start`.

        Raises:
            DataError: as for :func:`genkit.start.require_start`.
        """
        require_start(start, schedule, getattr(self.module, "preconditioner", None))
        return resolve_start(start, self.module, self.coupling, schedule)

    @plugin_errors()
    def bind_schedule(self, parts: SamplingParts, start: Start = "auto") -> SamplingParts:
        """Return the parts, of which the schedule has the noise levels for this denoiser.

        Raises:
            DataError: the schedule's file is missing or damaged, or was fitted to another denoiser,
                solver, number of steps or start.
        """
        sampler = Sampler(self.module, self.coupling, parts.solver, start)
        schedule = bind_schedule(parts.schedule, FileInputs(self.device), sampler)
        return parts._replace(schedule=schedule)

    @plugin_errors()
    def bind_guidance(
        self, guidance: AnyGuidance | Sequence[AnyGuidance], solver: Solver | None = None
    ) -> list[BoundGuidance]:
        """Return guidance with its networks loaded, for several calls of :meth:`sample`.

        Args:
            guidance: one or several.
            solver: solver in whose steps they act; None checks no solver.

        Raises:
            SettingError: as for :meth:`sample`.
        """
        several = isinstance(guidance, Sequence) and not isinstance(guidance, str)
        bound = []
        for given in cast("Sequence[AnyGuidance]", guidance if several else [guidance]):
            if isinstance(given, BoundGuidance):
                problems = (
                    given.component.check_solver(solver) if given.component and solver else ()
                )
                if found := list(problems):
                    raise SettingError("guidance", found)
                bound.append(given)
                continue
            if not isinstance(given, Guidance):
                registry = load_plugins().registry
                given = cast(Guidance, decode.checked(registry, "guidance", given))
            bound.append(bind_to_files(given, self.trained, self.device, solver))
        return bound

    def require(self, parts: SamplingParts, seeds: Sequence[int]) -> None:
        """Raise DataError unless the parts fit this denoiser and the seeds of samples."""
        parts.latents.require(self.spec.shape, seeds)
        bind_solver(parts.schedule, parts.solver, getattr(self.module, "preconditioner", None))

    def _labels(self, count: int, asked: Sequence[int] | Tensor | None) -> Tensor | None:
        """Return the classes that were chosen; None where they are drawn, or there are none."""
        if asked is None:
            return None
        if not self.classes:
            raise DataError("this denoiser knows no classes; leave labels out", Code.CONFLICT)
        labels = torch.tensor(_integers("labels", asked))
        if labels.shape != (count,):
            raise DataError(f"there must be {count} labels, got {len(labels)}", Code.WRONG_LENGTH)
        if len(wrong := labels[(labels < 0) | (labels >= self.classes)]):
            raise DataError(
                f"label {int(wrong[0])} is no class; write 0 to {self.classes - 1}",
                Code.OUT_OF_RANGE,
            )
        return labels


def _integer(name: str, value: Any) -> int:
    """Return an integer of any type, such as NumPy's, as Python's."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise DataError(
            f"{name} must be an integer, got {value!r}; write one such as 16", Code.WRONG_TYPE
        ) from error


def _integers(name: str, values: Any) -> Sequence[int]:
    """Return integers of any type, such as NumPy's, as Python's."""
    if isinstance(values, range):
        return values
    try:
        return [operator.index(value) for value in values]
    except TypeError as error:
        raise DataError(
            f"{name} must be integers, got {values!r}; write [0, 1, 2]", Code.WRONG_TYPE
        ) from error


@plugin_errors()
def load_denoiser(path: str | Path, device: str = "auto") -> Denoiser:
    """Load a ``denoiser.safetensors`` that the train stage wrote.

    Raises:
        DataError: the file is missing, damaged, or no denoiser.
    """
    where = resolve_device(device)
    trained = load_network(Path(path), load_plugins().registry, where, DenoiserFile)
    return Denoiser(trained, where)
