"""EDM's preconditioner, extended to noise that is correlated with the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from genkit.errors import Code, Problem
from genkit.interfaces import Preconditioner, Stages
from genkit.settings import setting, sigma_setting
from genkit.types import Coefficients


@dataclass(frozen=True, kw_only=True)
class CoupledPreconditioner(Preconditioner):
    """Scales the network's input and target to unit variance if noise is assigned.

    EDM's coefficients follow from ``E|x|^2 / d = s^2 + sigma^2``. With covariance a of image and
    noise this becomes ``q = s^2 + 2 sigma a + sigma^2``, and the conditions of EDM's appendix B.6
    give

        c_in = q^-1/2, c_skip = (s^2 + sigma a) / q, c_out^2 = sigma^2 (s^2 - a^2) / q.

    The skip connection is the best linear estimate of the image. With a = 0 the coefficients are
    EDM's.
    """

    source = "EDM, arXiv 2206.00364, appendix B.6, with a covariance of image and noise"

    sigma_data: float = sigma_setting(0.5, "standard deviation of the data")
    covariance: float = setting(
        doc="covariance of image and noise per pixel, E<y - E y, n> / d; genkit audit prints it"
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if abs(self.covariance) >= self.sigma_data:
            reason = (
                f"must be between -sigma_data and sigma_data = {self.sigma_data:g}, got "
                f"{self.covariance:g}, which is a correlation above 1"
            )
            hint = "write the covariance that genkit audit prints for the recipe"
            yield Problem(("covariance",), reason, hint, Code.OUT_OF_RANGE)

    def _square(self, sigma: Tensor) -> Tensor:
        """Return q, the mean square of the elements of ``x = y + sigma n``."""
        return self.sigma_data**2 + 2 * self.covariance * sigma + sigma.square()

    @property
    def _residual(self) -> float:
        """Variance of the data that the noise does not predict: ``s^2 - a^2``."""
        return self.sigma_data**2 - self.covariance**2

    def coefficients(self, sigma: Tensor) -> Coefficients:
        square = self._square(sigma)
        return Coefficients(
            c_skip=(self.sigma_data**2 + self.covariance * sigma) / square,
            c_out=sigma * (self._residual / square).sqrt(),
            c_in=square.rsqrt(),
            c_noise=sigma.log() / 4,
        )

    def weight(self, sigma: Tensor) -> Tensor:
        """Return ``1 / c_out^2``, so that initially the expected loss is the same at all levels."""
        return self._square(sigma) / (sigma.square() * self._residual)
