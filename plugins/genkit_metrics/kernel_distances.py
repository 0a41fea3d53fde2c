"""Kernel distances between samples and real items, for features of any distribution."""

from __future__ import annotations

from dataclasses import dataclass

from genkit.artifacts.scores import MEASURED
from genkit.interfaces import Context, Extractor, Subject
from genkit.random import generator
from genkit.settings import setting
from genkit.types import Measurement
from genkit_metrics.kernels import SUBSET_SIZE, SUBSETS, gaussian_mmd, polynomial_mmd
from genkit_metrics.over_features import FeatureMetric

SEED = 0
"""Seed of the random subsets, which is the same in all runs, so that only samples differ."""


@dataclass(frozen=True, kw_only=True)
class Kid(FeatureMetric):
    """Mean kernel distance of random subsets, unbiased for any number of samples; 0 is best."""

    source = "Binkowski et al., arXiv 1801.01401, section 4"
    quantity = "KID"
    higher_is_better = False
    min_samples = SUBSET_SIZE

    @property
    def scores(self) -> tuple[str, ...]:
        return (self.named("kid"),)

    def measure(self, subject: Subject, context: Context) -> Measurement:
        real, fake = self.features(subject)
        mean, deviation = context.world.on_main(
            lambda: polynomial_mmd(real, fake, generator(SEED, "kid"))
        )
        (name,) = self.scores
        facts = {
            "subsets": f"{SUBSETS} of {SUBSET_SIZE}, seed {SEED}",
            f"{MEASURED}subsets_std": f"{deviation:.3g}",
        }
        return Measurement({name: mean}, facts=facts)


@dataclass(frozen=True, kw_only=True)
class Cmmd(FeatureMetric):
    """Kernel distance of CLIP embeddings, times 1,000; 0 is best."""

    source = "Jayasumana et al., arXiv 2401.09603, section 5"
    quantity = "CMMD"
    higher_is_better = False

    extractor: Extractor = setting(
        doc="embeddings to compare; published scores use CLIP", use={"use": "clip"}
    )

    @property
    def scores(self) -> tuple[str, ...]:
        label = self.extractor.label
        return ("cmmd" if label == "clip" else f"cmmd_{label}",)

    def measure(self, subject: Subject, context: Context) -> Measurement:
        real, fake = self.features(subject)
        (name,) = self.scores
        score = context.world.on_main(lambda: gaussian_mmd(real, fake, context.device))
        return Measurement({name: score})
