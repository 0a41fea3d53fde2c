r"""Linear-path flow matching as a preconditioning of a denoiser.

Flow matching (arXiv 2210.02747, eq. 20-23; rectified flow, arXiv 2209.03003) moves along
x_t = (1 - t) x_0 + t n, from data at t = 0 to noise at t = 1, and trains a network F for the
velocity v = dx_t/dt = n - x_0. Divided by 1 - t the path is x = x_0 + sigma n with

    sigma = t / (1 - t),    t = sigma / (1 + sigma),    x_t = (1 - t) x = x / (1 + sigma).

Since x_t = x_0 + t v, the velocity that F predicts stands for the clean image

    D(x; sigma) = x_t - t F(x_t; t):    c_in = c_skip = 1 / (1 + sigma),    c_out = -t.

And D - x_0 = -t (F - v), so that with the weight 1 / t^2 the denoising loss is the flow-matching
loss |F - v|^2. Euler's step in sigma is Euler's step of dx_t/dt = F in t, to the same states: with
(x - D) / sigma = x_t + (1 - t) F, a step from sigma to sigma' gives x'_t = x_t + (t' - t) F.

(Some write the time the other way round, from noise at 0 to data at 1; v then has the other sign.)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genkit.interfaces import Preconditioner
from genkit.types import Coefficients


@dataclass(frozen=True, kw_only=True)
class FlowPreconditioner(Preconditioner):
    """The network predicts the velocity of a straight path from data to noise: flow matching."""

    source = "Flow matching, arXiv 2210.02747, eq. 20-23; rectified flow, arXiv 2209.03003"

    def coefficients(self, sigma: Tensor) -> Coefficients:
        scale, time = 1 / (1 + sigma), sigma / (1 + sigma)
        return Coefficients(c_skip=scale, c_out=-time, c_in=scale, c_noise=time)

    def weight(self, sigma: Tensor) -> Tensor:
        """Return ``1 / t^2``: the loss is that of the predicted velocity."""
        return ((1 + sigma) / sigma).square()
