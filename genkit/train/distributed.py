"""Distribute pools over ranks: each pool is coupled on one rank, which broadcasts the pairs.

Images, noise and augmentation are functions of the seed and the position, so every rank computes
them itself, and only indices are broadcast.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from genkit.errors import Code, DataError, GenkitError
from genkit.types import Pairs


@dataclass(frozen=True)
class Solution:
    """Pairs of a pool.

    Attributes:
        pairs: result of the coupler.
        seconds: time of the coupler in seconds.
    """

    pairs: Pairs
    seconds: float


class Exchange(Protocol):
    """Distribution of pools over ranks, and exchange of their pairs."""

    def solves(self, index: int) -> bool:
        """Return whether this rank couples the pool with an index."""
        ...

    def share(self, index: int, result: Solution | Exception | None) -> Solution:
        """Return the pairs of a pool. Collective: every rank must call this in the same order.

        Args:
            index: index of the pool.
            result: pairs or error of this rank; None if another rank couples the pool.

        Raises:
            Exception: the error of this rank.
            DataError: the error of the rank that coupled the pool.
        """
        ...


class _Unshared:
    """The exchange of a single process, which couples every pool."""

    def solves(self, index: int) -> bool:
        return True

    def share(self, index: int, result: Solution | Exception | None) -> Solution:
        if isinstance(result, Solution):
            return result
        raise result or DataError(f"pool {index} must have pairs, got none; report this as a bug")


LOCAL: Exchange = _Unshared()


class RankExchange:
    """The exchange of W ranks: rank k mod W couples pool k and broadcasts its pairs.

    Args:
        group: process group with a backend for CPU tensors, such as gloo. It must not be used for
            anything else, since it is called from a thread that runs beside the training loop.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._rank, self._size = dist.get_rank(group), dist.get_world_size(group)

    def solves(self, index: int) -> bool:
        return index % self._size == self._rank

    def share(self, index: int, result: Solution | Exception | None) -> Solution:
        facts, vectors = _pack(result)
        lengths = torch.tensor([len(facts), *vectors.shape])
        self._send(index, lengths)
        if not self.solves(index):
            facts = torch.empty(int(lengths[0]), dtype=torch.uint8)
            vectors = torch.empty(*lengths[1:].tolist(), dtype=torch.int64)
        self._send(index, facts)
        self._send(index, vectors)
        if isinstance(result, Exception):
            raise result
        return _unpack(facts, vectors)

    def _send(self, index: int, values: Tensor) -> None:
        """Fill ``values`` on every rank with those of the rank that coupled the pool."""
        if values.numel():
            dist.broadcast(values, group=self._group, group_src=index % self._size)


def _pack(result: Solution | Exception | None) -> tuple[Tensor, Tensor]:
    """Return a table as JSON bytes, and the index vectors.

    The table contains the error, or all fields of a solution except the vectors. Indices of images
    are left out if they are 0 to N - 1.
    """
    if not isinstance(result, Solution):
        code = result.code if isinstance(result, GenkitError) else None
        kind = "" if code else f"{type(result).__name__}: "
        facts: dict[str, object] = {"error": f"{kind}{result}", "code": (code or Code.DATA).name}
        vectors = torch.empty(0, 0, dtype=torch.int64)
    else:
        pairs = result.pairs
        facts = {"seconds": result.seconds, "gap": pairs.gap, "parts": pairs.parts}
        facts |= {"entropy": pairs.entropy}
        kept = torch.equal(pairs.data, torch.arange(len(pairs)))
        vectors = torch.stack([pairs.noise] if kept else [pairs.noise, pairs.data])
    return torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8), vectors


def _unpack(encoded: Tensor, vectors: Tensor) -> Solution:
    facts = json.loads(bytes(encoded.tolist()))
    if "error" in facts:
        raise DataError(facts["error"], Code[facts["code"]])
    data = vectors[1] if len(vectors) == 2 else torch.arange(vectors.shape[1])
    pairs = Pairs(data, vectors[0], facts["gap"], tuple(facts["parts"]), facts["entropy"])
    return Solution(pairs, facts["seconds"])
