"""The callback ``preview``, which draws pictures of samples during training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from genkit.errors import Code, Problem
from genkit.interfaces import Context, Design, TrainingState
from genkit.parts.grid import MOST_IMAGES, titled_grids
from genkit.types import Measurement
from genkit_stages.drawing import Drawing


@dataclass(frozen=True, kw_only=True)
class Preview(Drawing):
    """Draw pictures of the same samples with the raw and with the averaged weights."""

    @property
    def names(self) -> tuple[str, ...]:
        return "preview-raw", "preview-averaged"

    def check_training(self, design: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        yield from super().check_training(design, networks)
        if design.spec.is_image and self.count > MOST_IMAGES:
            reason = f"must be at most {MOST_IMAGES} images, got {self.count}"
            yield Problem(("count",), reason, f"write at most {MOST_IMAGES}", Code.OUT_OF_RANGE)

    def call(self, training: TrainingState, context: Context) -> Measurement:
        when = f"after {training.images:,} images"
        pictures = {}
        for name, network in zip(self.names, (training.network, training.averaged), strict=True):
            title = f"{self.count} samples {when}, {name.removeprefix('preview-')} weights"
            pictures[name] = titled_grids({title: self.draw(network, context).data})
        return Measurement({}, pictures=pictures)
