"""Discriminator guidance, bound to its network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genkit.interfaces import BoundGuidance
from genkit.tensors import as_column
from genkit_dg.fitted_weight import WeightCurve
from genkit_dg.log_ratio import compute_log_ratio


class BoundDiscriminator(BoundGuidance):
    """Discriminator guidance, bound to its network.

    Args:
        discriminator: ``(x [B, *shape], sigma [B], labels) -> logit [B]``, in eval mode.
        weight: weight of the correction in the first evaluation of a step.
        second_weight: weight in all other evaluations.
        by_level: factor of both weights as a function of the noise level; None for factor 1.
        gradient_only: whether the discriminator was trained for this correction, by an objective
            that determines only the gradient of its output.
        fits_pairs: whether it was trained for this correction with pairs like the denoiser's.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        weight: float,
        second_weight: float,
        by_level: WeightCurve | None = None,
        *,
        gradient_only: bool = False,
        fits_pairs: bool = False,
    ) -> None:
        self.discriminator = discriminator
        self.weight = weight
        self.second_weight = second_weight
        self.by_level = by_level
        self.gradient_only = gradient_only
        self.fits_pairs = fits_pairs

    @property
    def requires_score(self) -> bool:
        # Trained for the correction itself, the gradient also fits the velocity of assigned noise.
        return super().requires_score and not self.fits_pairs

    def correction(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None,
        denoised: Tensor,
        *,
        inner: bool = False,
    ) -> Tensor:
        weight = self.second_weight if inner else self.weight
        if weight == 0:
            return torch.zeros_like(denoised)
        self.evaluations += 1
        log_ratio, gradient = compute_log_ratio(
            self.discriminator, x, sigma, labels, clip=not self.gradient_only
        )
        scale = (weight * sigma.square()).to(denoised.dtype)
        if self.by_level is not None:
            scale = scale * self.by_level(sigma).to(denoised.dtype)
        correction = as_column(scale, x) * gradient.to(denoised.dtype)
        return self._boost(log_ratio, sigma, correction, inner=inner)

    def _boost(
        self, log_ratio: Tensor, sigma: Tensor, correction: Tensor, *, inner: bool
    ) -> Tensor:
        """Return the correction to apply. This class returns ``correction`` unchanged.

        Args:
            log_ratio: log-ratio of each sample, ``[B]``.
            sigma: noise level of each sample, ``[B]``.
            correction: weighted correction, ``[B, *shape]``.
            inner: whether this is not the first evaluation of a step.
        """
        return correction
