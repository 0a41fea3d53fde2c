"""Log-ratio of the densities of real and generated data by a discriminator, and its gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MIN_PROBABILITY = 1e-5
"""Probability at which d and 1 - d are clipped, as published: beyond it the gradient is 0."""

_LIMIT = math.log((1 - MIN_PROBABILITY) / MIN_PROBABILITY)


def log_ratio_gradient(
    discriminator: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return log(d / (1 - d)) and its gradient with respect to x, without parameter gradients.

    Args:
        discriminator: ``(x, sigma, labels) -> logit [B]``, in eval mode.
        x: ``[B, *shape]`` noisy states.
        sigma: ``[B]`` noise levels.
        labels: ``[B]`` int64, or None.

    Returns:
        ``[B]`` and ``[B, *shape]``, in float32, without a graph.
    """
    with torch.enable_grad():
        point = x.detach().float().requires_grad_()
        logit = discriminator(point, sigma.float(), labels).clamp(-_LIMIT, _LIMIT)
        (gradient,) = torch.autograd.grad(logit.sum(), point)
    return logit.detach(), gradient
