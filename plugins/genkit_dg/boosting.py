"""Boosting: more noise and stronger guidance for samples that are classified as generated.

The constants are those of the published sampler.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from genkit.tensors import as_column
from genkit_dg.bound import BoundDiscriminator

CHURN = 4.0
"""``s_churn`` of samples whose last log-ratio was below 0, that is, classified as generated."""

CHURN_PERIOD = 5
"""Number of steps from one addition of noise by ``CHURN`` to the next."""

FACTOR = 2.0
"""Factor of the first correction in a step for samples with a log-ratio below 0."""

FACTOR_PERIOD = 2
"""Number of steps from one multiplication by ``FACTOR`` to the next."""


class BoostedDiscriminator(BoundDiscriminator):
    """Discriminator guidance with boosting. Its state is the last log-ratio of each sample."""

    _step = -1
    _log_ratio: Tensor | None = None

    def begin(self) -> Self:
        fresh = copy.copy(self)
        fresh._step, fresh._log_ratio = -1, None
        return fresh

    def churn(self, x: Tensor, amount: float | Tensor) -> Tensor:
        self._step += 1
        previous, self._log_ratio = self._log_ratio, None
        # Always a tensor, even if s_churn is 0 for all: the solver then draws noise in every step,
        # like the published sampler.
        amounts = x.new_zeros(len(x)) + amount
        if previous is None or self._step % CHURN_PERIOD:
            return amounts
        return torch.where(previous < 0, CHURN, amounts)

    def _boost(
        self, log_ratio: Tensor, sigma: Tensor, correction: Tensor, *, inner: bool
    ) -> Tensor:
        if inner:
            return correction
        # Samples outside the interval are evaluated only if others are inside; they get no noise.
        self._log_ratio = torch.where(self.acts_at(sigma), log_ratio, torch.inf)
        if self._step % FACTOR_PERIOD:
            return correction
        classified_fake = as_column(log_ratio < 0, correction)
        return torch.where(classified_fake, FACTOR * correction, correction)
