"""The fitted weight of discriminator guidance at each noise level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from genkit.artifacts import Artifact
from genkit.errors import Code, DataError
from genkit.files import read_json, write_json
from genkit.interfaces import Trained
from genkit.settings import Ref


@dataclass(frozen=True)
class FittedWeight(Artifact):
    """The weights w*(sigma) that minimize the denoising error, see :mod:`genkit_dg.fit_weight`.

    Attributes:
        sigmas: noise levels, increasing.
        weights: fitted weight at each level.
        standard_errors: standard error of each weight.
        error_at_one: denoising error with weight 1, relative to the error without guidance.
        error_fitted: denoising error with the fitted weight, relative to the error without
            guidance.
        denoiser: digest of the denoiser, see :func:`genkit.tensors.network_digest`.
        discriminator: digest of the discriminator.
    """

    name = "weight"
    suffix = ".json"

    sigmas: Sequence[float]
    weights: Sequence[float]
    standard_errors: Sequence[float]
    error_at_one: Sequence[float]
    error_fitted: Sequence[float]
    denoiser: str
    discriminator: str

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> FittedWeight:
        try:
            fit = cls(**read_json(path))
            numbers = [fit.sigmas, fit.weights, fit.standard_errors]
            numbers += [fit.error_at_one, fit.error_fitted]
            lengths = {len(torch.tensor(values, dtype=torch.float64)) for values in numbers}
        except (OSError, TypeError, ValueError) as error:
            raise cls._unreadable(path, str(error)) from error
        increasing = all(0 < low < high for low, high in pairwise([*fit.sigmas]))
        if len(lengths) != 1 or not fit.sigmas or not increasing:
            raise cls._unreadable(path, "its noise levels do not increase, or weights are missing")
        return fit

    @staticmethod
    def _unreadable(path: Path, reason: str) -> DataError:
        return DataError(
            f"{path} must be a file of fitted weights, but is missing or corrupt: {reason}; "
            "run the stage fit-weight again",
            Code.UNREADABLE,
        )

    def on(self, device: torch.device) -> WeightCurve:
        """Return the weight as a function of the noise level, on a device."""
        log_sigmas = torch.tensor(self.sigmas, dtype=torch.float64).log()
        # A single level is duplicated, since interpolation needs two.
        levels, weights = log_sigmas.float(), torch.tensor(self.weights).clamp(min=0)
        if len(levels) == 1:
            levels, weights = levels.repeat(2), weights.repeat(2)
        return WeightCurve(levels.to(device), weights.to(device))

    def require(self, discriminator: Trained, denoiser: Trained) -> None:
        """Check that the networks are those to which the weight was fitted.

        Raises:
            DataError: a network differs.
        """
        networks = {
            "discriminator": (self.discriminator, discriminator),
            "denoiser": (self.denoiser, denoiser),
        }
        for what, (digest, network) in networks.items():
            if network.digest != digest:
                raise DataError(
                    f"weight_by must be fitted to the {what} in use, got a different one; "
                    f"run a stage fit-weight for this {what}",
                    Code.CONFLICT,
                )


@dataclass(frozen=True)
class WeightCurve:
    """A weight as a function of the noise level.

    It is linear in log sigma between the levels, and 0 outside their range.

    Attributes:
        levels: ``[L]`` log noise levels, increasing, at least two.
        weights: ``[L]`` nonnegative weights at these levels.
    """

    levels: Tensor
    weights: Tensor

    def __call__(self, sigma: Tensor) -> Tensor:
        """Return the weights at noise levels of any shape."""
        level = sigma.float().log()
        right = torch.searchsorted(self.levels, level.contiguous()).clamp(1, len(self.levels) - 1)
        low, high = self.levels[right - 1], self.levels[right]
        share = ((level - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        weight = torch.lerp(self.weights[right - 1], self.weights[right], share)
        # With a tolerance, so that rounding does not exclude the first and the last level.
        inside = (level >= self.levels[0] - 1e-4) & (level <= self.levels[-1] + 1e-4)
        return torch.where(inside, weight, 0).to(sigma.dtype)


FittedWeightRef = Annotated[str, Ref(FittedWeight)]
"""Id of an earlier stage that fits the weight of a discriminator."""
