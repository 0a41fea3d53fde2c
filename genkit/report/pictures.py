"""Draw the pictures of an artifact."""

from __future__ import annotations

from genkit.artifacts import Artifact, Samples, Scores
from genkit.artifacts.scores import COUNTS, scores_in
from genkit.parts.grid import grid
from genkit.report.plots import curve_plot, score_plot


def pictures_of(artifact: Artifact) -> dict[str, bytes]:
    """Return a map from name to PNG content: a grid of samples, or plots of curves and scores."""
    if isinstance(artifact, Samples):
        return {"samples": grid(artifact.batch.data)}
    if not isinstance(artifact, Scores):
        return {}
    pictures = {name: curve_plot({name: curve}) for name, curve in artifact.curves.items()}
    if len(artifact.rows) > 1 and all(count in row for row in artifact.rows for count in COUNTS):
        pictures |= {
            f"{name}-against-nfe": score_plot(artifact.rows, name)
            for name in scores_in(artifact.rows[0])
        }
    return pictures
