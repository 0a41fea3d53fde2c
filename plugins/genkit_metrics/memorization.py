"""Metrics of memorization, since copies of training images have good scores in other metrics."""

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
"""Number of samples in the picture, and number of real images next to each sample."""

THRESHOLD, EPSILON = 0.1, 1e-14
"""Threshold of the mean cosine distance below which MiFID divides by this distance, and a constant
that is added to the divisor so that it is not 0."""


@dataclass(frozen=True, kw_only=True)
class Nearest(FeatureMetric):
    """Mean distance of samples to the nearest real item, and the share of authentic samples.

    A sample is authentic if its distance to its nearest real item is larger than the distance of
    that item to its nearest real neighbor. Of other real items from the same distribution, about
    half are authentic. The picture shows the samples with the lowest ratios of the two distances,
    next to their nearest real images.
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
                # The ratio is 0 / 0 for a copy of an item that occurs twice in the data.
                closest = (distance / gap).nan_to_num(0).argsort(stable=True)[:SHOWN]
                pictures[name] = picture_of_nearest(
                    subject.samples.data[closest],
                    subject.reference.data[indices[closest]],
                    distances[closest],
                )
            return Measurement(scores, pictures=pictures)

        return context.world.on_main(compute)


def _gaps(real: Tensor, indices: Tensor, device: torch.device) -> Tensor:
    """Return the distances of the real items ``real[indices]`` to their nearest real neighbors."""
    items, places = torch.unique(indices, return_inverse=True)
    distances, _ = nearest(real[items], real, 1, device, own=items)
    return distances[places, 0]


@dataclass(frozen=True, kw_only=True)
class Mifid(FeatureMetric):
    """Fréchet distance, divided by the mean cosine distance to the nearest real item; 0 is best.

    The Fréchet distance is divided only if the mean cosine distance is below 0.1, the published
    threshold for Inception features.
    """

    source = "Bai et al., arXiv 2106.03062, section 3"
    quantity = "MiFID"
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
    """Return the mean cosine distance of samples to their nearest real items.

    The cosine distance is 1 - |cosine|. torchmetrics instead averages the distances of the real
    items to their nearest samples, which does not detect a few copies among many samples. Its
    matrix of all distances takes 20 GB for 50,000 samples and 50,000 real items.

    Args:
        samples: features of samples, ``[M, F]``.
        real: features of real items, ``[N, F]``.
        device: device of the computation.

    Raises:
        DataError: the features of an item are all 0, so that its direction is undefined.
    """
    for items, what in ((samples, "sample"), (real, "reference item")):
        if len(zero := (~items.any(dim=1)).nonzero()):
            raise DataError(
                f"features must not all be 0, got {what} {int(zero[0])} whose features are all 0; "
                "use a different extractor",
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
