"""Define declarations and statistics of a coupling, which are stored with trained networks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from genkit.errors import Code, UsageError


@dataclass(frozen=True)
class CouplingStatistics:
    """Second moments of paired images y and noise n along principal directions of the images.

    They determine the optimal linear denoiser of ``x = y + sigma n`` and its probability-flow ODE,
    which keeps ``x_k / sqrt(Var x_k(sigma))`` constant along each direction k. They therefore
    predict how a start at a finite noise level affects the samples, in the unit of the images.

    Attributes:
        pairs: number of measured pairs.
        pools: number of pools from which these pairs come.
        deviations: standard deviations s_k > 0 of the images along at most 64 directions, in
            decreasing order.
        covariances: ``C_k = Cov(y_k, n_k)`` for each direction; 0 for independent noise.
        variance: sum of the variances of all d values of an image.
        covariance: mean of ``Cov(y_i, n_i)`` over the d values: ``E<y - E y, n> / d``.
    """

    pairs: int
    pools: int
    deviations: tuple[float, ...]
    covariances: tuple[float, ...]
    variance: float
    covariance: float

    def __post_init__(self) -> None:
        numbers = [*self.deviations, *self.covariances, self.variance, self.covariance]
        if (
            len(self.deviations) != len(self.covariances)
            or not all(map(math.isfinite, numbers))
            or not all(deviation > 0 for deviation in self.deviations)
        ):
            raise ValueError(
                "statistics of a coupling must be finite, with deviations above 0 and one "
                f"covariance for each, got {self}"
            )

    @classmethod
    def parsed(cls, values: Mapping[str, Any]) -> CouplingStatistics:
        """Return the statistics from a dict that :meth:`Coupling.table` returned.

        Raises:
            KeyError, TypeError, ValueError: the dict has a different content.
        """
        return cls(
            pairs=int(values["pairs"]),
            pools=int(values["pools"]),
            deviations=tuple(map(float, values["deviations"])),
            covariances=tuple(map(float, values["covariances"])),
            variance=float(values["variance"]),
            covariance=float(values["covariance"]),
        )

    @property
    def correlations(self) -> tuple[float, ...]:
        """Correlation of image and noise along each direction, in [-1, 1]."""
        return tuple(c / s for s, c in zip(self.deviations, self.covariances, strict=True))

    @property
    def share_from_noise(self) -> float:
        """Share of the images' variance that a linear function of the noise predicts, in [0, 1].

        Only the prediction of y_k from n_k of the same direction is counted.
        """
        return sum(c * c for c in self.covariances) / self.variance if self.variance else 0.0

    def spread(self, sigma: float) -> tuple[float, ...]:
        """Return the standard deviation of ``x = y + sigma n`` along each direction.

        Args:
            sigma: noise level, above 0.

        Raises:
            UsageError: the noise level is not above 0.
        """
        s, c = self._arrays(sigma)
        return tuple(_root(s**2 + 2 * sigma * c + sigma**2).tolist())

    def spread_of_samples(self, sigma_max: float, corrections: int = 0) -> tuple[float, ...]:
        """Return the standard deviation of samples divided by that of images, for each direction.

        The samples result from the linear denoiser and the exact probability-flow ODE from
        ``sigma_max`` to 0, so that only the start makes the ratios differ from 1.

        Args:
            sigma_max: noise level of the start, above 0.
            corrections: number of corrections of the start: 0 for ``sigma_max n``; each correction
                replaces a start x by ``sigma_max n + D(x; sigma_max)``.

        Raises:
            UsageError: the noise level is not above 0.

        Example:
            >>> pairs = CouplingStatistics(8192, 16, (15.0,), (12.0,), 700.0, 0.025)
            >>> [round(pairs.spread_of_samples(80.0, k)[0], 3) for k in (0, 1, 2)]
            [0.865, 0.985, 1.002]
        """
        s, c = self._arrays(sigma_max)
        variance = s**2 + 2 * sigma_max * c + sigma_max**2
        start = np.full_like(s, sigma_max)
        slope = _over(s**2 + sigma_max * c, variance)  # D(x; sigma) = E[y | x] = slope x
        for _ in range(corrections):
            start = sigma_max + slope * start
        return tuple(np.abs(_over(start, _root(variance))).tolist())

    def frechet_of_start(self, sigma_max: float, corrections: int = 0) -> float:
        """Return the contribution of the start to the Fréchet distance over pixels.

        It is ``sum_k (s_k - s_k r_k)^2`` with the ratios r of :meth:`spread_of_samples`, for
        Gaussians with equal means and principal directions.

        Args:
            sigma_max: noise level of the start, above 0.
            corrections: as for :meth:`spread_of_samples`.

        Raises:
            UsageError: the noise level is not above 0.
        """
        ratios = np.array(self.spread_of_samples(sigma_max, corrections))
        return float(np.square(np.array(self.deviations) * (1 - ratios)).sum())

    def lowest_sigma_max(self, corrections: int = 0, *, tolerance: float = 0.02) -> float:
        """Return the min ``sigma_max`` at which the error of the start is within a tolerance.

        Args:
            corrections: as for :meth:`spread_of_samples`.
            tolerance: max distance of the ratios of :meth:`spread_of_samples` from 1, in (0, 1).

        Returns:
            Min noise level such that, at all higher levels, all ratios are within the tolerance; 0
            if they are within it at every level.

        Raises:
            UsageError: the tolerance is not in (0, 1).
        """
        if not 0 < tolerance < 1:
            raise UsageError(
                f"tolerance must be above 0 and below 1, got {tolerance:g}; write, for example, "
                "0.02",
                Code.OUT_OF_RANGE,
            )
        lowest = 0.0
        for s, rho in zip(self.deviations, self.correlations, strict=True):
            # In u = s / sigma, the variance of x / sigma is q(u), and the start divided by sigma n
            # is p(u) / q(u)^corrections. A squared ratio is therefore p^2 / q^(2 corrections + 1).
            q, p = Polynomial([1, 2 * rho, 1]), Polynomial([1])
            for power in range(1, corrections + 1):
                p = q**power + Polynomial([0, rho, 1]) * p
            for limit in (1 - tolerance, 1 + tolerance):
                roots = (p**2 - limit**2 * q ** (2 * corrections + 1)).roots()
                real = roots.real[np.abs(roots.imag) <= 1e-9 * np.abs(roots)]
                # Roots are s / sigma, so the smallest is the highest level that reaches the limit.
                lowest = max([lowest, *(s / real[real > 0])])
        return float(lowest)

    def _arrays(self, sigma: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return deviations and covariances; raise UsageError for an invalid noise level."""
        if not 0 < sigma < math.inf:
            raise UsageError(
                f"sigma must be a finite noise level above 0, got {sigma:g}; write, for example, "
                "80",
                Code.OUT_OF_RANGE,
            )
        return np.array(self.deviations), np.array(self.covariances)


@dataclass(frozen=True)
class Coupling:
    """Declarations of the coupler that was used in training; see the interface ``Coupler``.

    Attributes:
        bijective: whether every image and every noise sample of a pool is used exactly once.
        preserves_noise_marginal: whether the paired noise is N(0, I) over many pools.
        preserves_conditional_prior: names of the attributes of a batch given which the paired
            noise is N(0, I).
        independent: whether noise and data are independent.
        preserves_score: whether ``(D(x; sigma) - x) / sigma^2`` is the score function.
        statistics: statistics of the first training pairs; None if they were not measured, as for
            independent noise.
    """

    bijective: bool
    preserves_noise_marginal: bool
    preserves_conditional_prior: tuple[str, ...]
    independent: bool
    preserves_score: bool
    statistics: CouplingStatistics | None = None

    def table(self) -> dict[str, Any]:
        """Return the values for JSON, without statistics that were not measured."""
        return {name: v for name, v in dataclasses.asdict(self).items() if v is not None}

    @classmethod
    def parsed(cls, values: Mapping[str, Any]) -> Coupling | None:
        """Return the coupling from a dict that :meth:`table` returned.

        Returns:
            The coupling; None for a dict of an earlier version, which lacks ``independent``.

        Raises:
            KeyError, TypeError, ValueError: the dict has a different content.
        """
        if isinstance(values, dict) and "independent" not in values:
            return None
        statistics = values.get("statistics")
        names = ("realness" if a == "sources" else a for a in values["preserves_conditional_prior"])
        parts = {
            "preserves_conditional_prior": tuple(names),  # earlier versions wrote "sources"
            "statistics": None if statistics is None else CouplingStatistics.parsed(statistics),
        }
        return cls(**{**values, **parts})


def _root(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard deviations for variances, which rounding may have made negative."""
    return np.sqrt(np.maximum(variance, 0.0))


def _over(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``a / b``; infinite where images and noise cancel, so that the variance of x is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(a, b)
