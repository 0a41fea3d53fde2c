"""Call a trained denoiser in Python, or sample it with any schedule, solver and guidance."""

from __future__ import annotations

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
from genkit.notebook import html_table
from genkit.parts.arguments import as_integer, as_integers, as_labels
from genkit.parts.precision import Precision, require_precision
from genkit.plugin.manager import load_plugins
from genkit.recipe import decode
from genkit.run.guiding import bind_to_files
from genkit.sample import bind_schedule, bind_solver, network_levels, resolve_start, sample
from genkit.start import SamplingWarning, require_start, sampling_warnings
from genkit.types import ResolvedStart, Start, State

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

    def __repr__(self) -> str:
        return f"Denoiser({', '.join(f'{name}={text}' for name, text in self._facts())})"

    def _repr_html_(self) -> str:
        return html_table(self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        parameters = sum(p.numel() for p in self.module.parameters())
        return [
            ("network", type(self.trained.settings).__name__),
            ("parameters", f"{parameters:,}"),
            ("shape", str(self.spec.shape)),
            ("classes", str(self.classes)),
            ("device", str(self.device)),
        ]

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
        trajectory: bool = False,
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
            trajectory: whether to return the states at all noise levels.

        Returns:
            ``[N, *shape]`` samples on the CPU; images are approximately in [-1, 1]. With
            ``trajectory``, ``[L, N, *shape]`` states at the L levels of :meth:`noise_levels`; the
            last state is the samples.

        Raises:
            DataError: an argument is out of range or has a wrong type, or labels or components do
                not fit the denoiser.
            PluginError: no component has the given name.
            SettingError: a setting of a component is unknown or invalid, or a guidance does not
                fit the denoiser.
        """
        several = isinstance(count, Iterable) and getattr(count, "ndim", 1) != 0
        seeds = as_integers("seeds", count) if several else range(as_integer("count", count))
        seed, batch_size = as_integer("seed", seed), as_integer("batch_size", batch_size)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise DataError(
                f"dtype must be floating-point, got {dtype}; write torch.float32", Code.WRONG_TYPE
            )
        if len(seeds) < 1 or batch_size < 1:
            got = len(seeds) if several else count
            raise DataError(
                f"count and batch_size must be at least 1, got {got} and {batch_size}; write "
                "positive numbers",
                Code.OUT_OF_RANGE,
            )
        parts = self.bind_schedule(sampling_parts(schedule, solver, latents), start)
        self.require(parts, seeds)
        bound = self.bind_guidance(guidance, parts.solver)
        levels = network_levels(self.module, parts.schedule)
        for warning in sampling_warnings(start, self.coupling, parts.solver, bound, levels):
            warnings.warn(warning, SamplingWarning, stacklevel=3)
        classes = as_labels(labels, len(seeds), self.classes)
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
            states: list[Tensor] = []
            result = draw(
                draws,
                schedule=parts.schedule,
                solver=parts.solver,
                guidance=bound,
                observe=partial(_keep, states, dtype) if trajectory else lambda _: None,
            )
            images.append(torch.stack(states) if trajectory else result.batch.data.to(dtype))
        return torch.cat(images, dim=1 if trajectory else 0)

    @plugin_errors()
    def noise_levels(
        self, schedule: Table | Schedule | None = None, solver: Table | None = None
    ) -> Tensor:
        """Return the noise levels of sampling, ``[L]`` float64, which decrease to 0.

        They are those of the schedule, rounded to levels that the denoiser supports. The arguments
        and the errors are those of :meth:`sample`.
        """
        parts = self.bind_schedule(sampling_parts(schedule, solver))
        preconditioner = getattr(self.module, "preconditioner", None)
        return bind_solver(parts.schedule, parts.solver, preconditioner)[1]

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


def _keep(states: list[Tensor], dtype: torch.dtype, state: State) -> None:
    """Append a state on the CPU."""
    states.append(state.x.to("cpu", dtype))


@plugin_errors()
def load_denoiser(path: str | Path, device: str = "auto") -> Denoiser:
    """Load a ``denoiser.safetensors`` file, which the stage `train` writes.

    Raises:
        DataError: the file is missing, damaged, or not a denoiser.
    """
    where = resolve_device(device)
    trained = load_network(Path(path), load_plugins().registry, where, DenoiserFile)
    return Denoiser(trained, where)
