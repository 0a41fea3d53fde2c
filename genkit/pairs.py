"""Check the pairs of a coupler against its declarations."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import cast

import torch
from torch import Tensor

from genkit.blame import fault, require_method, require_type
from genkit.errors import Code
from genkit.interfaces import (
    AnyCoupler,
    BoundCoupler,
    BoundDatasetCoupler,
    Coupler,
    DatasetCoupler,
)
from genkit.types import Batch, Pairs


def pairs_of(
    coupler: AnyCoupler,
    bound: BoundCoupler | BoundDatasetCoupler,
    images: Batch,
    noise: Tensor,
    generator: torch.Generator,
) -> Pairs:
    """Return the pairs of images and noise, after checking them.

    Args:
        coupler: coupler of the recipe, with its declarations.
        bound: result of its ``bind``.
        images: images of a pool, or all items of the data set for a dataset coupler.
        noise: ``[M, *shape]`` unit-variance noise.
        generator: generator on the CPU.

    Raises:
        DataError: the type, device, length or range of the result is wrong; a coupler that
            declares a bijection does not use each image and noise sample exactly once; or
            ``gap``, ``parts`` or ``entropy`` is invalid. The message contains component, plugin,
            distribution and index.
    """
    if isinstance(coupler, DatasetCoupler):
        choosing = require_method(coupler, cast("BoundDatasetCoupler", bound), "choose")
        chosen = choosing.choose(images, noise, generator)
        _require_indices(coupler, "image", chosen, len(images), len(noise))
        return Pairs(chosen, torch.arange(len(noise)))
    pairing = require_method(coupler, cast("BoundCoupler", bound), "pair")
    pairs = require_type(coupler, "pair", pairing.pair(images, noise, generator), Pairs)
    for what, indices, limit in (
        ("image", pairs.data, len(images)),
        ("noise", pairs.noise, len(noise)),
    ):
        _require_indices(coupler, what, indices, limit, len(images))
        if isinstance(coupler, Coupler) and coupler.bijective:
            _require_each_once(coupler, what, indices, limit)
    gap, parts = pairs.gap, pairs.parts
    if gap is not None and (not isinstance(gap, (int, float)) or not 0 <= gap < math.inf):
        raise fault(coupler, f"must return a finite gap of at least 0 or None, got {gap!r}")
    if pairs.entropy is not None and not (
        isinstance(pairs.entropy, (int, float)) and 0 <= pairs.entropy <= 1
    ):
        raise fault(coupler, f"must return an entropy in [0, 1] or None, got {pairs.entropy!r}")
    if not isinstance(parts, tuple) or not all(type(part) is int for part in parts):
        raise fault(coupler, f"must return parts as a tuple of integers, got {parts!r}")
    if parts and sum(parts) != len(images):
        raise fault(coupler, f"must return parts whose sum is {len(images)}, got {sum(parts)}")
    return pairs


def _require_indices(
    coupler: AnyCoupler, what: str, indices: object, limit: int, count: int
) -> None:
    demand = f"must return {what} indices"
    if not isinstance(indices, Tensor):
        raise fault(coupler, f"{demand} as a tensor, got {type(indices).__name__}")
    if indices.shape != (count,) or indices.dtype != torch.int64 or indices.device.type != "cpu":
        raise fault(
            coupler,
            f"{demand} as {count} int64 numbers on the CPU, got {indices.dtype} of shape "
            f"{list(indices.shape)} on {indices.device.type}",
        )
    wrong = ((indices < 0) | (indices >= limit)).nonzero()
    if len(wrong):
        raise fault(
            coupler,
            f"{demand} from 0 to {limit - 1}, got {int(indices[wrong[0]])} in pair {int(wrong[0])}",
        )


def _require_each_once(coupler: AnyCoupler, what: str, indices: Tensor, limit: int) -> None:
    uses = torch.bincount(indices, minlength=limit)
    wrong = (uses != 1).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise fault(
            coupler,
            f"declares a bijection and must use each {what} once, got {what} {index} "
            f"{int(uses[index])} times; correct pair, or do not declare bijective",
        )


def require_unchanged(coupler: AnyCoupler, what: str, argument: Batch, batch: Batch) -> None:
    """Raise DataError if a coupler changed its argument, which was a copy of ``batch``.

    Args:
        coupler: coupler that was called.
        what: name of the argument in the message.
        argument: argument after the call.
        batch: batch from which the argument was copied before the call.
    """
    for name in (f.name for f in fields(batch)):
        before, after = getattr(batch, name), getattr(argument, name)
        if isinstance(before, Tensor) and not torch.equal(before, after.to(before.device)):
            raise fault(
                coupler,
                f"must not change its arguments, but changed the {name} of the {what} in place; "
                "compute on a copy",
                Code.CHANGED,
            )
