"""Draw latents, labels and noise of samples, and check the draws of any component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.blame import fault, label_of, require_type
from genkit.interfaces import Latents
from genkit.random import PerSample
from genkit.tensors import describe, require_finite
from genkit.types import Draws


@dataclass(frozen=True, kw_only=True)
class Derived(Latents):
    """Draw latents and noise from generators derived from the run's seed and the sample's seed.

    The sample with seed k has class k modulo the number of classes. Numbers are drawn on the CPU,
    so that they are the same on every device.
    """

    source = "genkit.random: a generator is a function of the run's seed, a purpose and a sample"

    def draw(
        self,
        shape: tuple[int, ...],
        seeds: Sequence[int],
        classes: int,
        device: torch.device,
        run_seed: int,
    ) -> Draws:
        latents = PerSample(run_seed, ("latent",), seeds).draw(shape).to(device)
        labels = torch.tensor([k % classes for k in seeds], device=device) if classes else None
        return Draws(latents, labels, PerSample(run_seed, ("churn",), seeds).randn_like)


def draws_of(
    latents: Latents,
    shape: tuple[int, ...],
    seeds: Sequence[int],
    classes: int,
    device: torch.device,
    run_seed: int,
) -> Draws:
    """Return the draws of a batch of samples after checking them; see :meth:`Latents.draw`.

    Raises:
        DataError: the samples cannot be drawn, or the result of the component is invalid.
    """
    latents.require(shape, seeds)
    result = latents.draw(shape, seeds, classes, device, run_seed)
    draws = require_type(latents, "draw", result, Draws)
    x, labels, size = draws.latents, draws.labels, (len(seeds), *shape)
    if (
        not isinstance(x, Tensor)
        or x.shape != size
        or not x.is_floating_point()
        or x.device.type != device.type
    ):
        raise fault(
            latents,
            f"must return latents of floating-point numbers of shape {list(size)} on "
            f"{device.type}, got {describe(x)}",
        )
    if not bool(x.isfinite().all()):  # a label is looked up in the plugins: only for the message
        require_finite(x, f"latent of {label_of(latents)}")
    if classes == 0 and labels is not None:
        reason = f"must return None as labels for 0 classes, got {describe(labels)}"
        raise fault(latents, reason)
    if classes and (
        not isinstance(labels, Tensor)
        or labels.dtype != torch.int64
        or labels.shape != size[:1]
        or labels.device.type != device.type
        or bool(((labels < 0) | (labels >= classes)).any())
    ):
        raise fault(
            latents,
            f"must return {len(seeds)} int64 classes from 0 to {classes - 1} on {device.type} as "
            f"labels, got {describe(labels)}",
        )

    def randn_like(like: Tensor) -> Tensor:
        noise = draws.randn_like(like)
        wrong = not isinstance(noise, Tensor)
        if wrong or (noise.shape, noise.dtype, noise.device) != (
            like.shape,
            like.dtype,
            like.device,
        ):
            reason = f"must draw noise of {describe(like)}, got {describe(noise)}"
            raise fault(latents, reason)
        return noise

    return Draws(x.detach(), labels, randn_like)
