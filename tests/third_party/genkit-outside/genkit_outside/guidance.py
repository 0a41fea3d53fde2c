"""Guidance by a weaker denoiser (autoguidance, arXiv 2406.02507)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genkit.plugin import (
    BoundGuidance,
    DenoiserRef,
    Design,
    Guidance,
    Inputs,
    Problem,
    Trained,
    setting,
)


class BoundAutoGuidance(BoundGuidance):
    """Autoguidance with its network."""

    def __init__(self, weak: nn.Module, weight: float) -> None:
        self.weak, self.weight = weak, weight

    def correction(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None,
        denoised: Tensor,
        *,
        inner: bool = False,
    ) -> Tensor:
        if self.weight == 0:
            return torch.zeros_like(denoised)
        self.evaluations += 1
        return self.weight * (denoised - self.weak(x, sigma, labels))


@dataclass(frozen=True, kw_only=True)
class AutoGuidance(Guidance):
    """Moves the denoised image away from that of a weaker denoiser."""

    source = "Autoguidance, arXiv 2406.02507"

    weak: DenoiserRef = setting(doc="stage that wrote the weaker denoiser")
    weight: float = setting(1.0, doc="strength; the published one is 1 more", at_least=0)

    def check_guided(self, denoiser: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        if found := networks.get(self.weak):
            yield from (problem.under("weak") for problem in found.misfits(denoiser))

    def bind(self, inputs: Inputs, denoiser: Trained) -> BoundAutoGuidance:
        return BoundAutoGuidance(inputs.network(self.weak).module, self.weight)
