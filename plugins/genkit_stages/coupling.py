"""Coupling recorded with a trained network: declarations, and statistics of its first pairs."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from genkit.artifacts import Coupling, CouplingStatistics
from genkit.interfaces import Context, Denoiser, Network
from genkit.train.coupling import (
    FEWEST_PAIRS,
    coupling_statistics,
    declarations_of,
    pairs_to_measure,
)
from genkit.train.pairing import PairStream


def coupling_of(network: Network, context: Context, stream: PairStream, ahead: int) -> Coupling:
    """Return the declarations of a coupler, with statistics of its first pairs.

    Collective. Pairs are measured only for denoisers, and only if the noise is not independent of
    the images. The result depends on the stream alone, so neither resuming nor the number of
    processes changes it.

    Args:
        network: network in training.
        context: context of the stage.
        stream: pairs to train on.
        ahead: number of pools that are coupled at the same time.
    """
    coupler = stream.coupler
    measured = isinstance(network, Denoiser) and not coupler.independent
    coupling = declarations_of(coupler)
    return replace(coupling, statistics=_measure(context, stream, ahead)) if measured else coupling


def _measure(context: Context, stream: PairStream, ahead: int) -> CouplingStatistics | None:
    """Return the statistics of the first pairs; if these are too few, warn and return None."""
    count = pairs_to_measure(stream.data.data.shape[1:], stream.pool_size, stream.total)
    if count < FEWEST_PAIRS:
        context.warn(
            f"the pairs are not measured: images must be at least {FEWEST_PAIRS}, got {count}; "
            'samples of this denoiser will use start = "corrected"'
        )
        return None

    def measure() -> CouplingStatistics:
        with closing(stream.batches(count, 0, ahead)) as batches:
            batch, noise, pools = next(batches)
        return coupling_statistics(batch.data, noise, len(pools))

    return context.world.on_main(measure)
