"""Scores of a discriminator on held-out items, over all noise levels and in ranges of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 8
"""Number of ranges of noise levels, with equal numbers of items; chosen, not tuned."""

CONFIDENCES = 10
"""Number of ranges of probability for the calibration error, usually 10 (arXiv 1706.04599)."""


def number_items(data: Tensor) -> Tensor:
    """Return a number for each item ``[N]`` int64, the same for equal items only.

    Args:
        data: ``[N, *shape]`` items on the CPU.
    """
    numbers: dict[bytes, int] = {}
    digests = (hashlib.sha256(item.tobytes()).digest() for item in data.numpy())
    return torch.tensor([numbers.setdefault(digest, len(numbers)) for digest in digests])


def error_of_sum(deviations: Tensor, items: Tensor) -> float:
    """Return the standard error of a sum over draws of items.

    Draws of the same item with other noise are not independent, so their deviations are summed
    first. This is the cluster-robust standard error. It requires two different items.

    Args:
        deviations: ``[N]`` float64 deviations of the terms from their estimate.
        items: ``[N]`` number of the item of each draw, see :func:`number_items`.
    """
    counts = items.bincount()
    sums = deviations.new_zeros(len(counts)).index_add_(0, items, deviations)
    distinct = int((counts > 0).sum())
    correction = distinct / max(1, distinct - 1)
    return math.sqrt(correction * float(sums.square().sum()))


class HeldOutScores:
    """Scores of a discriminator on noisy items, one of which is minimal for the best snapshot."""

    criterion: ClassVar[str]
    """Name of the score that is minimal for the best snapshot."""

    standard_error: float
    """Standard error of the criterion."""

    @property
    def value(self) -> float:
        """Value of the criterion."""
        return float(getattr(self, self.criterion))

    def row(self) -> dict[str, Any]:
        """Return the scores, rounded to six digits, for ``metrics.jsonl``."""
        return {name: float(f"{value:.6g}") for name, value in vars(self).items()}


@dataclass(frozen=True)
class ObjectiveLoss(HeldOutScores):
    """Loss of a discriminator's own objective on noisy items.

    Attributes:
        loss: mean loss of an item.
        standard_error: standard error of the loss.
    """

    criterion = "loss"

    loss: float
    standard_error: float

    @classmethod
    def of(cls, losses: Tensor, items: Tensor) -> ObjectiveLoss:
        """Return the scores for losses ``[N]`` float64 of draws of numbered items ``[N]``."""
        mean = losses.mean()
        return cls(float(mean), error_of_sum(losses - mean, items) / len(losses))


@dataclass(frozen=True)
class Judgment(HeldOutScores):
    """Scores of a discriminator whose output is the log-ratio of densities, on noisy items.

    Attributes:
        cross_entropy: mean of -log(probability of the true source); ln 2 at chance level.
        standard_error: standard error of the cross-entropy.
        accuracy: share of correctly classified items.
        calibration_error: mean absolute difference of predicted probability and frequency of real
            items, over ranges of probability (arXiv 1706.04599, eq. 3).
    """

    criterion = "cross_entropy"

    cross_entropy: float
    standard_error: float
    accuracy: float
    calibration_error: float

    @classmethod
    def of(cls, logits: Tensor, realness: Tensor, items: Tensor) -> Judgment:
        """Return the scores.

        Args:
            logits: ``[N]`` float64.
            realness: ``[N]`` 1 for real and 0 for generated items.
            items: ``[N]`` number of the item of each draw, see :func:`number_items`.
        """
        real = realness.double()
        losses = F.binary_cross_entropy_with_logits(logits, real, reduction="none")
        probability = logits.sigmoid()
        place = (probability * CONFIDENCES).long().clamp(max=CONFIDENCES - 1)
        gaps = torch.zeros(CONFIDENCES, dtype=torch.float64)
        gaps.index_add_(0, place, probability - real)
        mean = losses.mean()
        return cls(
            float(mean),
            error_of_sum(losses - mean, items) / len(losses),
            float(((logits > 0) == (realness == 1)).double().mean()),
            float(gaps.abs().sum()) / len(losses),
        )

    @property
    def limit(self) -> float:
        """Cross-entropy at chance level, ln 2, minus 2 standard errors."""
        return math.log(2) - 2 * self.standard_error

    @property
    def is_chance(self) -> bool:
        """Whether the cross-entropy is at least :attr:`limit`, up to rounding."""
        return self.cross_entropy >= self.limit - 1e-9


def score_by_sigma(
    sigma: Tensor, score: Callable[[Tensor], HeldOutScores]
) -> list[tuple[float, HeldOutScores]]:
    """Return the scores in each range of noise levels, each with the median level of the range.

    Args:
        sigma: ``[N]`` noise levels of the items.
        score: function that returns the scores of the items with the given int64 indices.
    """
    # In parts of at least two items, since a standard error requires two.
    parts = sigma.argsort(stable=True).tensor_split(min(BINS, max(1, len(sigma) // 2)))
    return [(float(f"{float(sigma[part].median()):.4g}"), score(part)) for part in parts]


def describe_chance(judgment: Judgment) -> str:
    """Return the warning for a discriminator that is no better than chance on held-out items."""
    return (
        f"the held-out cross-entropy must be below {judgment.limit:.4f}, which is the value at "
        f"chance level, 0.6931, minus 2 standard errors, got {judgment.cross_entropy:.4f} +- "
        f"{judgment.standard_error:.4f}: guidance would only add noise; use more data, dropout or "
        "a smaller network"
    )
