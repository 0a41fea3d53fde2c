"""The weight of discriminator guidance by noise level, as it was fitted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from genkit.artifacts import Artifact
from genkit.errors import Code, DataError
from genkit.files import write_json
from genkit.settings import Ref
from genkit.tensors import network_digest


@dataclass(frozen=True)
class FittedWeight(Artifact):
    """The weights w*(sigma) that lower the denoising error most, see :mod:`genkit_dg.fit_weight`.

    Attributes:
        sigmas: noise levels, increasing.
        weights: fitted weight at each.
        standard_errors: standard error of each weight.
        error_at_one: denoising error with weight 1, relative to that without guidance.
        error_fitted: denoising error with the fitted weight, likewise.
        denoiser: digest of the weights of the denoiser, see :func:`genkit.tensors.network_digest`.
        discriminator: digest of those of the discriminator.
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
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
            numbers = [found.sigmas, found.weights, found.standard_errors]
            numbers += [found.error_at_one, found.error_fitted]
            lengths = {len(torch.tensor(values, dtype=torch.float64)) for values in numbers}
        except (OSError, TypeError, ValueError) as error:
            raise cls._damaged(path, str(error)) from error
        rises = all(0 < low < high for low, high in pairwise([*found.sigmas]))
        if len(lengths) != 1 or not found.sigmas or not rises:
            raise cls._damaged(path, "its noise levels do not increase, or have no weights")
        return found

    @staticmethod
    def _damaged(path: Path, reason: str) -> DataError:
        return DataError(
            f"{path} must be a file of fitted weights, and is missing or damaged: {reason}; run "
            "the stage fit-weight again",
            Code.UNREADABLE,
        )

    def on(self, device: torch.device) -> WeightCurve:
        """Return the weight as a function of the noise level, on a device."""
        known = torch.tensor(self.sigmas, dtype=torch.float64).log()
        # A single level is a curve of two equal ones.
        levels, weights = known.float(), torch.tensor(self.weights).clamp(min=0)
        if len(levels) == 1:
            levels, weights = levels.repeat(2), weights.repeat(2)
        return WeightCurve(levels.to(device), weights.to(device))

    def require(self, discriminator: nn.Module, denoiser: nn.Module) -> None:
        """Require the networks to which the weight was fitted.

        Raises:
            DataError: one is another.
        """
        wanted = {
            "discriminator": (self.discriminator, discriminator),
            "denoiser": (self.denoiser, denoiser),
        }
        for what, (fitted, network) in wanted.items():
            if network_digest(network) != fitted:
                raise DataError(
                    f"weight_by must be fitted to the {what} in use, got a fit to another; fit it "
                    "with a stage fit-weight",
                    Code.CONFLICT,
                )


@dataclass(frozen=True)
class WeightCurve:
    """Weights by noise level: linear in log sigma, 0 below the lowest and above the highest level.

    Attributes:
        levels: ``[L]`` logarithms of the noise levels, increasing, at least two.
        weights: ``[L]`` weight at each, at least 0.
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
        # Rounding must not leave out the levels at the ends.
        inside = (level >= self.levels[0] - 1e-4) & (level <= self.levels[-1] + 1e-4)
        return torch.where(inside, weight, 0).to(sigma.dtype)


FittedWeightRef = Annotated[str, Ref(FittedWeight)]
"""Id of an earlier stage that fits the weight of a discriminator."""
