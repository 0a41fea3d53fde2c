"""Discriminator guidance: the denoiser's score, corrected by a discriminator's.

Where d(x; sigma) is the probability that x is noisy real data rather than a noisy sample of the
denoiser, grad_x log(d / (1 - d)) is what the denoiser's score lacks. Where the score is
(D - x) / sigma^2, the correction of D is w sigma^2 grad_x log(d / (1 - d)). With assigned noise it
is not, and the best w is a matter of measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genkit.artifacts import DiscriminatorRef
from genkit.errors import Problem
from genkit.interfaces import BoundGuidance, Design, Guidance, Inputs, Stages
from genkit.settings import setting
from genkit.tensors import as_column


class BoundDiscriminator(BoundGuidance):
    """Discriminator guidance with its network.

    Args:
        discriminator: ``(x [B, *shape], sigma [B], labels) -> logit [B]``, in eval mode.
        weight: w.
        sigma_min: least noise level, itself included, that is corrected.
        sigma_max: greatest noise level, itself included, that is corrected.
    """

    def __init__(
        self, discriminator: nn.Module, weight: float, sigma_min: float, sigma_max: float
    ) -> None:
        self.discriminator = discriminator
        self.weight = weight
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def correction(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None,
        denoised: Tensor,
        *,
        inner: bool = False,
    ) -> Tensor:
        acts = (sigma >= self.sigma_min) & (sigma <= self.sigma_max)
        if self.weight == 0 or not bool(acts.any()):
            return torch.zeros_like(x)
        self.evaluations += 1
        scale = torch.where(acts, self.weight * sigma.square(), 0).to(x.dtype)
        return as_column(scale, x) * self._gradient(x, sigma, labels).to(x.dtype)

    def _gradient(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """grad_x log(d / (1 - d)) in float32; the parameters receive no gradient."""
        with torch.enable_grad():
            point = x.detach().float().requires_grad_()
            logit = self.discriminator(point, sigma.float(), labels)
            (gradient,) = torch.autograd.grad(logit.sum(), point)
        return gradient


@dataclass(frozen=True, kw_only=True)
class DiscriminatorGuidance(Guidance):
    """Moves the denoised image to where a discriminator sees real data."""

    source = "Discriminator guidance, arXiv 2211.17091, section 3"
    requires_score = True

    discriminator: DiscriminatorRef = setting(doc="stage that trained the discriminator")
    weight: float = setting(
        1.0, doc="strength w; 1 is the theory's for independent noise, 0 none", at_least=0.0
    )
    sigma_min: float = setting(0.05, doc="least noise level that is corrected", at_least=0.0)
    sigma_max: float = setting(20.0, doc="greatest noise level that is corrected", above=0.0)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.sigma_min >= self.sigma_max:
            yield Problem(
                ("sigma_min",),
                f"{self.sigma_min:g} is not below sigma_max = {self.sigma_max:g}",
                f"write a value below {self.sigma_max:g}",
            )

    def check_guided(self, denoiser: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        if found := networks.get(self.discriminator):
            yield from (p.under("discriminator") for p in found.misfits(denoiser))

    def bind(self, inputs: Inputs) -> BoundDiscriminator:
        return BoundDiscriminator(
            inputs.network(self.discriminator).module, self.weight, self.sigma_min, self.sigma_max
        )
