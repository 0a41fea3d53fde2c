"""A raw network behind a preconditioner is a denoiser (EDM, arXiv 2206.00364, eq. 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from genkit.interfaces import Preconditioner


def as_column(values: Tensor, like: Tensor) -> Tensor:
    """Return ``[B]`` values shaped ``[B, 1, ...]`` so that they broadcast over ``like``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


class Preconditioned(nn.Module):
    """``D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)``.

    Args:
        network: ``F``; called as ``network(x, c_noise, labels)`` with ``c_noise`` ``[B]``, and with
            ``augment_labels`` as a fourth argument where they are given.
        preconditioner: owner of the four coefficients and of the loss weight.
    """

    def __init__(self, network: nn.Module, preconditioner: Preconditioner) -> None:
        super().__init__()
        self.network = network
        self.preconditioner = preconditioner

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Return the denoised ``x``.

        Args:
            x: ``[B, *shape]`` noisy data.
            sigma: ``[B]`` noise levels, above 0.
            labels: ``[B]`` int64 class indices, where the network takes them.
            augment_labels: ``[B, A]`` how the data was augmented, where the network takes that;
                None for data as it is, and for sampling.
        """
        c = self.preconditioner.coefficients(sigma)
        told = () if augment_labels is None else (augment_labels,)
        raw = self.network(as_column(c.c_in, x) * x, c.c_noise, labels, *told)
        denoised: Tensor = as_column(c.c_skip, x) * x + as_column(c.c_out, x) * raw.to(x.dtype)
        return denoised
