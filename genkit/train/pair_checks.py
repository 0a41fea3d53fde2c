"""What a coupler returns is checked: pairs that are none would train a network on nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from genkit.errors import DataError
from genkit.interfaces import Coupler
from genkit.types import Batch, Pairs


def require_pairs(coupler: Coupler, pairs: object, images: int, noises: int, count: int) -> Pairs:
    """Return what a coupler returned, if it is what the coupler declares.

    Args:
        coupler: coupler that returned it.
        pairs: its result.
        images: number of images from which it chose.
        noises: number of noise samples from which it chose.
        count: number of pairs of the pool.

    Raises:
        DataError: it is not ``Pairs`` of int64 vectors of this length on the CPU, an index is out
            of range, or a coupler that declares a bijection uses an image or a noise sample twice.
    """
    name = f"coupler {type(coupler).__name__}"
    if not isinstance(pairs, Pairs):
        raise DataError(f"{name} must return Pairs, got {type(pairs).__name__}")
    for what, indices, limit in (("image", pairs.data, images), ("noise", pairs.noise, noises)):
        _require_indices(f"{name} must return {what} indices", indices, limit, count)
    if coupler.bijective:
        for what, indices, limit in (("image", pairs.data, images), ("noise", pairs.noise, noises)):
            uses = torch.bincount(indices, minlength=limit)
            if bool((uses != 1).any()):
                index = int((uses != 1).nonzero()[0])
                raise DataError(
                    f"{name} declares a bijection and must use each {what} once, got {what} "
                    f"{index} {int(uses[index])} times; correct pair, or return False from "
                    "bijective"
                )
    return pairs


def _require_indices(demand: str, indices: object, limit: int, count: int) -> None:
    if not isinstance(indices, Tensor):
        raise DataError(f"{demand} as a tensor, got {type(indices).__name__}")
    if indices.shape != (count,) or indices.dtype != torch.int64 or indices.device.type != "cpu":
        raise DataError(
            f"{demand} as {count} int64 numbers on the CPU, got {indices.dtype} of shape "
            f"{list(indices.shape)} on {indices.device.type}"
        )
    wrong = ((indices < 0) | (indices >= limit)).nonzero()
    if len(wrong):
        raise DataError(
            f"{demand} from 0 to {limit - 1}, got {int(indices[wrong[0]])} in pair {int(wrong[0])}"
        )


class Unchanged:
    """Check that a coupler leaves its arguments as they are.

    Args:
        coupler: coupler that is called.
        batch: its images.
        noise: its noise samples.
    """

    def __init__(self, coupler: Coupler, batch: Batch, noise: Tensor) -> None:
        self._coupler = coupler
        self._watched = {"images": batch.data, "noise": noise}
        # torch counts the changes in place of every tensor; comparing copies would cost more.
        self._versions = {name: tensor._version for name, tensor in self._watched.items()}

    def require(self) -> None:
        """Raise DataError if an argument was changed in place."""
        for name, tensor in self._watched.items():
            if tensor._version != self._versions[name]:
                raise DataError(
                    f"coupler {type(self._coupler).__name__} must leave its arguments as they are, "
                    f"and changed the {name} in place; compute on a copy"
                )
