"""Metrics that compare samples with data in a feature space, and metrics of the sampling ODE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the metrics, the extractors, a classifier network and its objective."""
    registry.add("classifier", "cnn-classifier", "genkit_metrics.classifier:CnnClassifier")
    registry.add("objective", "classification", "genkit_metrics.classification:Classification")
    registry.add("extractor", "classifier", "genkit_metrics.extractors:ClassifierFeatures")
    registry.add("extractor", "pixels", "genkit_metrics.extractors:Pixels")
    registry.add("extractor", "inception", "genkit_metrics.inception:Inception")
    registry.add("extractor", "dinov2", "genkit_metrics.dinov2:Dinov2")
    registry.add("extractor", "clip", "genkit_metrics.clip:Clip")
    registry.add("metric", "frechet", "genkit_metrics.frechet:Frechet")
    inception = '{ use = "frechet", extractor = { use = "inception" } }'
    registry.suggest("metric", "fid", inception)
    registry.suggest("metric", "fd-dinov2", inception.replace("inception", "dinov2"))
    registry.add("metric", "frechet-by-class", "genkit_metrics.frechet:FrechetByClass")
    registry.add("metric", "kid", "genkit_metrics.kernel_distances:Kid")
    registry.add("metric", "cmmd", "genkit_metrics.kernel_distances:Cmmd")
    registry.add("metric", "prdc", "genkit_metrics.manifold:Prdc")
    registry.add("metric", "nearest", "genkit_metrics.memorization:Nearest")
    registry.add("metric", "mifid", "genkit_metrics.memorization:Mifid")
    registry.add("metric", "inception-score", "genkit_metrics.classes:InceptionScore")
    registry.add("metric", "class-agreement", "genkit_metrics.classes:ClassAgreement")
    registry.add("metric", "spread", "genkit_metrics.spread:Spread")
    registry.add("metric", "curvature", "genkit_metrics.curvature:Curvature")
    registry.add("metric", "straightness", "genkit_metrics.straightness:Straightness")
    registry.add("metric", "trajectories", "genkit_metrics.trajectory_plot:Trajectories")
    registry.add("metric", "truncation", "genkit_metrics.truncation:Truncation")
