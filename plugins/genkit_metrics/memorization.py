"""Metrics of memorization: copies of training images have good scores in all other metrics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit.artifacts.scores import MEASURED
from genkit.artifacts.statistics import Statistics
from genkit.errors import Code, DataError
from genkit.interfaces import Context, Subject
from genkit.types import Measurement
from genkit_metrics.comparison import picture_of_nearest
from genkit_metrics.gaussians import frechet_distance
from genkit_metrics.neighbors import blocks, nearest
from genkit_metrics.over_features import FeatureMetric

SHOWN, BESIDE = 8, 3
"""Number of samples in the picture, and of real images next to each."""

THRESHOLD, EPSILON = 0.1, 1e-14
"""Mean cosine distance below which MiFID divides by it, and the term that avoids a divisor of 0."""


@dataclass(frozen=True, kw_only=True)
class Nearest(FeatureMetric):
    """Mean distance of samples to the nearest real item, and the share of authentic samples.

    A sample is authentic if it is farther from its nearest real item than that item from its
    nearest real neighbor. About half of a second real data set is authentic. The picture shows the
    samples with the lowest ratios of these distances, next to their nearest real images.
    """

    source = "Alaa et al., arXiv 2102.08921, section 3 (authenticity)"
    min_samples = BESIDE + 1

    @property
    def scores(self) -> tuple[str, ...]:
        return self.named("nearest"), self.named("authentic")

    def measure(self, subject: Subject, context: Context) -> Measurement:
        real, fake = self.features(subject)
        name, authentic = self.scores

        def compute() -> Measurement:
            distances, indices = nearest(fake, real, BESIDE, context.device)
            distance, gap = distances[:, 0], _gaps(real, indices[:, 0], context.device)
            scores = {
                name: float(distance.mean()),
                authentic: float((distance > gap).double().mean()),
            }
            pictures = {}
            if subject.reference is not None and subject.samples.data.ndim == 4:
                # The ratio is 0 / 0 for a copy of an item that is in the data twice.
                closest = (distance / gap).nan_to_num(0).argsort(stable=True)[:SHOWN]
                pictures[name] = picture_of_nearest(
                    subject.samples.data[closest],
                    subject.reference.data[indices[closest]],
                    distances[closest],
                )
            return Measurement(scores, pictures=pictures)

        return context.world.on_main(compute)


def _gaps(real: Tensor, indices: Tensor, device: torch.device) -> Tensor:
    """Return the distances of these real items to their nearest real neighbors."""
    items, places = torch.unique(indices, return_inverse=True)
    distances, _ = nearest(real[items], real, 1, device, own=items)
    return distances[places, 0]


@dataclass(frozen=True, kw_only=True)
class Mifid(FeatureMetric):
    """Fréchet distance, divided by the mean cosine distance to the nearest real item; 0 is best.

    The distance is divided only if the mean cosine distance is below 0.1, the published threshold
    for Inception features.
    """

    source = "Bai et al., arXiv 2106.03062, section 3"
    higher_is_better = False
    min_samples = 2

    @property
    def scores(self) -> tuple[str, ...]:
        return (self.named("mifid"),)

    def measure(self, subject: Subject, context: Context) -> Measurement:
        real, fake = self.features(subject)
        statistics = subject.features.statistics(self.extractor)
        (name,) = self.scores

        def compute() -> Measurement:
            distance = frechet_distance(statistics, Statistics.of(fake))
            cosine = mean_cosine_distance(fake, real, context.device)
            score = distance / (cosine + EPSILON) if cosine < THRESHOLD else distance
            return Measurement({name: score}, facts={f"{MEASURED}cosine_distance": f"{cosine:.4g}"})

        return context.world.on_main(compute)


def mean_cosine_distance(samples: Tensor, real: Tensor, device: torch.device) -> float:
    """Return the mean over samples of the minimum of 1 - |cosine| over real items.

    torchmetrics averages minimum distances over the real items instead, which does not detect a few
    copies among many samples. Its matrix of all pairs takes 20 GB for 50,000 samples and 50,000
    real items.

    Raises:
        DataError: the features of an item are all 0, so that its direction is undefined.
    """
    for items, what in ((samples, "sample"), (real, "reference item")):
        if len(zero := (~items.any(dim=1)).nonzero()):
            raise DataError(
                f"features must not be all 0, got those of {what} {int(zero[0])}; use another "
                "extractor",
                Code.OUT_OF_RANGE,
            )
    total = 0.0
    for _, block in blocks(samples, device):
        minimum = block.new_ones(len(block))
        for _, others in blocks(real, device):
            cosine = F.normalize(block) @ F.normalize(others).T
            minimum = torch.minimum(minimum, 1 - cosine.abs().amax(1))
        total += float(minimum.clamp(min=0).sum())
    return total / len(samples)
