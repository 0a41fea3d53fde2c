"""Compute, write and read the mean and covariance of features, for Fréchet distances."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genkit import tensors
from genkit.errors import Code, DataError, GenkitError
from genkit.pickles import array, read_pickle

_PUBLISHED = "fid"
"""Name of the Fréchet distance of EDM's ``.npz`` files, which do not contain a name."""

BLOCK = 1024
"""Number of items whose features are converted to float64 at a time."""


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of the features of a data set.

    Attributes:
        mean: ``[F]`` float64 mean.
        covariance: ``[F, F]`` float64 covariance, normalized by M - 1.
        count: number of items, M; None if a published file does not contain it.
        extractor: identity of the extractor; None if a published file does not contain it.
        data: description of the data; None if a published file does not contain it.
    """

    mean: Tensor
    covariance: Tensor
    count: int | None = None
    extractor: str | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        width = self.mean.numel()
        shapes = list(self.mean.shape), list(self.covariance.shape)
        if shapes != ([width], [width, width]) or width == 0:
            raise DataError(
                f"mean and covariance must have the shapes [F] and [F, F], got {shapes}",
                Code.WRONG_SHAPE,
            )
        tensors.require_finite(self.mean, "the mean of feature")
        tensors.require_finite(self.covariance, "the covariance of feature")
        # The tolerance is relative to the largest entry, since entries that are 0 up to rounding
        # may have large relative differences.
        rounding = 1e-9 * float(self.covariance.abs().max())
        if not torch.allclose(self.covariance, self.covariance.T, rtol=1e-6, atol=rounding):
            raise DataError(
                "the covariance of features must be symmetric, got an asymmetric matrix",
                Code.UNREADABLE,
            )

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues ``[F]`` of the covariance, ascending, and eigenvectors ``[F, F]`` in columns.

        Computed once, since a reference is compared with many sets of samples.
        """
        values, vectors = torch.linalg.eigh(self.covariance)
        return values, vectors

    @classmethod
    def of(
        cls, features: Tensor, extractor: str | None = None, data: str | None = None
    ) -> Statistics:
        """Return the statistics of ``[M, F]`` features, in float64.

        Raises:
            DataError: there are fewer than 2 items.
        """
        if len(features) < 2:
            raise DataError(
                f"a covariance requires at least 2 items, got {len(features)}", Code.WRONG_LENGTH
            )
        count, width = features.shape
        mean = torch.zeros(width, dtype=torch.float64)
        covariance = torch.zeros(width, width, dtype=torch.float64)
        for part in torch.split(features, BLOCK):
            mean += part.double().sum(0) / count
        for part in torch.split(features, BLOCK):
            centered = part.double() - mean
            covariance.addmm_(centered.T, centered, alpha=1 / (count - 1))
        return cls(mean, covariance, count, extractor, data)


def save_statistics(path: Path, statistics: Mapping[str, Statistics]) -> None:
    """Write a file of statistics.

    Args:
        path: path of the file.
        statistics: map from the name of a Fréchet distance, such as ``fid``, to its statistics.
    """
    named: dict[str, Tensor] = {}
    metadata = {}
    for score, one in statistics.items():
        named |= {f"{score}/mean": one.mean, f"{score}/covariance": one.covariance}
        facts = {"count": one.count, "extractor": one.extractor, "data": one.data}
        metadata[score] = json.dumps({**facts, "sha256": _digests(one.mean, one.covariance)})
    tensors.save(path, named, metadata)


def mismatch(statistics: Mapping[str, Statistics], score: str, extractor: str | None) -> str:
    """Return the reason why statistics do not fit an extractor; empty if they fit.

    Args:
        statistics: map from the name of a Fréchet distance to its statistics.
        score: name of the Fréchet distance of the extractor.
        extractor: identity of the extractor; None if it is known only during a run.
    """
    if score not in statistics:
        return f"requires statistics for {score}, got those for {', '.join(statistics)}"
    written = statistics[score].extractor
    if None in (written, extractor) or written == extractor:
        return ""
    return f"requires statistics of {extractor}, got those of {written}"


def load_statistics(path: Path) -> dict[str, Statistics]:
    """Return a map from the name of a Fréchet distance to its statistics in a file.

    Three formats are read: the format of :func:`save_statistics`; EDM's ``.npz`` with ``mu`` and
    ``sigma``; and EDM2's ``.pkl``, which has ``mu`` and ``sigma`` for each distance, and the number
    of images. A ``.pkl`` is read without executing code. If it has only one ``mu`` and ``sigma``,
    they are read as ``fid``.

    Raises:
        DataError: the file is missing, damaged, not a file of statistics, or of a version without
            the SHA-256 of its arrays; or its arrays are not a mean and a covariance.
    """
    if not path.is_file():
        raise _refusal(path, "a path without a file", Code.NOT_FOUND)
    read = {".npz": _npz, ".pkl": _pickle}.get(path.suffix, _own)
    try:
        content = read(path)
    except OSError as error:
        reason = f"a file that cannot be read: {error.strerror}"
        raise _refusal(path, reason, Code.IO_ERROR) from error
    except (*_DAMAGED, AttributeError, GenkitError, KeyError, TypeError, ValueError) as error:
        reason = "a file that is damaged, of another kind or of an older version"
        raise _refusal(path, reason) from error
    if not content:
        raise _refusal(path, "a file without statistics")
    try:
        return {score: Statistics(**fields) for score, fields in content.items()}
    except DataError as error:
        raise DataError(f"{path}: {error}; {_INSTEAD}", error.code) from error


_DAMAGED = (EOFError, zipfile.BadZipFile, zlib.error)
"""Exceptions of a truncated or damaged ``.npz``."""

_INSTEAD = "name a file of `genkit stats`, or the .npz or .pkl that EDM or EDM2 published"


def _refusal(path: Path, got: str, code: Code = Code.UNREADABLE) -> DataError:
    return DataError(f"{path} must be a file of statistics, got {got}; {_INSTEAD}", code)


def _own(path: Path) -> dict[str, dict[str, Any]]:
    named, metadata = tensors.load(path)
    content = {}
    for score, text in metadata.items():
        entry = json.loads(text)
        mean, covariance = named[f"{score}/mean"], named[f"{score}/covariance"]
        if entry["sha256"] != _digests(mean, covariance):
            raise ValueError(f"the arrays of {score} do not have the SHA-256 in the file")
        facts = {name: entry[name] for name in ("count", "extractor", "data")}
        content[score] = {"mean": mean, "covariance": covariance, **facts}
    return content


def _digests(mean: Tensor, covariance: Tensor) -> list[str]:
    return [tensors.digest(mean), tensors.digest(covariance)]


def _npz(path: Path) -> dict[str, dict[str, Any]]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return {_PUBLISHED: _fields(file["mu"], file["sigma"])}


def _pickle(path: Path) -> dict[str, dict[str, Any]]:
    pairs = dict(read_pickle(path.read_bytes(), what=str(path)).items())
    # The only entry that is not a pair of mean and covariance; some files do not have it.
    count = pairs.pop("num_images", None)
    if not isinstance(count, int | None):
        raise TypeError(f"num_images must be an integer, got {count!r:.60}")
    if "mu" in pairs:
        pairs = {_PUBLISHED: pairs}
    return {
        str(score): _fields(array(pair["mu"]), array(pair["sigma"]), count)
        for score, pair in pairs.items()
    }


def _fields(mean: Any, covariance: Any, count: int | None = None) -> dict[str, Any]:
    """Return the arguments of :class:`Statistics` for two arrays."""
    mean, covariance = (np.asarray(values, np.float64) for values in (mean, covariance))
    return {
        "mean": torch.from_numpy(mean),
        "covariance": torch.from_numpy(covariance),
        "count": count,
    }
