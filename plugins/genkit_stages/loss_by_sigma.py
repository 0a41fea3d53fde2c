"""The training loss by noise level, and its lower bound where that is known."""

from __future__ import annotations

import torch
from torch import Tensor

from genkit.interfaces import Denoiser, Network, Objective
from genkit.tensors import to_float
from genkit.train.by_quantile import BINS
from genkit.train.coupling import declarations_of
from genkit.train.pairing import PairStream
from genkit_stages.ideal_denoiser import IdealDenoiser, draws_for, ideal_losses

ROWS = 16
"""Maximum rows of a training. The plot compares the first quarter of them with the last."""


def by_sigma(objective: Objective, sums: Tensor) -> dict[str, float]:
    """Return the mean loss of the bins that are not empty, by their median noise levels.

    Bins of equal levels are joined, as for a preconditioner with a table of few levels. Numbers
    have six digits.

    Args:
        objective: objective that computed the losses.
        sums: sums and counts of the losses in each bin, ``[2, BINS]``.

    Returns:
        Mean losses; empty where the objective has no noise levels.
    """
    levels = objective.noise_levels((torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS)
    if levels is None:
        return {}
    joined: dict[str, tuple[float, float]] = {}
    for level, (loss, count) in zip(levels.tolist(), sums.T.tolist(), strict=True):
        others, counted = joined.get(f"{level:.4g}", (0.0, 0.0))
        joined[f"{level:.4g}"] = others + loss, counted + count
    return {level: float(f"{loss / count:.6g}") for level, (loss, count) in joined.items() if count}


def bound_by_sigma(
    network: Network,
    objective: Objective,
    stream: PairStream,
    generator: torch.Generator,
) -> dict[str, float]:
    """Return an estimate of the lowest possible loss by noise level, as :func:`by_sigma` does.

    It is known for a small data set with independent noise: the loss of the posterior mean. There
    is no closed form for assigned noise. Augmentation adds items to the data set, and a coupler
    that is not bijective may use some items more often than others.

    Args:
        network: network in training.
        objective: objective in training.
        stream: pairs to train on.
        generator: generator of items and noise.

    Returns:
        Losses; empty where the bound is not known, or would take more than seconds to estimate.
    """
    coupling, data = declarations_of(stream.coupler), stream.data
    as_drawn = coupling.independent and coupling.bijective and stream.augmentation is None
    exact = objective.estimates_mean and not objective.conditions
    if not (isinstance(network, Denoiser) and exact and as_drawn):
        return {}
    draws = draws_for(len(data), data.data[0].numel(), stream.total)
    if not draws:
        return {}
    items = data.with_data(to_float(data.data))
    labels = items.labels if network.class_conditional else None
    ideal = IdealDenoiser(items.data, labels, network.preconditioner)
    return by_sigma(objective, ideal_losses(objective, ideal, items, draws, generator))
