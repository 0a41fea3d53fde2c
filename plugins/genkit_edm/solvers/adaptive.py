"""The solver ``adaptive``: Runge-Kutta methods with adaptive step size, as a reference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Solver
from genkit.settings import setting, sigma_setting
from genkit.tensors import require_finite
from genkit.types import Denoise, RandnLike, State

if TYPE_CHECKING:
    from scipy.integrate import OdeSolver

Flat = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Adaptive(Solver):
    """Chooses step sizes that keep the error within a tolerance; a reference for other solvers.

    Solves dx / d ln(sigma) = x - D(x; sigma) with scipy, on the CPU in float64. The number of
    network calls is not known in advance. Step sizes follow from the error of the whole batch, so a
    sample depends on the other samples of its batch, within the tolerance. The schedule determines
    the first noise level and the levels at which states are returned. Below its last level the
    solution continues to ``sigma_end``; one Euler step leads from there to 0. If the network does
    not support levels as low as ``sigma_end``, set ``sigma_end`` to its lowest level.
    """

    source = "Dormand and Prince (1980); Hairer, Norsett and Wanner (1993); scipy.integrate"

    method: Literal["RK45", "DOP853"] = setting(
        "RK45", doc="Runge-Kutta method: order 5 (RK45) or 8 (DOP853)"
    )
    rtol: float = setting(1e-5, doc="maximum error of a step, relative to x", at_least=1e-13)
    atol: float = setting(1e-5, doc="maximum absolute error of a step", above=0)
    sigma_end: float = sigma_setting(0.002, "noise level of the last step, an Euler step to 0")

    def solve(
        self, denoise: Denoise, x: Tensor, sigmas: Tensor, randn_like: RandnLike
    ) -> Iterator[State]:
        from scipy import integrate

        method: type[OdeSolver] = getattr(integrate, self.method)
        end = sigmas[-2].clamp(max=self.sigma_end)
        first, last = math.log(sigmas[0]), math.log(end)

        def tensor(flat: Flat) -> Tensor:
            return torch.from_numpy(flat.reshape(x.shape)).to(x)

        def slope(log_sigma: float, flat: Flat) -> Flat:
            # Older releases of scipy evaluate beyond the end to choose their first step.
            inside = min(max(log_sigma, last), first)
            at, sigma = tensor(flat), sigmas.new_tensor(math.exp(inside))
            denoised = denoise(at, sigma, inner=True)
            # If the slope is not finite, no step is ever accepted, and the loop would not end.
            require_finite(denoised, f"at noise level {float(sigma):.4g}, the denoised sample")
            return _flat(at - denoised)

        stepper = method(slope, first, _flat(x), last, rtol=self.rtol, atol=self.atol)
        for sigma in sigmas[:-1]:
            at = tensor(_solution(stepper, math.log(sigma)))
            denoised = denoise(at, sigma)
            yield State(at, float(sigma), denoised)
        if end < sigmas[-2]:
            denoised = denoise(tensor(_solution(stepper, last)), end, inner=True)
        yield State(denoised, 0.0, None)


def _flat(x: Tensor) -> Flat:
    flat: Flat = x.reshape(-1).cpu().double().numpy()  # some devices have no float64
    return flat


def _solution(stepper: OdeSolver, time: float) -> Flat:
    """Return the solution at a time, taking as many steps as needed.

    Raises:
        DataError: the tolerance requires steps smaller than the spacing of floating-point numbers.
    """
    while stepper.t > time:
        failure = stepper.step()
        if failure is not None:
            raise DataError(
                f"the adaptive solver stopped at noise level {math.exp(stepper.t):.4g}: {failure} "
                "Write larger values for rtol and atol",
                Code.NOT_CONVERGED,
            )
    state: Flat = stepper.y if stepper.t == time else stepper.dense_output()(time)
    return state
