"""The training loss at each noise level, and its lower bound if it is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genkit.interfaces import Denoiser, Network, Objective
from genkit.tensors import to_float
from genkit.train.by_quantile import BINS
from genkit.train.coupling import declarations_of
from genkit.train.pairing import PairStream
from genkit_stages.ideal_denoiser import IdealDenoiser, draws_for, ideal_losses

ROWS = 16
"""Maximum number of rows with losses by noise level; first and last quarter are plotted."""


def by_sigma(objective: Objective, sums: Tensor) -> dict[str, float]:
    """Return the mean loss of each nonempty bin, keyed by the median noise level of the bin.

    Bins with equal levels are joined; they occur if the preconditioner has a table of few levels.
    Losses are rounded to six digits, levels to four. A loss that is not finite is left out.

    Args:
        objective: objective that computed the losses.
        sums: sums and counts of the losses in each bin, ``[2, BINS]``.

    Returns:
        Dict from noise levels, as strings, to mean losses; empty if the objective has no noise
        levels.
    """
    levels = objective.noise_levels((torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS)
    if levels is None:
        return {}
    joined: dict[str, tuple[float, float]] = {}
    for level, (loss, count) in zip(levels.tolist(), sums.T.tolist(), strict=True):
        others, counted = joined.get(f"{level:.4g}", (0.0, 0.0))
        joined[f"{level:.4g}"] = others + loss, counted + count
    return {
        level: float(f"{loss / count:.6g}")
        for level, (loss, count) in joined.items()
        if count and math.isfinite(loss)
    }


def bound_by_sigma(
    network: Network,
    objective: Objective,
    stream: PairStream,
    generator: torch.Generator,
) -> dict[str, float]:
    """Return an estimate of the lowest possible loss at each noise level.

    For a small data set with independent noise, it is the loss of the posterior mean. With assigned
    noise it has no closed form. With augmentation the data set has more items, and with a coupler
    that is not bijective some items may be used more often than others. In these
    cases the result is empty.

    Args:
        network: network in training.
        objective: objective in training.
        stream: pairs to train on.
        generator: random generator that draws items and noise.

    Returns:
        Dict from noise levels, as strings, to losses; empty if the bound is not known or would take
        too long to estimate.
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
