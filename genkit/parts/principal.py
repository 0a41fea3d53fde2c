"""Principal directions of images or features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 2**22
"""Max number of values that are converted to float64 at a time, 34 MB. Chosen, not tuned."""

_DENSE = 1024
"""Max number of rows of a matrix for which all eigenvalues are computed, which takes milliseconds.

For the 3,072 values of a CIFAR-10 image and 64 directions, Lanczos iterations take 1.5 s on one
core and the dense routine takes 6 s.
"""


@dataclass(frozen=True)
class Directions:
    """Leading principal directions of items.

    Attributes:
        mean: ``[F]`` float64 mean of the items.
        deviations: ``[K]`` float64 standard deviations along the directions, decreasing, all above
            0.
        axes: ``[F, K]`` float64 matrix whose columns are the orthonormal directions.
    """

    mean: Tensor
    deviations: Tensor
    axes: Tensor

    @classmethod
    def of(cls, items: Tensor, count: int) -> Directions:
        """Return the directions of items, with variances normalized by N - 1.

        Requires memory for a square matrix of min(N, F) rows.

        Args:
            items: ``[N, F]`` items of any floating type, with N at least 2.
            count: max number of directions; fewer are returned if the items vary along fewer.
        """
        number, width = items.shape
        mean = torch.stack([part.double().sum(0) for part in rows(items)]).sum(0) / number
        if number >= width:
            covariance = torch.zeros(width, width, dtype=torch.float64)
            for part in rows(items):
                centered = part.double() - mean
                covariance.addmm_(centered.T, centered, alpha=1 / (number - 1))
            return cls.of_covariance(mean, covariance, count)
        gram = torch.zeros(number, number, dtype=torch.float64)
        step = max(1, BLOCK // number)
        columns = [slice(i, i + step) for i in range(0, width, step)]
        for some in columns:
            centered = items[:, some].double() - mean[some]
            gram.addmm_(centered, centered.T, alpha=1 / (number - 1))
        values, vectors = _leading(gram, count)
        scaled = vectors / (values * (number - 1)).sqrt()
        axes = [(items[:, some].double() - mean[some]).T @ scaled for some in columns]
        return cls(mean, values.sqrt(), torch.cat(axes))

    @classmethod
    def of_covariance(cls, mean: Tensor, covariance: Tensor, count: int) -> Directions:
        """Return the directions for a mean ``[F]`` and a covariance ``[F, F]``, both float64."""
        values, vectors = _leading(covariance, count)
        return cls(mean, values.sqrt(), vectors)

    def project(self, items: Tensor) -> Tensor:
        """Center ``[N, F]`` items and return their coordinates, ``[N, K]`` float64."""
        return torch.cat([(part.double() - self.mean) @ self.axes for part in rows(items)])


def rows(items: Tensor) -> tuple[Tensor, ...]:
    """Split ``[N, F]`` items into blocks of consecutive rows, each of about ``BLOCK`` values."""
    return torch.split(items, max(1, BLOCK // items.shape[1]))


def _leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues of a positive semidefinite matrix and their eigenvectors.

    Eigenvalues that are 0 up to rounding, such as those of constant pixels, are left out.
    """
    dense: NDArray[np.float64] = matrix.numpy()
    size = len(dense)
    if not dense.any():
        return torch.zeros(0, dtype=torch.float64), torch.zeros(size, 0, dtype=torch.float64)
    if count < size and size > _DENSE:
        # With a fixed start vector, equal matrices give bit-identical results.
        from scipy.sparse.linalg import eigsh

        first = np.random.default_rng(0).standard_normal(size)
        values, vectors = eigsh(dense, k=count, v0=first)
    else:
        from scipy.linalg import eigh

        values, vectors = eigh(dense, subset_by_index=(max(0, size - count), size - 1))
    kept = values > size * np.finfo(np.float64).eps * values[-1]  # the numerical rank
    # Largest first.
    return (
        torch.from_numpy(values[kept][::-1].copy()),
        torch.from_numpy(vectors[:, kept][:, ::-1].copy()),
    )
