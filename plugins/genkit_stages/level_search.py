"""Search for noise levels that minimize the distance of samples to the data.

Candidates are levels evenly spaced in sigma^(1 / rho) (EDM, arXiv 2206.00364, eq. 5), from any
sigma_max to any sigma_min. The criterion is the energy distance of samples x to data y,

    2 E|x - y| - E|x - x'| - E|y - y'|,

without the last term, which is the same for all candidates. All candidates start from the same
noise. This makes the variance of the differences between candidates far smaller than the variance
of the distances: 32 samples suffice to exclude bad levels.

Why this criterion: its ranking of candidates agrees better with the Fréchet distance than a ranking
by the distance to the end points of exact trajectories. It also takes far fewer network calls.
Exact trajectories are a poor target because the denoiser itself is not exact.

Why three parameters: a search over every level separately changes the Fréchet distance of other
samples by only -6 to 2 %, and takes many times as many samples. `benchmarks/fitted_schedules.py
--criteria` measures both; see `docs/results/fitted_schedules.md`.
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

FIRST_SAMPLES, SECOND_SAMPLES, FINAL_SAMPLES = 32, 64, 192
"""Numbers of samples per candidate in the first, second and last round.

Chosen so that a whole fit draws at most 1,888 samples, fewer than a Fréchet distance requires.
"""

FIRST_KEPT, SECOND_KEPT = 5, 2
"""Numbers of candidates kept after the first and second round, besides rho 7 and rho 90."""

MAX_ITEMS = 10_000
"""Maximum number of data items, evenly spaced, to compare samples with; chosen, not tuned."""


@dataclass(frozen=True, kw_only=True)
class KnownLevels(Schedule):
    """Use a fixed list of noise levels."""

    levels: tuple[float, ...] = setting(doc="decreasing noise levels above 0", above=0)

    def sigmas(self) -> Tensor:
        return torch.tensor([*self.levels, 0.0], dtype=torch.float64)

    @classmethod
    def of(cls, levels: Sequence[float]) -> KnownLevels:
        """Return the schedule with one step for each level."""
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
        """Yield candidates half a grid step away, within a range of noise levels."""
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
"""Ratios of neighboring grid values of sigma_max and of sigma_min.

The grid divides sigma_max by at most 20 and multiplies sigma_min by at most 30, for example from
0.002 to 0.06. The values of 8-bit images are 0.008 apart, so a higher sigma_min changes images
little, and saves a step.
"""

POWERS = (1 / 7, 1 / 90, 1 / 4)
"""Values of 1 / rho: EDM's rho 7, the nearly log-linear rho 90, and rho 4 (chosen, not tuned)."""


def grid(lowest: float, highest: float) -> list[Candidate]:
    """Return candidates over a range of noise levels.

    The first two span the whole range with rho 7, which is EDM's, and rho 90, nearly log-linear.
    """
    tops = [highest / RATIO**k for k in range(4)]
    bottoms = [lowest, lowest * MIN_RATIO]
    usual = [Candidate(highest, lowest, power) for power in POWERS[:2]]
    others = [Candidate(a, b, power) for power, a, b in product(POWERS, tops, bottoms)]
    return list(dict.fromkeys([*usual, *(c for c in others if c.sigma_min < c.sigma_max)]))


def energy(samples: Tensor, data: Tensor) -> float:
    """Return the energy distance of samples to data, without the term of the data alone.

    Args:
        samples: features of at least two samples, ``[N, F]``.
        data: features of the data, ``[M, F]``.
    """
    x, y = samples.double(), data.double()
    pairs = len(x) * (len(x) - 1)
    # With matrix products, rounding would give the distance of a sample to itself a value above 0.
    exact = "donot_use_mm_for_euclid_dist"
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x, compute_mode=exact).sum() / pairs)


def standardize(noise: Tensor) -> Tensor:
    """Scale noise ``[N, *shape]`` to mean 0 and variance 1 of each element over the samples.

    Otherwise the levels would also be fitted to this noise: if the standard deviation of 192
    draws is 5 % below 1, levels whose samples vary by 5 % too much would seem best.
    """
    return (noise - noise.mean(0)) / noise.std(0, correction=0)


@dataclass(frozen=True)
class Best:
    """Result of a search: the best candidate.

    Attributes:
        levels: noise levels above 0, one for each step.
        energy: energy distance of its samples to the data, without the term of the data alone.
        usual: the lower of the energy distances for rho 7 and rho 90 over the whole range.
        samples: number of samples that the search drew.
    """

    levels: tuple[float, ...]
    energy: float
    usual: float
    samples: int


class Search:
    """Compare candidates in rounds, each with more samples and fewer candidates.

    Args:
        draw: function that samples with a schedule and seeds, and returns features ``[N, F]``.
        data: features of the data, ``[M, F]``.
        steps: number of solver steps.
    """

    def __init__(self, draw: Callable[[Schedule, range], Tensor], data: Tensor, steps: int) -> None:
        self._draw = draw
        self._data = data
        self._steps = steps
        self._features: dict[tuple[float, ...], list[Tensor]] = {}
        self._errors: dict[tuple[float, ...], DataError] = {}

    def run(self, lowest: float, highest: float) -> Best:
        """Return the best levels in a range.

        Raises:
            DataError: no candidate gives finite samples.
        """
        candidates = grid(lowest, highest)
        usual = candidates[:2]
        kept = self._rank(candidates, FIRST_SAMPLES)[:FIRST_KEPT]
        first = self._rank(kept, SECOND_SAMPLES)[0]
        kept = self._rank({*kept, *first.neighbors(lowest, highest)}, SECOND_SAMPLES)[:SECOND_KEPT]
        final = self._rank([*kept, *usual], FINAL_SAMPLES)
        if (error := self._errors.get(final[0].levels(self._steps))) is not None:
            raise error
        energies = [self._energy(c, FINAL_SAMPLES) for c in (final[0], *usual)]
        samples = sum(len(part) for parts in self._features.values() for part in parts)
        return Best(final[0].levels(self._steps), energies[0], min(energies[1:]), samples)

    def _rank(self, candidates: Iterable[Candidate], count: int) -> list[Candidate]:
        """Sort candidates by the energy distance of their first samples, best first."""
        # Ties, as with steps = 1, are broken by the parameters: set order differs between runs.
        return sorted(
            set(candidates),
            key=lambda c: (self._energy(c, count), c.sigma_max, c.sigma_min, c.power),
        )

    def _energy(self, candidate: Candidate, count: int) -> float:
        """Return the energy distance of a candidate's first samples; infinity if it is invalid."""
        levels = candidate.levels(self._steps)
        if levels in self._errors:
            return math.inf
        parts = self._features.setdefault(levels, [])
        drawn = sum(map(len, parts))
        if drawn < count:
            try:
                parts.append(self._draw(KnownLevels.of(levels), range(drawn, count)))
            except DataError as error:  # the network rounds two levels to one, or samples overflow
                self._errors[levels] = error
                return math.inf
        return energy(torch.cat(parts)[:count], self._data)
