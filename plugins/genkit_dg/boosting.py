"""Boosting: more noise and stronger guidance for samples that are classified as generated."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from genkit.tensors import as_column
from genkit_dg.bound import BoundDiscriminator

CHURN = 4.0
CHURN_PERIOD = 5
"""Steps between additions of fresh noise to samples whose last log-ratio was below 0."""

FACTOR = 2.0
FACTOR_PERIOD = 2
"""Steps between multiplications of the first correction of samples with a log-ratio below 0."""


class BoostedDiscriminator(BoundDiscriminator):
    """Discriminator guidance with boosting, which keeps the last log-ratio of each sample."""

    _step = -1
    _log_ratio: Tensor | None = None

    def begin(self) -> Self:
        begun = copy.copy(self)
        begun._step, begun._log_ratio = -1, None
        return begun

    def churn(self, x: Tensor, amount: float | Tensor) -> Tensor:
        self._step += 1
        before, self._log_ratio = self._log_ratio, None
        # One for each sample in every step, so that noise is drawn in every step, as published.
        amounts = x.new_zeros(len(x)) + amount
        if before is None or self._step % CHURN_PERIOD:
            return amounts
        return torch.where(before < 0, CHURN, amounts)

    def _corrected(self, log_ratio: Tensor, correction: Tensor, *, inner: bool) -> Tensor:
        if inner:
            return correction
        self._log_ratio = log_ratio
        if self._step % FACTOR_PERIOD:
            return correction
        looks_generated = as_column(log_ratio < 0, correction)
        return torch.where(looks_generated, FACTOR * correction, correction)
