"""Measure accuracy, time and memory of metrics, on synthetic features of the size of Inception's.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py frechet [--items 10000]
    OMP_NUM_THREADS=1 python benchmarks/metrics.py prdc [--items 20000]
    OMP_NUM_THREADS=1 python benchmarks/metrics.py nearest [--items 20000]
    OMP_NUM_THREADS=1 python benchmarks/metrics.py mifid [--items 20000]
    OMP_NUM_THREADS=1 python benchmarks/metrics.py kid

- frechet: the distance as computed by genkit, by torchmetrics, and by two independent methods in
  float64: ``scipy.linalg.sqrtm`` of the product of the covariances, and singular values of the product
  of the triangular factors of the features, which avoids squaring
- prdc, nearest, mifid, kid: the scores, and the memory in addition to the features; for mifid, only
  the cosine distance is computed

Times are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from genkit.artifacts.statistics import Statistics
from genkit.random import generator
from genkit_metrics.gaussians import frechet_distance
from genkit_metrics.kernels import polynomial_mmd
from genkit_metrics.memorization import mean_cosine_distance
from genkit_metrics.neighbors import manifold_scores, nearest

FEATURES = 2048


def features(items: int, name: str) -> Tensor:
    """Return features ``[items, 2048]`` float32, whose variances decrease from 1 to 1e-5."""
    g = generator(0, name)
    deviations = torch.arange(1, FEATURES + 1).pow(-0.75)
    basis, _ = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=g))
    return 0.4 + (torch.randn(items, FEATURES, generator=g) * deviations) @ basis


def sets(items: int) -> tuple[Tensor, Tensor]:
    """Return features of real items, and of samples with a similar distribution."""
    both = features(2 * items, "real")
    return both[:items], both[items:].mul_(0.98).add_(features(items, "fake"), alpha=0.02)


def by_sqrtm(real: Statistics, fake: Statistics) -> float:
    root = scipy.linalg.sqrtm(real.covariance.numpy() @ fake.covariance.numpy()).real
    trace = real.covariance.trace() + fake.covariance.trace() - 2 * np.trace(root)
    return float((real.mean - fake.mean).square().sum() + trace)


def by_factors(real: Tensor, fake: Tensor) -> float:
    factors, means = [], []
    for items in (real, fake):
        wide = items.double().numpy()
        means.append(wide.mean(0))
        centered = (wide - means[-1]) / np.sqrt(len(wide) - 1)
        factors.append(scipy.linalg.qr(centered, mode="r")[0][:FEATURES])
    overlap = scipy.linalg.svdvals(factors[0] @ factors[1].T).sum()
    traces = sum(np.square(factor).sum() for factor in factors)
    return float(np.square(means[0] - means[1]).sum() + traces - 2 * overlap)


def by_torchmetrics(real: Tensor, fake: Tensor) -> float:
    identity = nn.Identity()
    identity.num_features = FEATURES  # type: ignore[assignment]
    metric = FrechetInceptionDistance(feature=identity)
    for items, is_real in ((real, True), (fake, False)):
        for part in items.split(1000):
            metric.update(part.double(), real=is_real)
    return float(metric.compute())


def timed(compute: Callable[[], float]) -> tuple[float, float]:
    start = time.process_time()
    found = compute()
    return found, time.process_time() - start


def frechet(items: int) -> None:
    real, fake = sets(items)
    statistics = Statistics.of(real), Statistics.of(fake)
    exact, seconds = timed(lambda: by_factors(real, fake))
    print(
        json.dumps(
            {"by": "factors of the features", "distance": exact, "seconds": round(seconds, 1)}
        )
    )
    for name, compute in {
        "genkit": lambda: frechet_distance(*statistics),
        "torchmetrics": lambda: by_torchmetrics(real, fake),
        "scipy sqrtm": lambda: by_sqrtm(*statistics),
    }.items():
        distance, seconds = timed(compute)
        error = abs(distance / exact - 1)
        print(
            json.dumps(
                {
                    "by": name,
                    "distance": distance,
                    "relative": f"{error:.1e}",
                    "seconds": round(seconds, 1),
                }
            )
        )


def prdc(real: Tensor, fake: Tensor) -> dict[str, float]:
    return manifold_scores(real, fake, 5, torch.device("cpu"))


def closest(real: Tensor, fake: Tensor) -> dict[str, float]:
    distances, _ = nearest(fake, real, 3, torch.device("cpu"))
    return {"nearest": float(distances[:, 0].mean())}


def mifid(real: Tensor, fake: Tensor) -> dict[str, float]:
    return {"cosine distance": mean_cosine_distance(fake, real, torch.device("cpu"))}


def kid(real: Tensor, fake: Tensor) -> dict[str, float]:
    mean, deviation = polynomial_mmd(real, fake, generator(0, "kid"))
    return {"kid": mean, "deviation": deviation}


def report(compute: Callable[[Tensor, Tensor], dict[str, float]], items: int) -> None:
    """Compute scores from features, and print the scores, the time and the memory."""
    real, fake = sets(items)
    real.sum(), fake.sum()  # loads pages that the system may have swapped out
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    start = time.process_time()
    found = compute(real, fake)
    seconds = time.process_time() - start
    added = memory("VmHWM") - before
    print(json.dumps({**found, "seconds": round(seconds, 1), "added_mb": round(added)}))


OTHERS = {"prdc": prdc, "nearest": closest, "mifid": mifid, "kid": kid}


def memory(what: str) -> float:
    """Return the memory ``VmRSS`` of the process, or its peak ``VmHWM``, in MB; Linux only."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", choices=["frechet", *OTHERS])
    parser.add_argument("--items", type=int)
    options = parser.parse_args()
    threads = torch.get_num_threads()
    print(
        f"{platform.processor() or platform.machine()}, {threads} threads, torch {torch.__version__}"
    )
    if options.work == "frechet":
        frechet(options.items or 10_000)
    else:
        report(OTHERS[options.work], options.items or 20_000)


if __name__ == "__main__":
    main()
