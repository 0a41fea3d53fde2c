"""Log density ratio of real to generated data, computed by a discriminator, and its gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MIN_PROBABILITY = 1e-5
"""Minimum to which d and 1 - d are clipped, as published; clipped values have gradient 0."""

_LIMIT = math.log((1 - MIN_PROBABILITY) / MIN_PROBABILITY)


def compute_log_ratio(
    discriminator: nn.Module,
    x: Tensor,
    sigma: Tensor,
    labels: Tensor | None,
    *,
    clip: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return log(d / (1 - d)) and its gradient with respect to x.

    Gradients with respect to the parameters of the discriminator are not computed.

    Args:
        discriminator: discriminator ``(x, sigma, labels) -> logit [B]``, in eval mode.
        x: ``[B, *shape]`` noisy states.
        sigma: ``[B]`` noise levels.
        labels: ``[B]`` int64 classes, or None.
        clip: whether to clip the log-ratio; False if its size has no meaning.

    Returns:
        Log-ratio ``[B]`` and gradient ``[B, *shape]``, float32, detached.
    """
    with torch.enable_grad():
        point = x.detach().float().requires_grad_()
        logit = discriminator(point, sigma.float(), labels)
        if clip:
            logit = logit.clamp(-_LIMIT, _LIMIT)
        (gradient,) = torch.autograd.grad(logit.sum(), point)
    return logit.detach(), gradient
