"""Steps of an optimizer that change nothing where the gradient is not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from genkit.blame import refused
from genkit.interfaces import Optimizer


class FiniteStep:
    """Steps any optimizer of torch, or leaves weights and state as they are.

    Which of the two is decided on the device, without waiting for it.

    Args:
        settings: component that built the optimizer.
        optimizer: of the network; its state holds nothing but tensors.
    """

    def __init__(self, settings: Optimizer, optimizer: torch.optim.Optimizer) -> None:
        self._settings = settings
        self._optimizer = optimizer
        # What torch's GradScaler looks at: fused optimizers change nothing where found_inf is 1.
        self._fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        self._first = True

    def __call__(self, finite: Tensor) -> None:
        """Step where ``finite`` (0-d, bool) is true.

        Raises:
            DataError: the optimizer keeps something else than tensors; names its component.
        """
        optimizer = self._optimizer
        if self._fused:
            optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            optimizer.step()
            del optimizer.found_inf  # type: ignore[attr-defined]
        elif not self._first:
            self._step_or_take_back(finite)
        elif finite:  # the host waits: state that the first step creates cannot be taken back
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
        # Counters that some optimizers keep on the host go on: it does not wait for the device.
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
                    reason = f"must keep tensors in the state of its optimizer, got {got}"
                    raise refused(self._settings, reason)
