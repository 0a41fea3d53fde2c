"""The metric ``trajectories``: straightness, with a picture of trajectories in the plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Context, Subject
from genkit.parts.figure import PALETTE, figure_with_axes, number, png_of, set_title
from genkit.types import DataSpec, Measurement
from genkit_metrics.straightness import Straightness, path_of

_TRAJECTORIES = 100  # trajectories in the picture; with more, they would hide each other
_POINTS = 2_000  # points of the data in the picture; chosen, not tuned
_BLUE, _ORANGE = PALETTE[:2]


@dataclass(frozen=True, kw_only=True)
class Trajectories(Straightness):
    """Straightness, with a picture of 100 trajectories, for two-dimensional vectors."""

    accepts_statistics = False

    def check_items(self, spec: DataSpec) -> Iterator[Problem]:
        if spec.shape != (2,):
            yield Problem(
                (),
                f"requires vectors of shape (2,), got items of shape {spec.shape}",
                'write { use = "straightness" } for the score without the picture',
                Code.WRONG_SHAPE,
            )

    def measure_bound(self, subject: Subject, context: Context) -> Measurement:
        if subject.reference is None:
            raise DataError(
                "the metric trajectories requires data, got a file of statistics; write data = "
                '{ use = "..." } instead of statistics'
            )
        measurement = super().measure_bound(subject, context)
        drawn = replace(self, count=min(self.count, _TRAJECTORIES))
        paths = torch.cat(
            drawn.parts(
                context,
                lambda k: path_of(list(self.solve(subject, context, k, self.schedule))).cpu(),
            )
        )
        score = number(measurement.scores["straightness"])
        title = f"{len(paths)} trajectories; straightness {score}"
        picture = _picture(paths, subject.reference.data[:_POINTS], title)
        return replace(measurement, pictures={"trajectories": picture})


def _picture(paths: Tensor, data: Tensor, title: str) -> bytes:
    """Return a PNG of paths from noise to data, drawn over points of the data.

    The paths are x / (1 + sigma), which start with about unit variance. x itself would start with
    the standard deviation sigma_max, far outside of the data.

    Args:
        paths: paths, ``[B, L, 2]``.
        data: points of the data, ``[N, 2]``.
        title: title of the picture.
    """
    from matplotlib.collections import LineCollection

    figure, (axes,) = figure_with_axes()
    figure.set_size_inches(7.2, 7.8)
    points = data.double().numpy()
    lines = paths.double().numpy()
    axes.scatter(points[:, 0], points[:, 1], s=6, color="#b5b5b5", linewidths=0, label="data")
    axes.add_collection(LineCollection(list(lines), colors=_BLUE, linewidths=0.8, alpha=0.6))
    for place, color, label in ((0, _ORANGE, "noise"), (-1, _BLUE, "samples")):
        x, y = lines[:, place, 0], lines[:, place, 1]
        axes.scatter(x, y, s=16, color=color, linewidths=0, label=label, zorder=3)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("first dimension of x / (1 + sigma)")
    axes.set_ylabel("second dimension of x / (1 + sigma)")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, markerscale=2)
    set_title(axes, title)
    return png_of(figure)
