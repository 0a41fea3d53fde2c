"""Contract tests of couplers: validity and cost of the pairs, distribution of the noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genkit.interfaces import AnyCoupler, Coupler, DatasetCoupler
from genkit.random import generator
from genkit.tensors import Cost, pairwise_cost
from genkit.testing.elsewhere import check_processes, check_threads, is_serializable
from genkit.testing.laws import require_pure, tensors_of
from genkit.testing.pools import Fit, Subject, hard_pools, noise_for, pair, pool, same
from genkit.testing.refusals import (
    check_declarations,
    check_half_precision,
    check_not_finite,
    check_overflow,
    check_refusals,
)
from genkit.types import Batch, Pairs

POOLS = 128
"""Number of pools of 16 images in tests of the distribution of the assigned noise."""


def check_coupler(
    coupler: AnyCoupler,
    *,
    minimises: Cost | None = None,
    fit: Fit | None = None,
    another_process: bool = True,
) -> None:
    """Check every law of a coupler.

    Args:
        coupler: coupler to check.
        minimises: cost whose total over a pool is minimized, up to the relative excess
            ``Pairs.gap``, or exactly if the gap is None. If the coupler requires labels or realness
            and preserves the prior conditional on them, the minimum is over pairs within each
            class. None if the coupler does not minimize a total cost, or adds a penalty to it.
        fit: function from a batch to the bound coupler, for a coupler that refers to an earlier
            stage. Every law then calls ``fit(batch).pair(batch, ...)``, or
            ``fit(batch).choose(batch, ...)`` for a dataset coupler.
        another_process: whether a new process must return the same pairs. It takes a few seconds
            to import torch; write False in tests of many variants of one coupler. The law is
            skipped for a coupler that a new process cannot construct: if ``fit`` is set, if the
            class is defined inside a function, or if a recipe cannot contain the settings.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    subject = Subject(coupler, fit)
    check_declarations(subject)
    check_refusals(subject)
    for batch in hard_pools():
        _check_pool(subject, batch, noise_for(coupler, batch), minimises)
    twins = pool(8)
    noise = noise_for(coupler, twins)
    _check_pool(subject, twins, noise[:1].expand_as(noise), minimises)
    check_half_precision(subject)
    check_not_finite(subject)
    check_overflow(subject)
    if coupler.preserves_noise_marginal:
        _check_marginal(subject, None)
    for attribute in sorted(coupler.preserves_conditional_prior):
        _check_marginal(subject, attribute)
    if coupler.independent:
        _check_independence(subject)
    elif coupler.preserves_score:
        _check_cells(subject)
    check_threads(subject)
    if another_process and fit is None and is_serializable(coupler):
        check_processes([coupler])


def _check_pool(subject: Subject, batch: Batch, noise: Tensor, minimises: Cost | None) -> None:
    coupler = subject.settings
    with require_pure(coupler, noise=noise, **tensors_of(batch)):
        ready = subject.ready(batch)
        pairs = pair(ready, batch, noise)
    _check_indices(subject, pairs, len(batch), len(noise))
    law = "same-again: the same arguments and generator state give the same pairs"
    subject.require(
        same(pairs, pair(ready, batch, noise)), law, "different pairs on the second call"
    )
    bijective = isinstance(coupler, Coupler) and coupler.bijective
    parted = bijective and (bool(pairs.parts) or minimises is not None)
    restriction = _restriction(coupler, batch) if parted else None
    if restriction is not None:
        law = "keeps-groups: noise is assigned within a class if the coupler requires the labels"
        law += " or realness and preserves the prior conditional on them"
        crossed = (~restriction[pairs.data, pairs.noise]).nonzero()[:, 0].tolist()
        subject.require(not crossed, law, f"pairs {crossed} across classes")
    if minimises is not None and isinstance(coupler, Coupler):
        _check_total(subject, coupler, batch, noise, pairs, minimises)


def _check_indices(subject: Subject, pairs: Pairs, images: int, noises: int) -> None:
    for name, index, count in (("data", pairs.data, images), ("noise", pairs.noise, noises)):
        law = f"int64-on-cpu: pairs.{name} is an int64 vector on the CPU"
        sound = index.dtype == torch.int64 and index.ndim == 1 and index.device.type == "cpu"
        subject.require(sound, law, f"{index.dtype} {list(index.shape)} on {index.device}")
        inside = bool(((index >= 0) & (index < count)).all())
        subject.require(
            inside,
            f"index-range: pairs.{name} contains indices from 0 to {count - 1}",
            index.tolist(),
        )
    lengths = len(pairs.data), len(pairs.noise)
    law = "one-length: pairs.data and pairs.noise have the same length"
    subject.require(lengths[0] == lengths[1], law, lengths)
    coupler = subject.settings
    expected = noises // coupler.noises_per_image if isinstance(coupler, Coupler) else noises
    law = "pair-per-noise: the number of pairs is the number of noise samples"
    law += ", divided by noises_per_image"
    subject.require(lengths[0] == expected, law, f"{lengths[0]} pairs, {noises} noise samples")
    if isinstance(coupler, Coupler) and coupler.bijective:
        whole = torch.arange(images)
        law = "data-in-order: pairs.data of a bijective coupler is arange"
        subject.require(torch.equal(pairs.data, whole), law, pairs.data.tolist())
        law = "permutation: pairs.noise of a bijective coupler is a permutation"
        permuted = torch.equal(pairs.noise.sort().values, whole)
        subject.require(permuted, law, pairs.noise.tolist())
    gap = pairs.gap
    sound = gap is None or (math.isfinite(gap) and gap >= 0)
    law = "gap-range: pairs.gap is None or a finite number of at least 0"
    subject.require(sound, law, gap)
    sound = pairs.entropy is None or 0 <= pairs.entropy <= 1
    subject.require(sound, "entropy-range: pairs.entropy is None or in [0, 1]", pairs.entropy)
    sound = not pairs.parts or (min(pairs.parts) > 0 and sum(pairs.parts) == len(pairs))
    law = "parts-sum: pairs.parts are positive and sum to the number of pairs"
    subject.require(sound, law, pairs.parts)


def _restriction(coupler: AnyCoupler, batch: Batch) -> Tensor | None:
    """Return a mask of the allowed pairs of images and noise, ``[N, N]``; None for all pairs."""
    attributes = coupler.requires & coupler.preserves_conditional_prior & {"labels", "realness"}
    allowed = torch.ones((len(batch), len(batch)), dtype=torch.bool)
    for attribute in attributes:
        values = getattr(batch, attribute)
        allowed &= values[:, None] == values[None, :]
    return allowed if attributes else None


def _check_total(
    subject: Subject, coupler: Coupler, batch: Batch, noise: Tensor, pairs: Pairs, minimises: Cost
) -> None:
    several, count = coupler.noises_per_image, len(batch)
    cost = pairwise_cost(batch.data.double(), noise.double(), minimises)
    total = float(cost[pairs.data, pairs.noise].sum())
    unpaired = float(cost[torch.arange(count), torch.arange(count) * several].sum())
    slack = 1e-5 * unpaired  # the solver may compute costs in float32
    gap = pairs.gap or 0.0
    law = (
        f"cost-falls: the total {minimises} cost of the pairs is at most the cost before assignment"
    )
    subject.require(total <= unpaired * (1 + gap) + slack, law, f"{total} after, {unpaired} before")
    order = torch.randperm(count, generator=generator(0, "order"))
    noises = (order[:, None] * several + torch.arange(several)).flatten()
    moved = pair(subject.ready(batch[order]), batch[order], noise[noises])
    again = float(cost[order[moved.data], noises[moved.noise]].sum())
    law = "order-of-pool: the total cost does not depend on the order of the pool"
    # Both totals are at most (1 + gap) times the same minimum, which bounds their difference.
    near = max(gap, moved.gap or 0.0) * min(total, again) + slack
    subject.require(abs(again - total) <= near, law, f"{again} and {total}")
    if coupler.bijective:
        allowed = _restriction(coupler, batch)
        full = cost.numpy() if allowed is None else np.where(allowed, cost, np.inf)
        minimum = float(full[linear_sum_assignment(full)].sum())
        law = f"gap-holds: the total {minimises} cost exceeds the minimum by at most pairs.gap"
        sound = total <= minimum * (1 + gap) + slack
        subject.require(sound, law, f"{total}, minimum {minimum}, gap {pairs.gap}")


def _check_independence(subject: Subject) -> None:
    """Check that the paired noise is not correlated with the data, over many pools."""
    inner, square = 0.0, 0.0
    for index in range(POOLS):
        batch = pool(16, index)
        noise = noise_for(subject.settings, batch, index)
        pairs = pair(subject.ready(batch), batch, noise, index)
        data = batch.data[pairs.data].double()
        inner += float((data * noise[pairs.noise]).sum())
        square += float(data.square().sum())
    # For independent noise the sum of products is Gaussian with this variance. With exact
    # assignment in pools of 16 images, the sum deviates by about 60 standard deviations.
    errors = abs(inner) / math.sqrt(square)
    law = "independence: the noise of an independent coupler is not correlated with the data"
    subject.require(errors <= 6, law, f"a correlation of {errors:.1f} standard errors")


def _check_cells(subject: Subject) -> None:
    """Check that a small change of a noise sample rarely changes the image assigned to it.

    Only then can the score of the noisy data be computed from the denoiser.
    """
    law = "score-by-kind: a coupler with preserves_score is independent, or is a DatasetCoupler"
    subject.require(isinstance(subject.settings, DatasetCoupler), law, "a dependent Coupler")
    whole, ready = pool(64), subject.ready(pool(64))
    noise = noise_for(subject.settings, pool(512))
    moved = noise + 1e-4 * torch.randn(noise.shape, generator=generator(0, "moved"))
    same_data = pair(ready, whole, noise).data == pair(ready, whole, moved).data
    share = float(same_data.double().mean())
    law = "score-in-cells: a coupler with preserves_score gives nearly equal noise the same data"
    subject.require(share >= 0.95, law, f"the same data for {share:.0%} of the noise")


def _check_marginal(subject: Subject, attribute: str | None) -> None:
    """Check mean and variance of the paired noise, in total or for each value of an attribute."""
    whole = pool(64)
    coupler, ready = subject.settings, subject.ready(whole)
    values: dict[int, list[Tensor]] = {}
    for index in range(POOLS):
        if isinstance(coupler, DatasetCoupler):
            batch, noise = whole, noise_for(coupler, pool(16), index)
        else:
            batch = pool(16, index)
            ready, noise = subject.ready(batch), noise_for(coupler, batch, index)
        pairs = pair(ready, batch, noise, index)
        paired = noise[pairs.noise]
        parts = _classes(batch, attribute)[pairs.data]
        for part in sorted(set(parts.tolist())):
            values.setdefault(part, []).append(paired[parts == part].double())
    for part, samples in sorted(values.items()):
        paired = torch.cat(samples).reshape(-1)
        # Six standard errors; noise that is used twice doubles the variance of the mean.
        allowed = 6 * (2 / len(paired)) ** 0.5
        what = "the paired noise" + (f" given {attribute} = {part}" if attribute else "")
        mean, variance = float(paired.mean()), float(paired.var())
        subject.require(abs(mean) <= allowed, f"noise-mean: {what} has mean 0", f"{mean:.3f}")
        # The variance of a squared unit Gaussian is 2.
        near = abs(variance - 1) <= allowed * 2**0.5
        subject.require(near, f"noise-variance: {what} has variance 1", f"{variance:.3f}")


def _classes(batch: Batch, attribute: str | None) -> Tensor:
    """Return the value of an attribute for each item; for embeddings, the sign of the first value.

    Without an attribute, every item has the value 0.
    """
    if attribute is None:
        return torch.zeros(len(batch), dtype=torch.int64)
    values: Tensor = getattr(batch, attribute)
    return (values[:, 0] > 0).long() if attribute == "embeddings" else values
