"""Call a trained denoiser in Python, or sample it with any schedule, solver and guidance."""

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
"""Name of a component, or its table as in a recipe."""

AnyGuidance = Table | Guidance | BoundGuidance
"""Guidance as a name or table, as a component, or bound to its networks."""


class SamplingParts(NamedTuple):
    """Components that draw samples.

    Attributes:
        schedule: schedule of noise levels.
        solver: solver of the sampling ODE.
        latents: component that draws latents, labels and noise.
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
    """Return schedule, solver and latents; the defaults are `edm`, `heun` and `derived`.

    A table without ``use`` changes settings of the default component.

    Raises:
        PluginError: no component has the given name.
        SettingError: a setting is unknown or invalid.
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
    """A trained denoiser, which can be called or sampled.

    Args:
        trained: trained network with its settings and data specification, such as
            ``TrainingState.averaged`` in a callback.
        device: device of the network; None for that of its weights.
    """

    def __init__(self, trained: Trained, device: torch.device | None = None) -> None:
        self.trained = trained
        self.module = trained.module
        self.spec = trained.spec
        self.classes = trained.classes
        self.coupling = trained.coupling
        self.device = device or next(trained.module.parameters()).device

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``D(x; sigma)``, ``[B, *shape]``.

        Args:
            x: ``[B, *shape]`` noisy images.
            sigma: ``[B]`` noise levels.
            labels: ``[B]`` int64 classes; None for an unconditional denoiser.
        """
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
            count: number of samples, N; or the seed of each sample, from 0 to 2^63 - 1. A sample
                does not depend on the others.
            schedule: component, name, or table such as ``{"use": "edm", "steps": 14}``; None for
                ``edm``. A reference in a table is the path of a file, as for ``guidance``.
            solver: name or table; None for ``heun``.
            latents: name or table. With ``derived``, the default, the draws of a sample depend on
                ``seed`` and the index of the sample. With ``edm``, they depend on the index alone
                and are those of EDM's generate.py.
            start: state at the first noise level: ``noise``, ``corrected``, ``corrected-twice``, or
                ``auto``, which is chosen for the coupling used in training; see
                :mod:`genkit.start`. Unverified assumptions are reported as a warning.
            guidance: one guidance, or several whose corrections are summed. A reference to a
                network in a table is the path of its file: ``{"use": "discriminator",
                "discriminator": "discriminator.safetensors", "weight": 2.0}``.
            labels: ``[N]`` classes for a conditional denoiser. By default, ``latents`` draws them;
                ``derived`` assigns class k modulo the number of classes to sample k.
            seed: seed shared by all samples.
            batch_size: number of samples drawn at a time.
            precision: precision of all networks: ``float32``, ``tf32``, ``bfloat16``, ``float16``.
            dtype: dtype of the result; float64 keeps the precision of the solver's states.

        Returns:
            ``[N, *shape]`` samples on the CPU; images are approximately in [-1, 1].

        Raises:
            DataError: an argument is out of range or has a wrong type, or labels or components do
                not fit the denoiser.
            PluginError: no component has the given name.
            SettingError: a setting of a component is unknown or invalid, or a guidance does not
                fit the denoiser.
        """
        several = isinstance(count, Iterable) and getattr(count, "ndim", 1) != 0
        seeds = _integers("seeds", count) if several else range(_integer("count", count))
        seed, batch_size = _integer("seed", seed), _integer("batch_size", batch_size)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise DataError(
                f"dtype must be floating-point, got {dtype}; write torch.float32", Code.WRONG_TYPE
            )
        if len(seeds) < 1 or batch_size < 1:
            raise DataError(
                f"count and batch_size must be at least 1, got {len(seeds)} and {batch_size}",
                Code.OUT_OF_RANGE,
            )
        parts = self.bind_schedule(sampling_parts(schedule, solver, latents), start)
        self.require(parts, seeds)
        bound = self.bind_guidance(guidance, parts.solver)
        for warning in sampling_warnings(start, self.coupling, parts.solver, bound):
            warnings.warn(warning, SamplingWarning, stacklevel=3)
        classes = self._labels(len(seeds), labels)
        draw = partial(
            sample,
            self.module,
            start=self.resolve_start(parts.schedule, start),
            precision=require_precision(precision),
        )
        images = []
        for first in range(0, len(seeds), batch_size):
            part = slice(first, first + batch_size)
            draws = draws_of(
                parts.latents, self.spec.shape, seeds[part], self.classes, self.device, seed
            )
            if classes is not None:
                draws = replace(draws, labels=classes[part].to(self.device))
            result = draw(draws, schedule=parts.schedule, solver=parts.solver, guidance=bound)
            images.append(result.batch.data.to(dtype))
        return torch.cat(images)

    def resolve_start(self, schedule: Schedule, start: Start = "auto") -> ResolvedStart:
        """Return the start of trajectories for a schedule; see :mod:`genkit.start`.

        Raises:
            DataError: as for :func:`genkit.start.require_start`.
        """
        require_start(start, schedule, getattr(self.module, "preconditioner", None))
        return resolve_start(start, self.module, self.coupling, schedule)

    @plugin_errors()
    def bind_schedule(self, parts: SamplingParts, start: Start = "auto") -> SamplingParts:
        """Return the components with the schedule bound to this denoiser.

        Raises:
            DataError: the file of the schedule is missing or damaged, or the schedule was fitted to
                another denoiser, solver, number of steps or start.
        """
        sampler = Sampler(self.module, self.coupling, parts.solver, start)
        schedule = bind_schedule(parts.schedule, FileInputs(self.device), sampler)
        return parts._replace(schedule=schedule)

    @plugin_errors()
    def bind_guidance(
        self, guidance: AnyGuidance | Sequence[AnyGuidance], solver: Solver | None = None
    ) -> list[BoundGuidance]:
        """Return guidance with its networks loaded, which several calls of :meth:`sample` can use.

        Args:
            guidance: one guidance or several.
            solver: solver with which the guidance is used; None to skip the check of this
                combination.

        Raises:
            SettingError: as for :meth:`sample`.
        """
        several = isinstance(guidance, Sequence) and not isinstance(guidance, str)
        bound = []
        for guide in cast("Sequence[AnyGuidance]", guidance if several else [guidance]):
            if isinstance(guide, BoundGuidance):
                component = guide.component
                problems = list(component.check_solver(solver) if component and solver else ())
                if problems:
                    raise SettingError("guidance", problems)
                bound.append(guide)
                continue
            if not isinstance(guide, Guidance):
                registry = load_plugins().registry
                guide = cast(Guidance, decode.checked(registry, "guidance", guide))
            bound.append(bind_to_files(guide, self.trained, self.device, solver))
        return bound

    def require(self, parts: SamplingParts, seeds: Sequence[int]) -> None:
        """Raise DataError unless the components support this denoiser and these sample seeds."""
        parts.latents.require(self.spec.shape, seeds)
        bind_solver(parts.schedule, parts.solver, getattr(self.module, "preconditioner", None))

    def _labels(self, count: int, classes: Sequence[int] | Tensor | None) -> Tensor | None:
        """Return the classes that the user chose as int64; None if ``latents`` draws them."""
        if classes is None:
            return None
        if not self.classes:
            raise DataError(
                "labels must be None for an unconditional denoiser; remove them", Code.CONFLICT
            )
        labels = torch.tensor(_integers("labels", classes))
        if labels.shape != (count,):
            raise DataError(
                f"labels must contain one class for each of the {count} samples, got {len(labels)}",
                Code.WRONG_LENGTH,
            )
        if len(wrong := labels[(labels < 0) | (labels >= self.classes)]):
            limit = self.classes - 1
            got = int(wrong[0])
            raise DataError(f"labels must be from 0 to {limit}, got {got}", Code.OUT_OF_RANGE)
        return labels


def _integer(name: str, value: Any) -> int:
    """Return an integer of any type, such as NumPy's, as an int."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise DataError(
            f"{name} must be an integer, got {value!r}; write a number such as 16", Code.WRONG_TYPE
        ) from error


def _integers(name: str, values: Any) -> Sequence[int]:
    """Return integers of any type, such as NumPy's, as ints."""
    if isinstance(values, range):
        return values
    try:
        return [operator.index(value) for value in values]
    except TypeError as error:
        raise DataError(
            f"{name} must be integers, got {values!r}; write a list such as [0, 1, 2]",
            Code.WRONG_TYPE,
        ) from error


@plugin_errors()
def load_denoiser(path: str | Path, device: str = "auto") -> Denoiser:
    """Load a ``denoiser.safetensors`` file, which the stage `train` writes.

    Raises:
        DataError: the file is missing, damaged, or not a denoiser.
    """
    where = resolve_device(device)
    trained = load_network(Path(path), load_plugins().registry, where, DenoiserFile)
    return Denoiser(trained, where)
