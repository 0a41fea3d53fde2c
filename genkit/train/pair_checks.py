"""Checks of the pairs that a coupler returns, and of arguments that it must not change."""

from __future__ import annotations

import math
from dataclasses import fields

import torch
from torch import Tensor

from genkit.errors import DataError
from genkit.interfaces import Coupler
from genkit.types import Batch, Pairs


def require_pairs(coupler: Coupler, pairs: object, images: int, noises: int, count: int) -> Pairs:
    """Return the result of a coupler, checked against what the coupler declares.

    Args:
        coupler: coupler that computed the pairs.
        pairs: result of the coupler.
        images: number of images from which it chose.
        noises: number of noise samples from which it chose.
        count: number of pairs of the pool.

    Raises:
        DataError: it is not ``Pairs`` of int64 vectors of this length on the CPU, an index is out
            of range, a coupler that declares a bijection uses an image or a noise sample twice, or
            ``gap`` or ``parts`` is invalid.
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
    gap, parts = pairs.gap, pairs.parts
    if gap is not None and (not isinstance(gap, (int, float)) or not 0 <= gap < math.inf):
        raise DataError(f"{name} must return a finite gap of at least 0 or None, got {gap!r}")
    if not isinstance(parts, tuple) or not all(type(part) is int for part in parts):
        raise DataError(f"{name} must return parts as a tuple of integers, got {parts!r}")
    if parts and sum(parts) != count:
        raise DataError(f"{name} must return parts of {count} pairs, got {sum(parts)} in all")
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


def require_unchanged(coupler: Coupler, what: str, given: Batch, batch: Batch) -> None:
    """Raise DataError if a coupler changed what it was given, a copy of ``batch``.

    Args:
        coupler: coupler that was called.
        what: name of the argument in the message.
        given: copy that it was given.
        batch: what was copied.
    """
    for name in (f.name for f in fields(batch)):
        before, after = getattr(batch, name), getattr(given, name)
        if isinstance(before, Tensor) and not torch.equal(before, after.to(before.device)):
            raise DataError(
                f"coupler {type(coupler).__name__} must leave its arguments as they are, and "
                f"changed the {name} of the {what} in place; compute on a copy"
            )
