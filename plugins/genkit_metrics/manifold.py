"""Separate scores of the fidelity and the diversity of samples, from nearest neighbors."""

from __future__ import annotations

from dataclasses import dataclass

from genkit.interfaces import Context, Subject
from genkit.settings import setting
from genkit.types import Measurement
from genkit_metrics.neighbors import manifold_scores
from genkit_metrics.over_features import FeatureMetric

NAMES = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True, kw_only=True)
class Prdc(FeatureMetric):
    """Precision, recall, density and coverage of samples; 1 is good, and density may exceed 1."""

    source = "Kynkaanniemi et al., arXiv 1904.06991; Naeem et al., arXiv 2002.09797"
    higher_is_better = True

    neighbors: int = setting(
        5,
        doc="k; the radius of the ball around an item is the distance to its k-th nearest neighbor",
        at_least=1,
    )

    @property
    def min_samples(self) -> int:
        return self.neighbors + 1  # an item is not its own neighbor

    @property
    def scores(self) -> tuple[str, ...]:
        return tuple(map(self.named, NAMES))

    def measure(self, subject: Subject, context: Context) -> Measurement:
        real, fake = self.features(subject)
        scores = context.world.on_main(
            lambda: manifold_scores(real, fake, self.neighbors, context.device)
        )
        return Measurement({self.named(name): scores[name] for name in NAMES})
