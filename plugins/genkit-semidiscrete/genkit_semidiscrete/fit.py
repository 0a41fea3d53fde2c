"""Simultaneous ascents for all groups of a data set, with the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit_semidiscrete.ascent import Ascent, State
from genkit_semidiscrete.cells import Cells, chi_squared, total_variation
from genkit_semidiscrete.potential import Images


@dataclass(frozen=True)
class Fit:
    """The ascents for all groups of a data set.

    Attributes:
        ascents: ascent of each group.
        members: indices of each group's distinct images in the data set.
        weights: share of each group in the data set.
        images: groups, duplicates and marks of the images of the data set.
    """

    ascents: Sequence[Ascent]
    members: Sequence[Tensor]
    weights: Sequence[float]
    images: Images

    @classmethod
    def of(cls, points: Tensor, images: Images, steps: int, learning_rate: float) -> Fit:
        """Return the ascents for images ``points [N, D]``, on the device of the computation."""
        size = images.size().double()
        members = [indices for _, indices in images.parts()]
        ascents = [
            Ascent(
                Cells(points[part.to(points.device)], size[part] / size[part].sum()),
                steps,
                learning_rate,
            )
            for part in members
        ]
        weights = [float(size[part].sum() / len(images)) for part in members]
        return cls(ascents, members, weights, images)

    def begin(self, noise: Tensor) -> list[State]:
        """Return the states before the first step."""
        return [ascent.begin(noise) for ascent in self.ascents]

    def step(self, index: int, states: Sequence[State], noise: Tensor) -> list[State]:
        """Return the states after step ``index``, with the same noise for all groups."""
        return [
            ascent.step(index, state, noise)
            for ascent, state in zip(self.ascents, states, strict=True)
        ]

    def progress(self, states: Sequence[State]) -> dict[str, float]:
        """Return objective and marginal error, measured on the choices since the last report."""
        objective, chi = 0.0, 0.0
        for ascent, state, weight in zip(self.ascents, states, self.weights, strict=True):
            noises = state.counts.sum()
            objective += weight * ascent.cells.objective(float(state.score / noises))
            chi += weight * float(state.chi / noises)
        return {"objective": objective, "marginal_error": max(0.0, chi) ** 0.5}

    def result(self, states: Sequence[State]) -> dict[str, float]:
        """Return all measurements of the averaged potentials, which are reported after the fit."""
        chi, variation, never = 0.0, 0.0, 0
        for ascent, state, weight in zip(self.ascents, states, self.weights, strict=True):
            chi += weight * chi_squared(state.counts, ascent.cells.shares)
            variation += weight * total_variation(state.counts, ascent.cells.shares)
            never += int((state.counts == 0).sum())
        return self.progress(states) | {
            "marginal_error": max(0.0, chi) ** 0.5,
            "total_variation": variation,
            "never_chosen": never,
        }

    def reported(self, states: Sequence[State]) -> list[State]:
        """Return the states after a report, with the counts reset."""
        return [state.reported() for state in states]

    def values(self, states: Sequence[State]) -> Tensor:
        """Return the averaged potential of each image, ``[N]`` float32."""
        values = torch.zeros(len(self.images), dtype=torch.float64)
        for ascent, state, members in zip(self.ascents, states, self.members, strict=True):
            values[members] = ascent.average(state)
        return values[self.images.twin].float()
