"""Averaged stochastic ascent to the potential of one set of images."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from genkit_semidiscrete.cells import Cells, chi_squared


@dataclass
class State:
    """How far an ascent is; all float64 on the CPU.

    Attributes:
        potential: ``[K]`` now.
        total: ``[K]`` sum of those that are averaged.
        size: of the first step.
        counts: ``[K]`` choices since the last report.
        score: sum of their scores.
        chi: sum over these choices of the chi-squared divergence that their step saw. It compares
            noises of one step alone: each step makes up for the one before, so that the counts of
            several say little.
    """

    potential: Tensor
    total: Tensor
    size: Tensor
    counts: Tensor
    score: Tensor
    chi: Tensor

    @classmethod
    def fresh(cls, potential: Tensor, total: Tensor, size: Tensor) -> State:
        """Return a state with no choice to report."""
        score, chi = (torch.zeros((), dtype=torch.float64) for _ in range(2))
        return cls(potential, total, size, torch.zeros_like(potential), score, chi)

    def reported(self) -> State:
        """Return the same, with no choice to report."""
        return self.fresh(self.potential, self.total, self.size)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return all by name."""
        return {f"{prefix}.{f.name}": getattr(self, f.name) for f in fields(self)}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], prefix: str) -> State:
        """Return what :meth:`tensors` named."""
        return cls(*(tensors[f"{prefix}.{f.name}"] for f in fields(cls)))


@dataclass(frozen=True)
class Ascent:
    """The way up, and after it the measurement of what was reached.

    The size of step t of T falls as (1 - t / T)^3: large steps carry a potential far, small ones
    tell near images apart. The potentials of the last quarter of the way are averaged: each alone
    is blurred by the noises of its last steps (Polyak and Juditsky, 1992).

    Attributes:
        cells: the images.
        steps: of ascent; all later ones measure the average.
        learning_rate: the first step, as a multiple of the mean lead of the best image over the
            second.
    """

    cells: Cells
    steps: int
    learning_rate: float

    def begin(self, noise: Tensor) -> State:
        """Return the state before the first step; ``noise [M, D]`` tells where that is."""
        potential = self.cells.start(noise)
        size = self.learning_rate * self.cells.lead(potential, noise)
        return State.fresh(potential, torch.zeros_like(potential), torch.tensor(size).double())

    def step(self, index: int, state: State, noise: Tensor) -> State:
        """Return the state after step ``index`` with fresh noises ``[M, D]``."""
        climbing = index < self.steps
        potential = state.potential if climbing else self.average(state)
        counts, score = self.cells.choose(potential, noise)
        total = state.total
        if climbing:
            size = float(state.size) * (1 - index / self.steps) ** 3
            potential = self.cells.ascended(potential, counts, size)
            if index >= self._averaged_from:
                total = total + potential
        chi = len(noise) * chi_squared(counts, self.cells.shares)
        return State(
            potential,
            total,
            state.size,
            state.counts + counts,
            state.score + score,
            state.chi + chi,
        )

    def average(self, state: State) -> Tensor:
        """Return the potential that was reached, ``[K]``."""
        return state.total / (self.steps - self._averaged_from)

    @property
    def _averaged_from(self) -> int:
        return self.steps * 3 // 4
