"""The optimal denoiser of a finite data set, and its loss, the lower bound of all losses."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from genkit.interfaces import Objective, Preconditioner
from genkit.tensors import as_column
from genkit.train.by_quantile import BINS, LossByQuantile
from genkit.types import Batch
from genkit.world import SINGLE_PROCESS

_MAX_DRAWS = 2**15
"""Maximum number of draws: 1,024 per bin, for a standard error of about 3 % of a mean loss."""

_MIN_DRAWS = 16 * BINS  # 16 draws per bin; chosen, not tuned

_MAX_PRODUCTS = 2**33
"""Limit of the work, number of draws x number of items x cost of an item: 1 to 2 s on one core."""

_EXPONENTIAL = 128
"""Time for the exponential in an item's weight, divided by the time per value of the item.
Measured with vectors of 2 values and images of 3,072."""

_BLOCK = 2**20
"""Number of weights in memory at a time, in float64: 8 MiB; chosen, not tuned."""


class IdealDenoiser(nn.Module):
    """Return the posterior mean of images, for independent noise and a finite data set.

    ``D(x; sigma) = sum_i w_i y_i`` with ``w = softmax(-|x - y_i|^2 / (2 sigma^2))`` (EDM, arXiv
    2206.00364, appendix B.3).

    Args:
        data: all items, ``[N, *shape]``, each equally likely.
        labels: classes ``[N]`` if the mean is conditioned on the class, otherwise None.
        preconditioner: preconditioner of the network in training, for the weight of the loss.
    """

    def __init__(self, data: Tensor, labels: Tensor | None, preconditioner: Preconditioner) -> None:
        super().__init__()
        items = data.flatten(1).double()
        self._mean = items.mean(0)
        # Centered, which reduces cancellation in the products below.
        self._items = items - self._mean
        self._half_squares = self._items.square().sum(1) / 2
        self._labels = labels
        self.preconditioner = preconditioner

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the denoised ``x``.

        Args:
            x: noisy data, ``[B, *shape]``.
            sigma: noise levels above 0, ``[B]``.
            labels: class indices ``[B]``; ignored if the items have no labels.
        """
        centered = x.flatten(1).double() - self._mean
        # -(|x - y|^2 - |x|^2) / 2: |x|^2 is the same for all y, and softmax ignores it.
        logits = centered @ self._items.T - self._half_squares
        logits /= as_column(sigma.double().square(), logits)
        if self._labels is not None and labels is not None:
            logits.masked_fill_(labels[:, None] != self._labels, -torch.inf)
        mean = logits.softmax(1) @ self._items + self._mean
        return mean.to(x.dtype).reshape(x.shape)


def draws_for(count: int, values: int, images: int) -> int:
    """Return the number of draws for estimating the lowest loss; 0 if this would take too long.

    The number is at most the number of training images: with more draws, the difference between the
    training loss and the estimate would hardly be more accurate.

    Args:
        count: number of items of the data set.
        values: number of values of an item.
        images: number of training images.
    """
    limit = min(_MAX_DRAWS, images, _MAX_PRODUCTS // (count * (values + _EXPONENTIAL)))
    return limit // BINS * BINS if limit >= _MIN_DRAWS else 0


def ideal_losses(
    objective: Objective,
    denoiser: IdealDenoiser,
    data: Batch,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the sums and counts of the losses in each bin of noise levels, ``[2, BINS]``.

    The format is that of :meth:`LossByQuantile.sums`.

    Args:
        objective: objective that declares ``estimates_mean``.
        denoiser: ideal denoiser of the data.
        data: all ``N`` items.
        draws: number of draws, evenly spaced over the quantiles of the noise distribution.
        generator: random generator that draws the items and the noise.
    """
    rounds = [torch.randperm(len(data), generator=generator) for _ in range(-(-draws // len(data)))]
    items = torch.cat(rounds)[:draws]
    quantile = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    losses = LossByQuantile(torch.device("cpu"), SINGLE_PROCESS)
    block = max(1, _BLOCK // len(data))
    with torch.no_grad():
        parts = torch.split(items, block), torch.split(quantile, block)
        for indices, quantiles in zip(*parts, strict=True):
            noise = torch.randn((len(indices), *data.data.shape[1:]), generator=generator)
            batch = replace(data[indices], quantile=quantiles)
            losses.add(quantiles, objective.loss(denoiser, batch, noise, generator))
    return losses.sums()
