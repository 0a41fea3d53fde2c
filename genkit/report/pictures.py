"""Draw the pictures of an artifact."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from genkit.artifacts import Artifact, Samples, Scores
from genkit.artifacts.scores import COUNTS, scores_in
from genkit.interfaces import Dataset, Stage
from genkit.parts.figure import number
from genkit.parts.grid import MOST_IMAGES, titled_grids
from genkit.parts.no_stages import NoStages
from genkit.random import generator
from genkit.report.plots import curve_plot, score_plot

_MOST_POINTS = 2_000  # real vectors in a scatter plot; chosen, not tuned


def pictures_of(artifact: Artifact, stages: Mapping[str, Stage]) -> dict[str, bytes]:
    """Return a map from name to PNG content: a grid of samples, or plots of curves and scores.

    Args:
        artifact: artifact of a stage.
        stages: stages of the run, keyed by id. Samples are drawn beside the training data of their
            denoiser.
    """
    if isinstance(artifact, Samples):
        return {"samples": _samples(artifact, stages.get(artifact.denoiser or ""))}
    if not isinstance(artifact, Scores):
        return {}
    pictures = {name: curve_plot({name: curve}) for name, curve in artifact.curves.items()}
    if len(artifact.rows) > 1 and all(count in row for row in artifact.rows for count in COUNTS):
        pictures |= {
            f"{name}-against-nfe": score_plot(artifact, name)
            for name in scores_in(artifact.rows[0])
        }
    return pictures


def _samples(samples: Samples, trained_by: Stage | None) -> bytes:
    data = samples.batch.data
    first = f"first {MOST_IMAGES} of " if data.ndim == 4 and len(data) > MOST_IMAGES else ""
    title = f"{first}{len(data):,} samples, {number(samples.nfe)} NFE"
    if samples.guidance_nfe:
        title += f" and {number(samples.guidance_nfe)} calls for guidance"
    real = _real(trained_by)
    if real is None or real.shape[1:] != data.shape[1:]:
        return titled_grids({title: data})
    return titled_grids({f"{len(real):,} items of the training data": real, title: data})


def _real(stage: Stage | None) -> Tensor | None:
    """Return random items of the data of a stage; None if it has none that can be read."""
    data = getattr(stage, "data", None)
    if not isinstance(data, Dataset):
        return None
    try:
        items = data.load(NoStages()).data
    except Exception:  # noqa: BLE001  (a picture must not end a run, whatever a plugin's data is)
        return None
    # Random, since the items of many data sets are sorted by class.
    order = torch.randperm(len(items), generator=generator(0, "picture"))
    return items[order[: MOST_IMAGES if items.ndim == 4 else _MOST_POINTS]]
