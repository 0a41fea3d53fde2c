"""Check integers and classes that are passed from Python."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genkit.errors import Code, DataError


def as_integer(name: str, value: Any) -> int:
    """Return an integer of any type, such as NumPy's, as an int.

    Raises:
        DataError: the value is not an integer; the error contains the name of the argument.
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise DataError(
            f"{name} must be an integer, got {value!r}; write a number such as 16", Code.WRONG_TYPE
        ) from error


def as_integers(name: str, values: Any) -> Sequence[int]:
    """Return integers of any type, such as NumPy's, as ints.

    Raises:
        DataError: a value is not an integer; the error contains the name of the argument.
    """
    if isinstance(values, range):
        return values
    try:
        return [operator.index(value) for value in values]
    except TypeError as error:
        raise DataError(
            f"{name} must be integers, got {values!r}; write a list such as [0, 1, 2]",
            Code.WRONG_TYPE,
        ) from error


def as_labels(labels: Sequence[int] | Tensor | None, count: int, classes: int) -> Tensor | None:
    """Return the classes of samples as ``[N]`` int64; None if they are not chosen.

    Args:
        labels: class of each sample, or None.
        count: number of samples, N.
        classes: number of classes of the denoiser.

    Raises:
        DataError: the denoiser has no classes, or the number of labels or a label is wrong.
    """
    if labels is None:
        return None
    if not classes:
        raise DataError(
            "labels must be None for an unconditional denoiser; remove them", Code.CONFLICT
        )
    indices = torch.tensor(as_integers("labels", labels))
    if indices.shape != (count,):
        raise DataError(
            f"labels must contain one class for each of the {count} samples, got {len(indices)}",
            Code.WRONG_LENGTH,
        )
    if len(wrong := indices[(indices < 0) | (indices >= classes)]):
        raise DataError(
            f"labels must be from 0 to {classes - 1}, got {int(wrong[0])}", Code.OUT_OF_RANGE
        )
    return indices
