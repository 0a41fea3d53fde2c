"""Find components and references in settings, and check networks before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from genkit.errors import DataError, Key, Problem
from genkit.field_types import Reference
from genkit.fields import leaves_of
from genkit.interfaces import Component, Design, Guidance, SamplingStage, Solver, Stages


def designs(names: Iterable[str], earlier: Stages) -> dict[str, Design]:
    """Return a map from the id of a stage to the design of the network that it writes.

    Stages without a network, or whose data is unknown, are left out.
    """
    known = {}
    for name in names:
        with suppress(DataError, KeyError):  # reported by the check of the data or the reference
            design = earlier[name].design(earlier)
            if design is not None and design.classes >= 0:
                known[name] = replace(design, stage=name)
    return known


def design_behind(samples: str, earlier: Stages) -> Design | None:
    """Return the design of the denoiser that draws the samples of a stage; None if unknown.

    Raises:
        DataError: the training data of the denoiser is missing or invalid.
    """
    stage = earlier.get(samples)
    denoiser = stage and earlier.get(stage.drawn_by(earlier) or "")
    return denoiser.design(earlier) if denoiser else None


def components(component: Component, *, result_only: bool = False) -> Iterator[Component]:
    """Yield a component and all components in its settings, at any depth.

    Args:
        component: outermost component.
        result_only: whether to leave out components in settings that affect no result.
    """
    yield component
    leaves = leaves_of(component, result_only=result_only)
    yield from (part for _, _, part in leaves if isinstance(part, Component))


def references(component: Component, *, result_only: bool = False) -> Iterator[str]:
    """Yield the ids of earlier stages to which a component refers, at any depth.

    Outside of a run, a reference is the path of a file. The arguments are those of
    :func:`components`.
    """
    leaves = leaves_of(component, result_only=result_only)
    return (value for _, kind, value in leaves if isinstance(kind, Reference))


def outermost(component: Component, kind: type[Any]) -> Iterator[tuple[Key, Any]]:
    """Yield key and component for each outermost component of a base class in the settings."""
    outer: list[Key] = []
    for key, _, part in leaves_of(component):
        if isinstance(part, kind) and not any(key[: len(above)] == above for above in outer):
            outer.append(key)
            yield key, part


def problems_of(part: Component, earlier: Stages) -> Iterator[Problem]:
    """Yield the problems of a component, including guidance that does not fit the denoiser."""
    yield from part.check(earlier)
    if not isinstance(part, SamplingStage):
        return
    guides = list(outermost(part, Guidance))
    for key, guidance in guides:
        for _, solver in outermost(part, Solver):
            yield from (problem.under(*key) for problem in guidance.check_solver(solver))
    networks = designs(earlier if guides else (), earlier)
    if denoiser := networks.get(part.drawn_by(earlier) or ""):
        for key, guidance in guides:
            problems = guidance.check_guided(denoiser, networks)
            yield from (problem.under(*key) for problem in problems)
