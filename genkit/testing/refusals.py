"""Contract tests of couplers: declarations, precision, and rejection of invalid arguments."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from genkit.interfaces import Coupler
from genkit.testing.pools import ATTRIBUTES, Subject, noise_for, pair, pool, same
from genkit.types import Batch


def check_declarations(subject: Subject) -> None:
    """Require declarations that are valid and consistent."""
    coupler = subject.settings
    for name in ("preserves_conditional_prior", "requires"):
        unknown = getattr(coupler, name) - set(ATTRIBUTES)
        law = f"known-attributes: {name} contains only labels, realness or embeddings"
        subject.require(not unknown, law, unknown)
    if isinstance(coupler, Coupler):
        several = coupler.noises_per_image
        subject.require(several >= 1, "noises-per-image: noises_per_image is at least 1", several)
        law = "bijective-noises: noises_per_image of a bijective coupler is 1"
        subject.require(not coupler.bijective or several == 1, law, f"noises_per_image {several}")


def check_refusals(subject: Subject) -> None:
    """Require a DataError for a missing attribute, and for a wrong number of noise samples."""
    batch = pool(8)
    noise = noise_for(subject.settings, batch)
    for attribute in ATTRIBUTES:
        bare = Batch(**(vars(batch) | {attribute: None}))
        refused = subject.refusal(bare, noise) is not None
        law = f"refuses-lacking: a pool without {attribute} raises a DataError if, and only if, "
        law += "`requires` contains it"
        fits = refused == (attribute in subject.settings.requires)
        subject.require(fits, law, f"{'a' if refused else 'no'} DataError")
    settings = subject.settings
    if isinstance(settings, Coupler) and (settings.bijective or settings.noises_per_image > 1):
        law = "refuses-counts: a wrong number of noise samples raises a DataError"
        subject.require(subject.refusal(batch, noise[:-1]) is not None, law, "no error")


def check_half_precision(subject: Subject) -> None:
    """Require half precision to be widened before anything is computed with it."""
    for dtype in (torch.float16, torch.bfloat16):
        batch = pool(64)
        noise = noise_for(subject.settings, batch).to(dtype)
        batch = _cast(batch, dtype)
        wide = _cast(batch, torch.float32)
        expected = pair(subject.ready(wide), wide, noise.float())
        law = f"half-precision: {dtype} values give the same pairs as when converted to float32"
        pairs = pair(subject.ready(batch), batch, noise)
        subject.require(same(pairs, expected), law, "different pairs")


def check_not_finite(subject: Subject) -> None:
    """Require a DataError with name and index of a NaN or infinity, which some solvers accept."""
    for value in (float("nan"), float("inf"), -float("inf")):
        for name in ("image", "noise", "embedding"):
            batch = pool(8)
            noise = noise_for(subject.settings, batch)
            tensors = {"image": batch.data, "noise": noise}
            if name == "embedding":
                if batch.embeddings is None or "embeddings" not in subject.settings.requires:
                    continue
                tensors[name] = batch.embeddings
            tensors[name][3].view(-1)[-1] = value
            law = f'refuses-not-finite: {value} in {name} 3 raises a DataError about "{name} 3"'
            message = subject.refusal(batch, noise)
            subject.require(message is not None, law, "no error")
            subject.require(bool(re.search(rf"{name}\D*\b3\b", message or "")), law, message)


def check_overflow(subject: Subject) -> None:
    """Require distances beyond float32 to raise DataError, or to be computed in a wider type."""
    batch = pool(8)
    noise = noise_for(subject.settings, batch)
    batch.data[3] *= 1e20  # finite in float32, but its square is not
    if subject.refusal(batch, noise) is None:
        wide = batch.with_data(batch.data.double())
        expected = pair(subject.ready(wide), wide, noise.double())
        law = "overflow: distances beyond float32 raise a DataError or are computed in a wider type"
        pairs = pair(subject.ready(batch), batch, noise)
        subject.require(same(pairs, expected), law, "pairs that differ from those in float64")


def _cast(batch: Batch, dtype: torch.dtype) -> Batch:
    embeddings = None if batch.embeddings is None else batch.embeddings.to(dtype)
    return replace(batch, data=batch.data.to(dtype), embeddings=embeddings)
