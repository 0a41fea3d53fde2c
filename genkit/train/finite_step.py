"""Optimizer steps that change nothing if the gradient is not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from genkit.blame import fault
from genkit.interfaces import Optimizer


class FiniteStep:
    """Step any torch optimizer if a flag on the device is true, without synchronization.

    Args:
        settings: component that built the optimizer, for messages.
        optimizer: optimizer of the network, whose state contains only tensors.
    """

    def __init__(self, settings: Optimizer, optimizer: torch.optim.Optimizer) -> None:
        self._settings = settings
        self._optimizer = optimizer
        # As in torch's GradScaler: fused optimizers skip the step on the device if found_inf is 1.
        self._fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        self._first = True

    def __call__(self, finite: Tensor) -> None:
        """Step if ``finite`` (0-d, bool, on the device) is true.

        Raises:
            DataError: the state contains something other than tensors; the message names the
                component.
        """
        optimizer = self._optimizer
        if self._fused:
            optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            optimizer.step()
            del optimizer.found_inf  # type: ignore[attr-defined]
        elif not self._first:
            self._step_or_take_back(finite)
        elif finite:  # synchronizes once: the state that the first step creates cannot be removed
            optimizer.step()
        else:
            return
        if self._first:
            self._require_tensors()
            self._first = False

    @torch.no_grad()
    def _step_or_take_back(self, finite: Tensor) -> None:
        groups, states = self._optimizer.param_groups, self._optimizer.state.values()
        tensors = [p for group in groups for p in group["params"]]
        # Step counters on the host advance even if a step is skipped; to reset them, the host would
        # have to synchronize with the device.
        tensors += [t for state in states for t in state.values() if t.device == finite.device]
        before = [t.clone() for t in tensors]
        self._optimizer.step()
        for tensor, old in zip(tensors, before, strict=True):
            tensor.copy_(torch.where(finite, tensor, old))

    def _require_tensors(self) -> None:
        for state in self._optimizer.state.values():
            for name, value in state.items():
                if not isinstance(value, Tensor):
                    got = f"{name} of type {type(value).__name__}"
                    reason = f"must keep only tensors in the state of its optimizer, got {got}"
                    raise fault(self._settings, reason)
