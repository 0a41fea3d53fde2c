"""Laws of couplers."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor

from genkit.errors import DataError
from genkit.interfaces import Coupler
from genkit.random import generator
from genkit.tensors import Cost, pairwise_cost
from genkit.testing.laws import leaves_alone, require, tensors_of
from genkit.types import Batch, Pairs

SHAPE = (1, 2, 3)
"""Of an item in the laws; height and width differ, so that a mix-up shows."""

POOLS = 128
"""Pools over which the laws of a distribution are measured, 16 pairs each."""


def check_coupler(coupler: Coupler, *, minimises: Cost | None = None) -> None:
    """Check every law of a coupler.

    Args:
        coupler: what is checked.
        minimises: the cost whose total over a pool its pairs make least, under whatever
            restriction it has, such as pairing inside a class; None where it minimises none.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    _check_declarations(coupler)
    for size in (1, 2, 5, 16):
        _check_pool(coupler, *_pool(size), minimises)
    lone, noise = _pool(6)
    _check_pool(coupler, replace(lone, labels=torch.tensor([0, 0, 1, 0, 0, 0])), noise, minimises)
    twins, noise = _pool(8)
    _check_pool(coupler, twins.with_data(twins.data[:1].expand_as(twins.data)), noise, minimises)
    _check_pool(coupler, twins, noise[:1].expand_as(noise), minimises)
    _check_half_precision(coupler)
    _check_not_finite(coupler)
    _check_overflow(coupler)
    if coupler.preserves_noise_marginal:
        _check_marginal(coupler, None)
    for attribute in sorted(coupler.preserves_conditional_prior):
        _check_marginal(coupler, attribute)


def _pool(size: int, index: int = 0) -> tuple[Batch, Tensor]:
    """Return images of two classes that lie apart, half of them real, and their noise."""
    g = generator(0, "laws of couplers", size, index)
    labels = torch.randint(2, (size,), generator=g)
    sources = torch.randint(2, (size,), generator=g)
    centre = 3.0 * labels + 2.0 * sources - 1.0
    data = torch.randn((size, *SHAPE), generator=g) + centre.reshape(-1, 1, 1, 1)
    return Batch(data, labels, sources), torch.randn((size, *SHAPE), generator=g)


def _pair(coupler: Coupler, batch: Batch, noise: Tensor, index: int = 0) -> Pairs:
    return coupler.pair(batch, noise, generator(0, "pairs", index))


def _same(one: Pairs, other: Pairs) -> bool:
    return torch.equal(one.data, other.data) and torch.equal(one.noise, other.noise)


def _check_declarations(coupler: Coupler) -> None:
    known = frozenset({"labels", "sources"})
    for name in ("preserves_conditional_prior", "requires"):
        unknown = getattr(coupler, name) - known
        require(not unknown, coupler, f"{name} names labels, sources, both or none", unknown)
    batch, noise = _pool(8)
    for attribute in sorted(known):
        bare = (
            replace(batch, labels=None) if attribute == "labels" else replace(batch, sources=None)
        )
        refused = _data_error(coupler, bare, noise) is not None
        law = f"a pool without {attribute} is refused with DataError where requires names them"
        fit = refused == (attribute in coupler.requires)
        require(fit, coupler, law, f"{'a' if refused else 'no'} DataError")
    if coupler.bijective:
        law = "a bijective coupler refuses unlike numbers of images and noises with DataError"
        require(_data_error(coupler, batch, noise[:5]) is not None, coupler, law, "no error")


def _check_pool(coupler: Coupler, batch: Batch, noise: Tensor, minimises: Cost | None) -> None:
    with leaves_alone(coupler, noise=noise, **tensors_of(batch)):
        pairs = _pair(coupler, batch, noise)
    _check_indices(coupler, pairs, len(batch), len(noise))
    law = "the same arguments and generator state give the same pairs"
    require(_same(pairs, _pair(coupler, batch, noise)), coupler, law, "others on a second call")
    if minimises is None:
        return
    cost = pairwise_cost(batch.data.double(), noise.double(), minimises)
    total, identity = float(cost[pairs.data, pairs.noise].sum()), float(cost.trace())
    slack = 1e-5 * identity  # the solver may see the cost in float32
    law = f"the total {minimises} cost is at most that of unpaired noise"
    require(total <= identity + slack, coupler, law, f"{total} against {identity}")
    order = torch.randperm(len(batch), generator=generator(0, "order"))
    moved = _pair(coupler, batch[order], noise[order])
    again = float(cost[order][:, order][moved.data, moved.noise].sum())
    law = "the total cost does not depend on the order of the pool"
    require(abs(again - total) <= slack, coupler, law, f"{again} against {total}")


def _check_indices(coupler: Coupler, pairs: Pairs, images: int, noises: int) -> None:
    for name, index, count in (("data", pairs.data, images), ("noise", pairs.noise, noises)):
        law = f"pairs.{name} is an int64 vector on the CPU"
        sound = index.dtype == torch.int64 and index.ndim == 1 and index.device.type == "cpu"
        require(sound, coupler, law, f"{index.dtype} {list(index.shape)} on {index.device}")
        inside = bool(((index >= 0) & (index < count)).all())
        require(inside, coupler, f"pairs.{name} lies in 0 to {count - 1}", index.tolist())
    lengths = len(pairs.data), len(pairs.noise)
    require(lengths[0] == lengths[1] > 0, coupler, "both vectors have one length", lengths)
    if coupler.bijective:
        whole = torch.arange(images)
        law = "a bijective coupler returns arange for the data"
        require(torch.equal(pairs.data, whole), coupler, law, pairs.data.tolist())
        law = "a bijective coupler returns a permutation for the noise"
        permuted = torch.equal(pairs.noise.sort().values, whole)
        require(permuted, coupler, law, pairs.noise.tolist())


def _check_half_precision(coupler: Coupler) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        batch, noise = _pool(64)
        batch, noise = batch.with_data(batch.data.to(dtype)), noise.to(dtype)
        wide = _pair(coupler, batch.with_data(batch.data.float()), noise.float())
        law = f"{dtype} values give the pairs of the same values in float32"
        require(_same(_pair(coupler, batch, noise), wide), coupler, law, "others")


def _check_not_finite(coupler: Coupler) -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        for name in ("image", "noise"):
            batch, noise = _pool(8)
            (batch.data if name == "image" else noise)[3, 0, 1, 2] = value
            law = f'{value} in {name} 3 raises a DataError that says "{name} 3"'
            told = _data_error(coupler, batch, noise)
            require(told is not None, coupler, law, "no error")
            require(bool(re.search(rf"{name}\D*\b3\b", told or "")), coupler, law, told)


def _check_overflow(coupler: Coupler) -> None:
    batch, noise = _pool(8)
    batch.data[3] *= 1e20  # finite in float32, and its square is not
    if _data_error(coupler, batch, noise) is None:
        narrow = _pair(coupler, batch, noise)
        wide = _pair(coupler, batch.with_data(batch.data.double()), noise.double())
        law = "a distance that overflows raises DataError or is computed in a wider type"
        require(_same(narrow, wide), coupler, law, "pairs that are not those of float64")


def _data_error(coupler: Coupler, batch: Batch, noise: Tensor) -> str | None:
    try:
        _pair(coupler, batch, noise)
    except DataError as error:
        return str(error)
    return None


def _check_marginal(coupler: Coupler, given: str | None) -> None:
    """Check the mean and variance of paired noise, of all of it or given an attribute."""
    values: dict[int, list[Tensor]] = {}
    for index in range(POOLS):
        batch, noise = _pool(16, index)
        pairs = _pair(coupler, batch, noise, index)
        paired = noise[pairs.noise]
        parts = torch.zeros_like(pairs.data) if given is None else getattr(batch, given)[pairs.data]
        for part in parts.unique().tolist():
            values.setdefault(part, []).append(paired[parts == part].double())
    for part, found in sorted(values.items()):
        paired = torch.cat(found).reshape(-1)
        # A noise that is used twice counts twice: up to 2 times the variance of a mean.
        allowed = 6 * (2 / len(paired)) ** 0.5
        what = "the paired noise" if given is None else f"the paired noise given {given} {part}"
        mean, variance = float(paired.mean()), float(paired.var())
        require(abs(mean) <= allowed, coupler, f"{what} has mean 0", f"{mean:.3f}")
        # The variance of a squared unit Gaussian is 2.
        near = abs(variance - 1) <= allowed * 2**0.5
        require(near, coupler, f"{what} has variance 1", f"{variance:.3f}")
