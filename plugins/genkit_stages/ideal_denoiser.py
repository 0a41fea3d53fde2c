"""The best denoiser of a finite data set, and the loss that it has: none can have a lower one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from genkit.interfaces import Objective, Preconditioner
from genkit.tensors import as_column
from genkit.train.by_quantile import BINS, LossByQuantile
from genkit.types import Batch
from genkit.world import SINGLE_PROCESS

_MOST_DRAWS = 2**15
"""With 1,024 draws in a bin, the standard error of a mean is about 3 % of it."""

_FEWEST_DRAWS = 16 * BINS

_MOST_PRODUCTS = 2**33
"""Draws times values of the data set, with what weights cost; 1 to 2 s on one core."""

_EXPONENTIAL = 128
"""Values of an item whose products take as long as the exponential in its weight: measured with
vectors of 2 values and images of 3,072."""

_BLOCK = 2**20
"""Weights that are held at a time, in float64."""


class IdealDenoiser(nn.Module):
    """The mean of the images given a noisy one, for independent noise and a finite data set.

    ``D(x; sigma) = sum_i w_i y_i`` with ``w = softmax(-|x - y_i|^2 / (2 sigma^2))`` (EDM, arXiv
    2206.00364, appendix B.3).

    Args:
        data: ``[N, *shape]`` all items, each equally likely.
        labels: ``[N]`` class of each, where the mean is that given the class too; else None.
        preconditioner: preconditioner of the network in training, for the weight of the loss.
    """

    def __init__(self, data: Tensor, labels: Tensor | None, preconditioner: Preconditioner) -> None:
        super().__init__()
        items = data.flatten(1).double()
        self._mean = items.mean(0)
        # Less their mean, so that the products below cancel as little as can be.
        self._items = items - self._mean
        self._half_squares = self._items.square().sum(1) / 2
        self._labels = labels
        self.preconditioner = preconditioner

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the denoised ``x``.

        Args:
            x: ``[B, *shape]`` noisy data.
            sigma: ``[B]`` noise levels, above 0.
            labels: ``[B]`` class indices, which are used where the items have labels.
        """
        centered = x.flatten(1).double() - self._mean
        # |x - y|^2 less |x|^2, which is the same for all y.
        logits = centered @ self._items.T - self._half_squares
        logits /= as_column(sigma.double().square(), logits)
        if self._labels is not None and labels is not None:
            logits.masked_fill_(labels[:, None] != self._labels, -torch.inf)
        mean = logits.softmax(1) @ self._items + self._mean
        return mean.to(x.dtype).reshape(x.shape)


def draws_for(count: int, values: int, images: int) -> int:
    """Return with how many draws the lowest loss is estimated; 0 where it would take too long.

    They are no more than those of the training, whose own means have the same sampling error.

    Args:
        count: items of the data set.
        values: values of an item.
        images: images of the training.
    """
    most = min(_MOST_DRAWS, images, _MOST_PRODUCTS // (count * (values + _EXPONENTIAL)))
    return most // BINS * BINS if most >= _FEWEST_DRAWS else 0


def ideal_losses(
    objective: Objective,
    denoiser: IdealDenoiser,
    data: Batch,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Return sums and numbers of losses as :meth:`LossByQuantile.sums` does: ``[2, BINS]``.

    Args:
        objective: objective that ``estimates_mean``.
        denoiser: ideal denoiser of the data.
        data: ``[N]`` all items.
        draws: number of draws, evenly spaced over the noise distribution.
        generator: generator of the items and the noise.
    """
    rounds = [torch.randperm(len(data), generator=generator) for _ in range(-(-draws // len(data)))]
    items = torch.cat(rounds)[:draws]
    quantile = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    losses = LossByQuantile(torch.device("cpu"), SINGLE_PROCESS)
    block = max(1, _BLOCK // len(data))
    with torch.no_grad():
        parts = torch.split(items, block), torch.split(quantile, block)
        for some, where in zip(*parts, strict=True):
            noise = torch.randn((len(some), *data.data.shape[1:]), generator=generator)
            batch = replace(data[some], quantile=where)
            losses.add(where, objective.loss(denoiser, batch, noise, generator))
    return losses.sums()
