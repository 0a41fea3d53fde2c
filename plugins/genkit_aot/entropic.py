"""Sinkhorn's iteration: the dual potentials of entropic optimal transport between two pools.

The plan between N images and M noises is ``P_ij = exp((f_i + g_j - C_ij) / epsilon)``, where f and
g are such that every row sums to 1 and every column to N / M.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.tensors import Cost, require_finite, require_one_shape

GIB = 2**30

LEAST_ROWS = 256
"""Of a block: a matrix product of fewer is slow."""

BLOCK = {"cpu": 2**23, "cuda": 2**28}
"""Bytes of a block of rows: what stays in a processor's cache, or what keeps a GPU busy."""

FIRST, FACTOR = 0.15, 0.4
"""Epsilon begins at this share of the scale and falls by this factor, g going on from where the
stage before left it."""

COARSE, FEW = 0.1, 10
"""The error to which a stage before the last goes, and the most iterations it takes for that."""

RELAXATION, MOMENTUM = 1.5, 0.3
"""A step of g goes this much further than Sinkhorn's, and repeats this share of the last one:
about half the iterations. The plain step has eigenvalues in (0, 1], so these stay stable."""

SPAN = 20.0
"""How far, in epsilons, g may move from where the kernel was made before it is made anew."""

TINY = 1e-30
"""The least sum of a column: one that underflows is raised step by step."""

LEAST = -60.0
"""Logarithm of the least entry of a kernel: keeps denormal numbers, which are slow, out of it."""


class Costs:
    """The costs of a pool, a block of rows at a time.

    The matrix is kept where it and a kernel of the same size fit into ``memory``; otherwise a
    block is computed from the images and the noise whenever it is asked for.

    Attributes:
        whole: ``[N, M]``, float64 for float64 inputs and float32 for all others; None where it
            does not fit.
        room: ``[N, M]`` for a kernel, of the same type; None where ``whole`` is.
        rows: blocks of consecutive rows that together are all.
        column_means: ``[M]`` mean cost of each noise, float64.
        scale: standard deviation of the costs after the mean of each image and of each noise is
            taken out. Those means belong to no pair: they change no plan.
        dtype: of the costs.
        level: root mean square of the costs.

    Args:
        images: ``[N, *shape]``.
        noise: ``[M, *shape]``, of unit variance.
        cost: ``euclidean`` or ``squared``, as :func:`genkit.tensors.pairwise_cost` has it.
        memory: GiB that the matrix and a kernel may take together.

    Raises:
        DataError: the items differ in shape, or an image, a noise or a cost is not finite.
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
        # One pass over the values serves both: their squares are finite only where they are.
        if not all(bool(torch.isfinite(squares.sum())) for squares in self._squares):
            require_finite(images, "image")
            require_finite(noise, "noise")
        # No cost is above the square of the sum of the two norms.
        norms = self._squares[0].sqrt(), self._squares[1].sqrt()
        require_finite((norms[0] + norms[1].max()).square(), "the cost of image")
        self._cost = cost
        self.dtype = wide
        self.shape = len(images), len(noise)
        bytes_a_row = self.shape[1] * wide.itemsize
        step = max(LEAST_ROWS, BLOCK.get(images.device.type, BLOCK["cuda"]) // bytes_a_row)
        self.rows = [slice(i, min(i + step, len(images))) for i in range(0, len(images), step)]
        kept = 2 * len(images) * bytes_a_row <= memory * GIB
        self.whole = self._images.new_empty(self.shape) if kept else None
        self.room = torch.empty_like(self.whole) if self.whole is not None else None
        self._measure()

    def block(self, rows: slice) -> Tensor:
        """Return the costs of some images, ``[len(rows), M]``; not to be written to."""
        return self._computed(rows, None) if self.whole is None else self.whole[rows]

    def _computed(self, rows: slice, out: Tensor | None) -> Tensor:
        # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, one matrix product; rounding may leave a negative.
        images, squares = self._images[rows], self._squares[0][rows]
        base = self._squares[1].expand(len(images), -1)
        squared = torch.addmm(base, images, self._noise.T, alpha=-2, out=out)
        squared.add_(squares[:, None]).clamp_(min=0)
        return squared if self._cost == "squared" else squared.sqrt_()

    def _measure(self) -> None:
        """Compute all costs once: keep them where there is room, and take their moments."""
        total = self._noise.new_zeros(self.shape[1], dtype=torch.float64)
        squares = spread = total.new_zeros(())
        # Written again for each block: memory that is new to the process takes longer than the sum.
        block = self.rows[0].stop
        spare = self._noise.new_empty(block, self.shape[1]) if self.room is None else self.room
        for rows in self.rows:
            costs = self._computed(rows, None if self.whole is None else self.whole[rows])
            total += costs.sum(0)
            means = costs.mean(1, keepdim=True)
            squares = squares + means.double().square().sum()
            off = torch.sub(costs, means, out=spare[: len(costs)])
            spread = spread + off.square_().sum().double()
        self.column_means = total / self.shape[0]
        within = float(spread) / math.prod(self.shape)
        # Less what belongs to the noises alone; rounding may leave a negative.
        self.scale = math.sqrt(max(0.0, within - float(self.column_means.var(correction=0))))
        self.level = math.sqrt(float(squares) / self.shape[0] + within)

    def epsilon(self, relative: float) -> float:
        """Return an epsilon in the unit of the costs.

        Args:
            relative: in units of ``scale``.

        Returns:
            It, or the least with which rounding of the costs does not decide over the plan.
        """
        least = 16 * torch.finfo(self._images.dtype).eps * self.level
        return max(relative * self.scale, least) or 1.0


@dataclass(frozen=True)
class Potentials:
    """What Sinkhorn's iteration found.

    Attributes:
        f: ``[N]``, such that every row of the plan sums to 1.
        g: ``[M]``, such that every column sums to about N / M.
        epsilon: weight of the entropy, in the unit of the costs.
        error: root mean square of how far the columns' sums are from N / M, as a fraction of it.
        iterations: that were taken, over all stages.
    """

    f: Tensor
    g: Tensor
    epsilon: float
    error: float
    iterations: int


class _Kernel:
    """``exp((g - C) / epsilon)``, each row over its largest entry, kept or made block by block."""

    def __init__(self, costs: Costs, g: Tensor, epsilon: float) -> None:
        self.costs, self.g, self.epsilon, self.kept = costs, g, epsilon, costs.room
        self.top = g.new_empty(costs.shape[0])
        self.sums = torch.empty_like(self.top)
        if self.kept is not None:
            for rows in costs.rows:
                self._made(rows, self.kept[rows])

    def columns(self, factors: Tensor) -> Tensor:
        """Return what the columns sum to, each times its factor, where every row sums to 1."""
        columns = torch.zeros_like(factors)
        for rows in self.costs.rows:
            block = self._made(rows, None) if self.kept is None else self.kept[rows]
            sums = torch.mv(block, factors, out=self.sums[rows])
            columns.addmv_(block.T, sums.reciprocal())
        return columns.mul_(factors)

    def f(self) -> Tensor:
        """Return the potential with which every row summed to 1, the last time."""
        return -self.epsilon * self.sums.log() - self.top

    def _made(self, rows: slice, out: Tensor | None) -> Tensor:
        kernel = torch.sub(self.g, self.costs.block(rows), out=out)
        top = kernel.amax(1, keepdim=True)
        self.top[rows] = top[:, 0]
        return kernel.sub_(top).div_(self.epsilon).clamp_(min=LEAST).exp_()


def potentials(
    costs: Costs, epsilon: float, *, tolerance: float = 0.01, iterations: int = 10_000
) -> Potentials:
    """Iterate until every noise is used alike.

    Epsilon falls in stages from a share of the costs' scale, each stage going on where the one
    before ended: where the last epsilon is small, half as many iterations as there alone.

    Args:
        costs: of the pool.
        epsilon: weight of the entropy, in the unit of the costs; see :meth:`Costs.epsilon`.
        tolerance: the error at which it stops, see :class:`Potentials`.
        iterations: at the last epsilon, after which it stops, whatever the error.
    """
    count, noises = costs.shape
    # Around 0, so that rounding takes the least from it; f has what all costs have in common.
    g = (costs.column_means - costs.column_means.mean()).to(costs.dtype)
    stage, total = max(epsilon, FIRST * costs.scale), 0
    while True:
        last = stage <= epsilon
        wanted, most = (tolerance, iterations) if last else (COARSE, FEW)
        kernel = _Kernel(costs, g, stage)
        moved = before = torch.zeros_like(g)  # from the kernel's g, in epsilons
        for step in range(1, 1 + most):
            columns = kernel.columns(moved.exp())
            uses = columns.mul_(noises / count)
            error = math.sqrt(float((uses - 1).square_().mean()))
            total += 1
            if error <= wanted or step == most:
                break
            ahead = moved + MOMENTUM * (moved - before) - RELAXATION * uses.clamp_(min=TINY).log_()
            moved, before = ahead, moved
            if float(moved.abs().max()) > SPAN:
                before = before - moved
                kernel = _Kernel(costs, kernel.g + stage * moved, stage)
                moved = torch.zeros_like(g)
        g = kernel.g + stage * moved
        if last:
            return Potentials(kernel.f(), g, stage, error, total)
        stage = max(epsilon, FACTOR * stage)
