"""Search for noise levels whose samples are nearest to the data.

Candidates are levels evenly spaced in sigma^(1 / rho) (EDM, arXiv 2206.00364, eq. 5), from any
sigma_max to any sigma_min. Each is judged by the energy distance of its samples to the data,

    2 E|x - y| - E|x - x'| - E|y - y'|,

without the last term, which is the same for all. All candidates start from the same noise, so that
their differences are known far better than the distances themselves: 32 samples tell bad levels
from good ones.

The distance to the data ranks candidates more as a Fréchet distance does than the distance to the
end of the exact trajectory, which needs many network calls besides: the denoiser is not exact
itself. Three parameters are enough: a search over each level by itself changes the Fréchet distance
of other samples by -6 to 2 %, and takes many times the samples.
`benchmarks/fitted_schedules.py --criteria` measures both, in `docs/results/fitted_schedules.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from genkit.errors import DataError
from genkit.interfaces import Schedule
from genkit.settings import setting

SCREENED, COMPARED, DECIDED = 32, 64, 192
"""Samples of a candidate in the first round, in the second, and in the last."""

KEPT, FINALISTS = 5, 2
"""Candidates that the first round and the second leave; EDM's and the log-linear one stay."""

MOST_ITEMS = 10_000
"""Items of the data that samples are compared with, evenly spaced over the data set."""


@dataclass(frozen=True, kw_only=True)
class KnownLevels(Schedule):
    """A list of noise levels."""

    levels: tuple[float, ...] = setting(doc="decreasing noise levels above 0", above=0)

    def sigmas(self) -> Tensor:
        return torch.tensor([*self.levels, 0.0], dtype=torch.float64)

    @classmethod
    def of(cls, levels: Sequence[float]) -> KnownLevels:
        """Return the schedule with a step for each of the levels."""
        return cls(steps=len(levels), levels=tuple(levels))


@dataclass(frozen=True)
class Candidate:
    """Noise levels evenly spaced in a power of sigma.

    Attributes:
        sigma_max: first noise level.
        sigma_min: last noise level above 0.
        power: 1 / rho; 1 is linear, and 0 is the limit that is linear in log sigma.
    """

    sigma_max: float
    sigma_min: float
    power: float

    def levels(self, steps: int) -> tuple[float, ...]:
        """Return the noise levels above 0, one for each step."""
        high, low = self.sigma_max**self.power, self.sigma_min**self.power
        shares = [k / max(steps - 1, 1) for k in range(steps)]
        inner = [(high + share * (low - high)) ** (1 / self.power) for share in shares[1:-1]]
        return (self.sigma_max, *inner, self.sigma_min)[:steps]

    def neighbors(self, lowest: float, highest: float) -> Iterator[Candidate]:
        """Yield candidates half a step of the grid away, within a range of noise levels."""
        for factor in (RATIO**-0.5, RATIO**0.5):
            if self.sigma_min < (level := self.sigma_max * factor) <= highest:
                yield replace(self, sigma_max=level)
        for factor in (MIN_RATIO**-0.5, MIN_RATIO**0.5):
            if lowest <= (level := self.sigma_min * factor) < self.sigma_max:
                yield replace(self, sigma_min=level)
        for change in (-0.06, 0.06):
            if 0 < (power := self.power + change) <= 1:
                yield replace(self, power=power)


RATIO, MIN_RATIO = 20 ** (1 / 3), 30.0
"""Between neighbors of the grid: of sigma_max, which is divided by up to 20, and of sigma_min.

Images of 8 bits have steps of 0.008. So a last level of 0.06 in place of 0.002 is invisible in them
after its step to 0, and a step is saved.
"""

POWERS = (1 / 7, 1 / 90, 1 / 4)


def grid(lowest: float, highest: float) -> list[Candidate]:
    """Return candidates over a range of noise levels; the first two are EDM's and the log-linear.

    These two span the whole range, with rho 7 and 90.
    """
    tops = [highest / RATIO**k for k in range(4)]
    bottoms = [lowest, lowest * MIN_RATIO]
    usual = [Candidate(highest, lowest, power) for power in POWERS[:2]]
    others = [Candidate(a, b, power) for power, a, b in product(POWERS, tops, bottoms)]
    return list(dict.fromkeys([*usual, *(c for c in others if c.sigma_min < c.sigma_max)]))


def energy(samples: Tensor, data: Tensor) -> float:
    """Return the energy distance of samples to data, without the term that samples do not change.

    Args:
        samples: ``[N, F]`` features of two or more samples.
        data: ``[M, F]`` features of the data.
    """
    x, y = samples.double(), data.double()
    pairs = len(x) * (len(x) - 1)
    # Through matrix products, the distance of a sample to itself is not exactly 0.
    exact = "donot_use_mm_for_euclid_dist"
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x, compute_mode=exact).sum() / pairs)


def standardized(noise: Tensor) -> Tensor:
    """Return noise ``[N, *shape]`` with mean 0 and variance 1 of each element over the samples.

    Levels would else be fitted to the noise as well: where that of 192 samples varies by 5 % less
    than a normal distribution, levels whose samples vary by 5 % too much would be best.
    """
    return (noise - noise.mean(0)) / noise.std(0, correction=0)


@dataclass(frozen=True)
class Found:
    """The best candidate of a search.

    Attributes:
        levels: its noise levels above 0, one for each step.
        energy: energy distance of its samples to the data, without the term of the data.
        usual: the same of the better of the levels with rho 7 and 90 over the whole range.
        samples: number of samples that the search drew.
    """

    levels: tuple[float, ...]
    energy: float
    usual: float
    samples: int


class Search:
    """Compares candidates with more and more samples, fewer of them each time.

    Args:
        draw: returns the features ``[N, F]`` of the samples that noise levels give for some seeds.
        data: ``[M, F]`` features of the data.
        steps: number of solver steps.
    """

    def __init__(self, draw: Callable[[Schedule, range], Tensor], data: Tensor, steps: int) -> None:
        self._draw = draw
        self._data = data
        self._steps = steps
        self._features: dict[tuple[float, ...], list[Tensor]] = {}
        self._refused: dict[tuple[float, ...], DataError] = {}

    def best(self, lowest: float, highest: float) -> Found:
        """Return the best levels in a range.

        Raises:
            DataError: no candidate gives finite samples.
        """
        candidates = grid(lowest, highest)
        usual = candidates[:2]
        kept = self._nearest(candidates, SCREENED)[:KEPT]
        first = self._nearest(kept, COMPARED)[0]
        kept = self._nearest({*kept, *first.neighbors(lowest, highest)}, COMPARED)[:FINALISTS]
        final = self._nearest([*kept, *usual], DECIDED)
        if (error := self._refused.get(final[0].levels(self._steps))) is not None:
            raise error
        energies = [self._energy(c, DECIDED) for c in (final[0], *usual)]
        drawn = sum(len(part) for parts in self._features.values() for part in parts)
        return Found(final[0].levels(self._steps), energies[0], min(energies[1:]), drawn)

    def _nearest(self, candidates: Iterable[Candidate], count: int) -> list[Candidate]:
        """Return candidates by the energy distance of their first samples, best first."""
        # Ties, as of steps = 1, are broken by the parameters and never by the order of a set.
        return sorted(
            set(candidates),
            key=lambda c: (self._energy(c, count), c.sigma_max, c.sigma_min, c.power),
        )

    def _energy(self, candidate: Candidate, count: int) -> float:
        """Return the energy distance of the first samples of a candidate; infinity for none."""
        levels = candidate.levels(self._steps)
        if levels in self._refused:
            return math.inf
        parts = self._features.setdefault(levels, [])
        drawn = sum(map(len, parts))
        if drawn < count:
            try:
                parts.append(self._draw(KnownLevels.of(levels), range(drawn, count)))
            except DataError as error:  # levels that the network rounds to one, or infinite samples
                self._refused[levels] = error
                return math.inf
        return energy(torch.cat(parts)[:count], self._data)
