"""Averaged stochastic gradient ascent of the semidual for one group of images."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from genkit_semidiscrete.cells import Cells, chi_squared


@dataclass
class State:
    """The state of an ascent, as float64 tensors on the CPU.

    Attributes:
        potential: ``[K]`` current potential.
        total: ``[K]`` sum of the potentials in the last quarter of steps, for their average.
        size: size of the first step.
        counts: ``[K]`` number of times that each image was chosen since the last report.
        score: sum of the scores of these choices.
        chi: sum over steps of the chi-squared divergence times the number of noise samples. It is
            computed for each step separately, because each step corrects the previous one: the
            counts over several steps would be too uniform.
    """

    potential: Tensor
    total: Tensor
    size: Tensor
    counts: Tensor
    score: Tensor
    chi: Tensor

    @classmethod
    def fresh(cls, potential: Tensor, total: Tensor, size: Tensor) -> State:
        """Return a state whose counts, score and divergence are zero."""
        score, chi = (torch.zeros((), dtype=torch.float64) for _ in range(2))
        return cls(potential, total, size, torch.zeros_like(potential), score, chi)

    def reported(self) -> State:
        """Return the state after a report, with the counts reset."""
        return self.fresh(self.potential, self.total, self.size)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors for a checkpoint, with ``prefix`` in their names."""
        return {f"{prefix}.{f.name}": getattr(self, f.name) for f in fields(self)}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], prefix: str) -> State:
        """Return the state from the result of :meth:`tensors`."""
        return cls(*(tensors[f"{prefix}.{f.name}"] for f in fields(cls)))


@dataclass(frozen=True)
class Ascent:
    """Stochastic gradient ascent, followed by measurement of the result.

    The size of step t of T is proportional to (1 - t / T)^3: large steps change the potential much,
    and small steps at the end separate close images. The potentials of the last quarter of steps
    are averaged, which removes the variance of single steps (Polyak and Juditsky, 1992). Exponent
    and quarter are chosen, not tuned.

    Attributes:
        cells: cells of the images.
        steps: number of ascent steps; all later steps measure the averaged potential.
        learning_rate: size of the first step, in units of the mean difference between the scores of
            the best and the second-best image.
    """

    cells: Cells
    steps: int
    learning_rate: float

    def begin(self, noise: Tensor) -> State:
        """Return the state before the first step, initialized with noise samples ``[M, D]``."""
        potential = self.cells.start(noise)
        size = self.learning_rate * self.cells.margin(potential, noise)
        return State.fresh(potential, torch.zeros_like(potential), torch.tensor(size).double())

    def step(self, index: int, state: State, noise: Tensor) -> State:
        """Return the state after step ``index`` with fresh noise samples ``[M, D]``."""
        ascends = index < self.steps
        potential = state.potential if ascends else self.average(state)
        counts, score = self.cells.choose(potential, noise)
        total = state.total
        if ascends:
            size = float(state.size) * (1 - index / self.steps) ** 3
            potential = self.cells.ascend(potential, counts, size)
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
        """Return the averaged potential, ``[K]``."""
        return state.total / (self.steps - self._averaged_from)

    @property
    def _averaged_from(self) -> int:
        return self.steps * 3 // 4
