"""The Frechet distance between samples and real items, over the features of an extractor.

|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) for the means and covariances of the features. Only
over Inception features is it the FID, and is called so; scores over other features are comparable
among themselves, and only where the extractor's identity is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError, PluginError
from genkit.interfaces import Context, Extractor, Inputs, Metric, Subject
from genkit.settings import setting
from genkit.tensors import decoded, require_finite
from genkit.types import Batch, Measurement

BATCH = 256


class _Ready(nn.Identity):
    """Stands where torchmetrics expects Inception, and passes on features that are there already.

    Without ``num_features``, torchmetrics would feed it a 299x299 image to count them.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


@dataclass(frozen=True, kw_only=True)
class Frechet(Metric):
    """Frechet distance of feature means and covariances; 0 is best."""

    source = "Heusel et al., arXiv 1706.08500, eq. 6"
    min_samples = 2  # of which there is a covariance

    extractor: Extractor = setting(
        doc="the features in which samples and real items are compared", use={"use": "pixels"}
    )

    def bind(self, inputs: Inputs) -> BoundFrechet:
        return BoundFrechet(self.extractor, self.extractor.bind(inputs))

    def measure(self, subject: Subject, context: Context) -> Measurement:
        return self.bind(context).measure(subject, context)


@dataclass(frozen=True)
class BoundFrechet:
    """The distance with the module of its extractor.

    Attributes:
        extractor: extractor as the recipe has it.
        module: module that returns the features.
    """

    extractor: Extractor
    module: nn.Module

    def measure(self, subject: Subject, context: Context) -> Measurement:
        """Return the distance of samples and reference, see :meth:`Metric.measure`."""
        samples, reference = subject.samples, subject.reference
        _require_comparable(samples, reference)
        real = _features(self.module, reference.data, context, "reference item")
        fake = _features(self.module, samples.data, context, "sample")
        return Measurement(
            scores={self.extractor.score: context.world.lead(lambda: _distance(real, fake))},
            facts={
                "extractor": self.extractor.identity(context),
                "features": str(real.shape[1]),
                "samples": str(len(samples)),
                "reference": str(len(reference)),
            },
        )


def _require_comparable(samples: Batch, reference: Batch) -> None:
    for what, items in (("samples", samples), ("reference items", reference)):
        if len(items) < 2:
            raise DataError(
                f"the Frechet distance needs a covariance, so at least 2 {what}, "
                f"not {len(items)}; several times the number of features are advised",
                Code.WRONG_LENGTH,
            )
    if samples.data.shape[1:] != reference.data.shape[1:]:
        raise DataError(
            f"samples of shape {tuple(samples.data.shape[1:])} cannot be compared with "
            f"reference items of shape {tuple(reference.data.shape[1:])}",
            Code.WRONG_SHAPE,
        )
    require_finite(samples.data, "sample")
    require_finite(reference.data, "reference item")


@torch.no_grad()
def _features(extractor: nn.Module, items: Tensor, context: Context, what: str) -> Tensor:
    """Return the features ``[N, F]`` of items, on the CPU; the processes share out the work."""
    found: list[Tensor] = []
    for part in context.world.turns(_batches(items)):
        features = None if part is None else extractor(decoded(part.to(context.device))).cpu()
        found += context.world.gather(features)
    joined = torch.cat(found)
    require_finite(joined, f"the features of {what}")
    return joined


def _distance(real: Tensor, fake: Tensor) -> float:
    """Return the Frechet distance of features ``[N, F]`` and ``[M, F]``."""
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance  # slow to import
    except ImportError as error:
        raise PluginError(
            f"torchmetrics cannot be imported: {error}; it fails with torch-fidelity without "
            "torchvision: install both, or neither",
            Code.MISSING_PACKAGE,
        ) from error

    # The features of all processes are here: torchmetrics must not gather them once more.
    ready = _Ready(real.shape[1])
    distance = FrechetInceptionDistance(feature=ready, sync_on_compute=False)
    for features, are_real in ((real, True), (fake, False)):
        for part in _batches(features):  # float64, else it rounds its result
            distance.update(part.double(), real=are_real)
    # Rounding takes the distance of equal sets to about -1e-12.
    return max(0.0, float(distance.compute()))


def _batches(items: Tensor) -> list[Tensor]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
