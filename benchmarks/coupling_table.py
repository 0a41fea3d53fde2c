"""Measure the effect of couplings on the start of sampling, and print a table.

    python benchmarks/coupling_table.py --images cifar10.npz

The file contains the arrays `images`, uint8 [N, H, W, C] or [N, C, H, W], and `labels`, [N]. The
couplers minimize the cost of the EDM-AOT paper, the Euclidean distance. In every epoch all images are
coupled with new noise, so more epochs reduce the standard errors. The last row is the standard error
of a correlation.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genkit.artifacts import CouplingStatistics
from genkit.independent import Random
from genkit.interfaces import Coupler
from genkit.parts.no_stages import NoStages
from genkit.random import generator
from genkit.train.coupling import coupling_statistics
from genkit.train.pairing import PairStream
from genkit.types import Batch
from genkit_aot.hungarian import Hungarian
from genkit_aot.partitioned import Partitioned
from genkit_data.npz import NPZ

SIGMA_MAX = 80.0
COUPLINGS: dict[str, tuple[Coupler, int]] = {
    "random": (Random(), 512),
    "pool 128": (Hungarian(), 128),
    "pool 512": (Hungarian(), 512),
    "pool 2,048": (Hungarian(), 2048),
    "2,048 by class": (Partitioned(by=("label",)), 2048),
}


def main() -> None:
    """Measure the couplings and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = NPZ(path=str(options.images)).load(NoStages())
    columns = {
        name: figures(measure(data, coupler, pool, options.epochs, options.seed))
        for name, (coupler, pool) in COUPLINGS.items()
    }
    if options.json:
        print(json.dumps(columns, indent=2))
        return
    print(f"| {len(data):,} images, {options.epochs} epochs | {' | '.join(columns)} |")
    print(f"|---|{'--:|' * len(columns)}")
    for row in next(iter(columns.values())):
        print(f"| {row} | {' | '.join(f'{column[row]:.4g}' for column in columns.values())} |")


def measure(data: Batch, coupler: Coupler, pool: int, epochs: int, seed: int) -> CouplingStatistics:
    """Return the statistics of a coupling over a number of epochs."""
    stream = PairStream(
        data=data,
        coupler=coupler,
        bound=coupler.bind(NoStages()),
        augmentation=None,
        pool_size=pool,
        total=epochs * len(data),
        generator=partial(generator, seed, "table"),
    )
    (pairs,) = list(stream.batches(stream.total))
    batch, noise, pools = pairs
    return coupling_statistics(batch.data, noise, len(pools))


def figures(statistics: CouplingStatistics) -> dict[str, Any]:
    """Return a column of the table: a dict from the label of a row to its value."""
    s, c = np.array(statistics.deviations), np.array(statistics.covariances)
    spread = np.array(statistics.spread(SIGMA_MAX))
    # At an infinite noise level, the denoised image is the linear prediction from the noise, C n.
    from_infinity = np.square(s * (1 - (SIGMA_MAX + c) / spread)).sum()
    return {
        "standard deviation of the images along the first direction": s[0],
        "correlation of image and noise along the first direction": statistics.correlations[0],
        "standard deviation of x / sigma at sigma 80 along the first direction": spread[0]
        / SIGMA_MAX,
        "standard deviation of samples divided by that of the images, start N(0, 80^2)": statistics.spread_of_samples(
            SIGMA_MAX
        )[0],
        "the same, corrected start": statistics.spread_of_samples(SIGMA_MAX, 1)[0],
        "the same, start corrected twice": statistics.spread_of_samples(SIGMA_MAX, 2)[0],
        "Fréchet distance in pixels caused by the start N(0, 80^2)": statistics.frechet_of_start(
            SIGMA_MAX
        ),
        "the same, corrected start, D at sigma 80": statistics.frechet_of_start(SIGMA_MAX, 1),
        "the same, start corrected twice (D at sigma 80)": statistics.frechet_of_start(
            SIGMA_MAX, 2
        ),
        "the same, corrected start, D at an infinite sigma": from_infinity,
        "share of the variance of the images that the noise predicts": statistics.share_from_noise,
        "lowest sigma_max with an error of at most 2 %, start N(0, sigma_max^2)": statistics.lowest_sigma_max(),
        "lowest sigma_max with an error of at most 2 %, corrected start": statistics.lowest_sigma_max(
            1
        ),
        "lowest sigma_max with an error of at most 2 %, start corrected twice": statistics.lowest_sigma_max(
            2
        ),
        "standard error of a correlation": statistics.pairs**-0.5,
    }


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
