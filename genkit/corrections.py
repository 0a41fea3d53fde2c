"""Apply guidance to denoised images in a batch of sampling trajectories."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genkit.blame import fault, forbid_changes, require_type
from genkit.interfaces import BoundGuidance
from genkit.tensors import describe


class Corrections:
    """Adds the corrections of several guidance components to denoised images.

    Args:
        guidance: bound guidance components.
    """

    def __init__(self, guidance: Sequence[BoundGuidance]) -> None:
        self._guidance: list[tuple[BoundGuidance, object, BoundGuidance]] = []
        for guide in guidance:
            component = guide.component or guide  # for messages
            begun = require_type(component, "begin", guide.begin(), BoundGuidance)
            _require_attributes(component, guide.interval, begun.evaluations)
            self._guidance.append((guide, component, begun))
        self._spent = sum(begun.evaluations for _, _, begun in self._guidance)

    @property
    def evaluations(self) -> int:
        """Number of calls of guidance networks in these trajectories so far."""
        return sum(begun.evaluations for _, _, begun in self._guidance) - self._spent

    def churn(self, x: Tensor, amount: float) -> float | Tensor:
        """Return the amount of fresh noise for the step from ``x``: a number, or ``[B]``."""
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
            DataError: a correction is not a floating-point tensor with the shape and device of
                ``denoised``, or a guidance changed its arguments in place.
        """
        corrections = []
        for guide, component, begun in self._guidance:
            acts = guide.acts_at(sigma)
            if acts.ndim == 0 and not bool(acts):
                continue
            with forbid_changes(component, x=x, sigma=level, labels=labels, denoised=denoised):
                result: object = begun.correction(x, level, labels, denoised, inner=inner)
            valid = _require_addend(component, result, denoised)
            corrections.append(torch.where(acts, valid, 0) if acts.ndim else valid)
        if not corrections:
            return denoised
        # Corrections are summed first, so that the order of two of them does not matter: a + b and
        # b + a are bit-identical, but (d + a) + b and (d + b) + a may differ.
        return denoised + functools.reduce(torch.add, corrections)


def _require_attributes(component: object, interval: object, evaluations: object) -> None:
    """Raise DataError unless a bound guidance has an interval of levels and a number of calls."""
    match interval:
        case (int() | float() as lowest, int() | float() as highest) if lowest <= highest:
            pass
        case _:
            reason = f"must have an interval of a lowest and a highest noise level, got {interval}"
            raise fault(component, reason)
    if not isinstance(evaluations, int):
        raise fault(component, f"must have a number of evaluations, got {describe(evaluations)}")


def _amount(component: object, amount: float | Tensor, x: Tensor) -> float | Tensor:
    """Return an amount of noise; raise DataError unless it is a number or a ``[B]`` tensor.

    On another device than the CPU, reading the tensor would wait for it. There, an amount below 0
    becomes NaN, which stops sampling at this step.
    """
    if isinstance(amount, Tensor):
        numbers = amount.is_floating_point() and amount.shape == (len(x),)
        if numbers and amount.device == x.device:
            valid = torch.where(amount >= 0, amount, torch.nan)
            if amount.device.type != "cpu" or bool(valid.isfinite().all()):
                return valid
    elif type(amount) in (int, float) and 0 <= amount < math.inf:
        return amount
    raise fault(
        component,
        f"must return a nonnegative number or {len(x)} of them in a tensor from churn, got "
        f"{amount if isinstance(amount, int | float) else describe(amount)}",
    )


def _require_addend(component: object, result: object, denoised: Tensor) -> Tensor:
    """Return a correction; raise DataError if it cannot be added to ``denoised``."""
    if (
        not isinstance(result, Tensor)
        or result.shape != denoised.shape
        or not result.is_floating_point()
        or result.device != denoised.device
    ):
        raise fault(
            component,
            f"must return a correction of floating-point numbers of shape {list(denoised.shape)} "
            f"on {denoised.device}, got {describe(result)}",
        )
    return result
