"""Sinkhorn's iteration: the dual potentials of entropic optimal transport between two pools.

The plan between N images and M noise samples is ``P_ij = exp((f_i + g_j - C_ij) / epsilon)``, with
f and g such that every row sums to 1 and every column to N / M.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.tensors import Cost, require_finite, require_one_shape

GIB = 2**30

MIN_ROWS = 256
"""Minimum rows of a block, because matrix products with fewer rows are slow; chosen, not tuned."""

BLOCK = {"cpu": 2**23, "cuda": 2**28}
"""Size of a block of rows in bytes: it fits into a CPU's cache, or keeps a GPU busy. Chosen, not
tuned."""

FIRST_EPSILON, EPSILON_FACTOR = 0.15, 0.4
"""First epsilon in units of ``Costs.scale``, and the ratio of successive values of epsilon. The
iteration at each epsilon starts from the potentials at the previous epsilon. For a tolerance of
0.01 at epsilon 0.03, pools of 1,024 synthetic images take 25 iterations in total. With the last
epsilon alone they take 36 to 40. First values from 0.1 to 0.6 and ratios from 0.2 to 0.6 take 25 to
30 iterations."""

COARSE_TOLERANCE, COARSE_ITERATIONS = 0.1, 10
"""Error and number of iterations at which epsilon is decreased. Errors from 0.03 to 0.3, and 5 to
30 iterations, make little difference: 24 to 28 iterations in total in the above case."""

RELAXATION, MOMENTUM = 1.5, 0.3
"""Factor of Sinkhorn's step, and share of the previous step that is added to it (successive
over-relaxation with momentum). The above case takes 25 iterations, and 56 to 59 with plain steps.
Larger values save little (23 iterations at best) and are close to instability. Near the solution,
Sinkhorn's step has eigenvalues in (0, 1], for which these values are stable."""

MAX_SHIFT = 20.0
"""Maximum change of g, in units of epsilon, before the kernel is recomputed: exp(20) is far from
overflow in float32. Chosen, not tuned."""

MIN_COLUMN_SUM = 1e-30
"""Lower limit of column sums, to keep their logarithm finite. A column whose sum underflows
recovers over several steps."""

MIN_LOG = -60.0
"""Lower limit of the logarithms of kernel entries, because computing with denormal numbers is
slow."""


class Costs:
    """The cost matrix of a pool, in blocks of rows.

    The matrix is stored if it and a kernel of the same size fit into ``memory``. Otherwise its
    blocks are recomputed from images and noise at each use.

    Attributes:
        whole: ``[N, M]`` costs, float64 for float64 inputs, else float32; None if not stored.
        buffer: ``[N, M]`` memory for a kernel, of the same dtype; None if ``whole`` is None.
        rows: slices of consecutive rows that cover all rows.
        column_means: ``[M]`` mean cost of each noise sample, float64.
        scale: standard deviation of the costs after subtraction of row and column means, which do
            not affect the plan.
        dtype: dtype of the costs.
        level: root mean square of the costs.

    Args:
        images: ``[N, *shape]`` images.
        noise: ``[M, *shape]`` noise samples of unit variance.
        cost: ``euclidean`` or ``squared``, as in :func:`genkit.tensors.pairwise_cost`.
        memory: maximum size of the matrix and a kernel together, in GiB.

    Raises:
        DataError: the items differ in shape, or an image, a noise sample or a cost is not finite.
    """

    def __init__(
        self, images: Tensor, noise: Tensor, cost: Cost = "euclidean", memory: float = 2.0
    ) -> None:
        require_one_shape(images, noise)
        wide = torch.float64 if torch.float64 in (images.dtype, noise.dtype) else torch.float32
        self._images, self._noise = (
            v.detach()[:, None].flatten(1).to(wide) for v in (images, noise)
        )
        self._squares = tuple(torch.linalg.vecdot(v, v) for v in (self._images, self._noise))
        # Squared norms are needed anyway, and they are finite only if the values are finite. So a
        # separate pass over all values is needed only to find the item to report.
        if not all(bool(torch.isfinite(squares.sum())) for squares in self._squares):
            require_finite(images, "image")
            require_finite(noise, "noise")
        # Every cost is at most the squared sum of the two norms.
        norms = self._squares[0].sqrt(), self._squares[1].sqrt()
        require_finite((norms[0] + norms[1].max()).square(), "the cost of image")
        self._cost = cost
        self.dtype = wide
        self.shape = len(images), len(noise)
        row_bytes = self.shape[1] * wide.itemsize
        step = max(MIN_ROWS, BLOCK.get(images.device.type, BLOCK["cuda"]) // row_bytes)
        self.rows = [slice(i, min(i + step, len(images))) for i in range(0, len(images), step)]
        fits = 2 * len(images) * row_bytes <= memory * GIB
        self.whole = self._images.new_empty(self.shape) if fits else None
        self.buffer = torch.empty_like(self.whole) if self.whole is not None else None
        self._measure()

    def block(self, rows: slice) -> Tensor:
        """Return the costs of a slice of rows, ``[len(rows), M]``; callers must not modify them."""
        return self._compute(rows, None) if self.whole is None else self.whole[rows]

    def _compute(self, rows: slice, out: Tensor | None) -> Tensor:
        # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y is one matrix product; rounding may make it negative.
        images, squares = self._images[rows], self._squares[0][rows]
        base = self._squares[1].expand(len(images), -1)
        squared = torch.addmm(base, images, self._noise.T, alpha=-2, out=out)
        squared.add_(squares[:, None]).clamp_(min=0)
        return squared if self._cost == "squared" else squared.sqrt_()

    def _measure(self) -> None:
        """Compute all costs once, store them if they fit, and compute their moments."""
        total = self._noise.new_zeros(self.shape[1], dtype=torch.float64)
        squares = spread = total.new_zeros(())
        # One buffer for all blocks: allocating new memory takes longer than the sum itself.
        block = self.rows[0].stop
        spare = self._noise.new_empty(block, self.shape[1]) if self.buffer is None else self.buffer
        for rows in self.rows:
            costs = self._compute(rows, None if self.whole is None else self.whole[rows])
            total += costs.sum(0)
            means = costs.mean(1, keepdim=True)
            squares = squares + means.double().square().sum()
            centered = torch.sub(costs, means, out=spare[: len(costs)])
            spread = spread + centered.square_().sum().double()
        self.column_means = total / self.shape[0]
        within = float(spread) / math.prod(self.shape)
        # Minus the variance of the column means; rounding may make the difference negative.
        self.scale = math.sqrt(max(0.0, within - float(self.column_means.var(correction=0))))
        self.level = math.sqrt(float(squares) / self.shape[0] + within)

    def epsilon(self, relative: float) -> float:
        """Convert a relative epsilon to the unit of the costs.

        Args:
            relative: epsilon in units of ``scale``.

        Returns:
            Epsilon in the unit of the costs, at least the value below which rounding of the costs
            would determine the plan.
        """
        minimum = 16 * torch.finfo(self._images.dtype).eps * self.level
        return max(relative * self.scale, minimum) or 1.0


@dataclass(frozen=True)
class Potentials:
    """The result of Sinkhorn's iteration.

    Attributes:
        f: ``[N]`` potentials of the images, such that every row of the plan sums to 1.
        g: ``[M]`` potentials of the noise samples, such that every column sums to about N / M.
        epsilon: weight of the entropy, in the unit of the costs.
        error: root mean square of the relative errors of the column sums.
        iterations: total number of iterations, at all values of epsilon.
    """

    f: Tensor
    g: Tensor
    epsilon: float
    error: float
    iterations: int


class _Kernel:
    """The kernel ``exp((g - C) / epsilon)``, each row divided by its maximum, in blocks of rows."""

    def __init__(self, costs: Costs, g: Tensor, epsilon: float) -> None:
        self.costs, self.g, self.epsilon, self.buffer = costs, g, epsilon, costs.buffer
        self.maxima = g.new_empty(costs.shape[0])
        self.sums = torch.empty_like(self.maxima)
        if self.buffer is not None:
            for rows in costs.rows:
                self._compute(rows, self.buffer[rows])

    def columns(self, factors: Tensor) -> Tensor:
        """Return the column sums of the kernel after scaling columns and normalizing rows to sum 1.

        Args:
            factors: ``[M]`` factors of the columns.
        """
        columns = torch.zeros_like(factors)
        for rows in self.costs.rows:
            block = self._compute(rows, None) if self.buffer is None else self.buffer[rows]
            sums = torch.mv(block, factors, out=self.sums[rows])
            columns.addmv_(block.T, sums.reciprocal())
        return columns.mul_(factors)

    def f(self) -> Tensor:
        """Return the potential f of the last call of :meth:`columns`."""
        return -self.epsilon * self.sums.log() - self.maxima

    def _compute(self, rows: slice, out: Tensor | None) -> Tensor:
        kernel = torch.sub(self.g, self.costs.block(rows), out=out)
        maxima = kernel.amax(1, keepdim=True)
        self.maxima[rows] = maxima[:, 0]
        return kernel.sub_(maxima).div_(self.epsilon).clamp_(min=MIN_LOG).exp_()


def potentials(
    costs: Costs, epsilon: float, *, tolerance: float = 0.01, iterations: int = 10_000
) -> Potentials:
    """Run Sinkhorn's iteration with decreasing epsilon until the columns have equal sums.

    Args:
        costs: costs of the pool.
        epsilon: weight of the entropy, in the unit of the costs; see :meth:`Costs.epsilon`.
        tolerance: error at which the iteration stops, see :class:`Potentials`.
        iterations: maximum number of iterations at the last epsilon, even if the error is larger.
    """
    count, noises = costs.shape
    # Centered at 0, where rounding errors are smallest; f contains the mean of the costs.
    g = (costs.column_means - costs.column_means.mean()).to(costs.dtype)
    stage, total = max(epsilon, FIRST_EPSILON * costs.scale), 0
    while True:
        last = stage <= epsilon
        target = tolerance if last else COARSE_TOLERANCE
        max_steps = iterations if last else COARSE_ITERATIONS
        kernel = _Kernel(costs, g, stage)
        # Change of g since the last kernel was computed, in units of epsilon.
        shift = previous = torch.zeros_like(g)
        for step in range(1, 1 + max_steps):
            columns = kernel.columns(shift.exp())
            uses = columns.mul_(noises / count)
            error = math.sqrt(float((uses - 1).square_().mean()))
            total += 1
            if error <= target or step == max_steps:
                break
            log_uses = uses.clamp_(min=MIN_COLUMN_SUM).log_()
            momentum = MOMENTUM * (shift - previous)
            shift, previous = shift + momentum - RELAXATION * log_uses, shift
            if float(shift.abs().max()) > MAX_SHIFT:
                previous = previous - shift
                kernel = _Kernel(costs, kernel.g + stage * shift, stage)
                shift = torch.zeros_like(g)
        g = kernel.g + stage * shift
        if last:
            return Potentials(kernel.f(), g, stage, error, total)
        stage = max(epsilon, EPSILON_FACTOR * stage)
