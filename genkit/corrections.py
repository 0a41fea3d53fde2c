"""Apply guidance to denoised images in a batch of sampling trajectories."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from genkit.blame import fault, forbid_changes, require_type
from genkit.interfaces import BoundGuidance
from genkit.tensors import describe


class Corrections:
    """Adds the sum of the corrections of several guidances to denoised images.

    Args:
        guidance: bound guidances.
    """

    def __init__(self, guidance: Sequence[BoundGuidance]) -> None:
        self._guidance: list[tuple[BoundGuidance, object, BoundGuidance]] = []
        for guide in guidance:
            component = guide.component or guide  # for messages
            begun = require_type(component, "begin", guide.begin(), BoundGuidance)
            self._guidance.append((guide, component, begun))
        self._spent = sum(begun.evaluations for _, _, begun in self._guidance)

    @property
    def evaluations(self) -> int:
        """Number of calls of guidance networks in these trajectories so far."""
        return sum(begun.evaluations for _, _, begun in self._guidance) - self._spent

    def churn(self, x: Tensor, amount: float) -> float | Tensor:
        """Return the amount of fresh noise for the step from ``x``: one number, or ``[B]``."""
        total: float | Tensor = amount
        for _, component, begun in self._guidance:
            total = _amount(component, begun.churn(x, total), x)
        return total

    def added(
        self,
        x: Tensor,
        sigma: Tensor,
        level: Tensor,
        labels: Tensor | None,
        denoised: Tensor,
        inner: bool,
    ) -> Tensor:
        """Return the denoised image with all corrections.

        Args:
            x: ``[B, *shape]`` noisy state, float32.
            sigma: noise level of the solver: 0-d, or ``[B, 1, ...]``.
            level: ``[B]`` the same noise level in float32, on the device of ``x``.
            labels: ``[B]`` int64 or None.
            denoised: ``[B, *shape]`` estimate of the denoiser.
            inner: as for :meth:`BoundGuidance.correction`.

        Raises:
            DataError: a correction is no floating-point tensor of the shape and on the device of
                ``denoised``, or a guidance changed its arguments.
        """
        corrections = []
        for guide, component, begun in self._guidance:
            acts = _acting(guide, sigma)
            if acts is False:
                continue
            with forbid_changes(component, x=x, sigma=level, labels=labels, denoised=denoised):
                found: object = begun.correction(x, level, labels, denoised, inner=inner)
            sound = _require_addend(component, found, denoised)
            corrections.append(torch.where(acts, sound, 0) if isinstance(acts, Tensor) else sound)
        if not corrections:
            return denoised
        # Summed first: a + b equals b + a in every bit, but (d + a) + b need not equal (d + b) + a.
        return denoised + functools.reduce(torch.add, corrections)


def _amount(component: object, found: float | Tensor, x: Tensor) -> float | Tensor:
    """Return an amount of noise; raises DataError unless it is one number or ``[B]``."""
    sound = isinstance(found, int | float)
    if isinstance(found, Tensor):
        sound = found.shape == (len(x),) and found.device == x.device
    if not sound:
        got = describe(found)
        reason = f"must return one amount of noise from churn, or {len(x)} of them, got {got}"
        raise fault(component, reason)
    return found


def _acting(guidance: BoundGuidance, sigma: Tensor) -> bool | Tensor:
    """Return whether a guidance acts at a noise level; ``[B, 1, ...]`` for one level per item.

    Levels are compared in float32, as passed to networks, so that 20.000000000000004 equals 20.
    """
    lowest, highest = guidance.interval
    level = sigma.float()
    acts = (level >= lowest) & (level <= highest)
    return bool(acts) if acts.ndim == 0 else acts


def _require_addend(component: object, found: object, denoised: Tensor) -> Tensor:
    """Return a correction that can be added to ``denoised``, or raise DataError."""
    if (
        not isinstance(found, Tensor)
        or found.shape != denoised.shape
        or not found.is_floating_point()
        or found.device != denoised.device
    ):
        raise fault(
            component,
            f"must return a correction of floating-point numbers of shape {list(denoised.shape)} "
            f"on {denoised.device}, got {describe(found)}",
        )
    return found
