"""Collect the rows of data sets in Python as arrays."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genkit.errors import Code, DataError, GenkitError
from genkit.plugin.registry import in_words

COLUMNS = ("image", "label")
"""Names of the columns of items and labels, the defaults of the data set `huggingface`."""


def collect(data: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the items of a data set as one array, and their labels if there are any.

    Raises:
        DataError: an item cannot be read, or differs from the first one in shape or type; the error
            contains the data set or its index. Or the type of the data set is not supported.
    """
    if isinstance(data, DataLoader):
        hint = "pass loader.dataset"
    elif isinstance(data, Mapping):
        hint = f"pass one of its values, such as data[{next(iter(data), 'train')!r}]"
    elif isinstance(data, (str, Path)):
        hint = "name a data set in the recipe"
    else:
        hint = "" if hasattr(data, "__getitem__") or hasattr(data, "__iter__") else "pass a tensor"
    if hint:
        got = type(data).__name__
        reason = f"data must be a tensor, an array or a data set, got {got}; {hint}"
        raise DataError(reason, Code.WRONG_TYPE)
    items: list[NDArray[Any]] = []
    labels: list[Any] = []
    rows, end = _rows(data), object()
    for index in itertools.count():
        with _reading(data, index):
            if (row := next(rows, end)) is end:
                break
            item, label = _parts(row, index)
            array = as_array(item)
        if items and (array.shape, array.dtype) != (items[0].shape, items[0].dtype):
            raise DataError(
                f"data: item {index} must have the shape and type of item 0, {items[0].shape} "
                f"{items[0].dtype}, got {array.shape} {array.dtype}; resize or convert the items",
                Code.WRONG_SHAPE,
            )
        items.append(array)
        labels.append(label)
    if not items:
        raise DataError("data must have at least 1 item, got 0; pass items", Code.WRONG_LENGTH)
    if all(label is None for label in labels):
        return np.stack(items), None
    return np.stack(items), np.array([_class(label, k) for k, label in enumerate(labels)])


def _rows(data: Any) -> Iterator[Any]:
    # Many map-style data sets of PyTorch never raise IndexError, so iteration would not end. An
    # IterableDataset may have a length, but inherits a __getitem__ that is not implemented.
    get = getattr(type(data), "__getitem__", None)
    if hasattr(data, "__len__") and get not in (None, Dataset.__getitem__):
        yield from (data[index] for index in range(len(data)))
    else:
        yield from data


@contextmanager
def _reading(data: Any, index: int) -> Iterator[None]:
    """Raise DataError with the data set and the index for an error in the code of the data set."""
    try:
        yield
    except GenkitError:
        raise
    except Exception as error:
        raise DataError(
            f"data: item {index} of {type(data).__name__} must be readable, but reading it raised "
            f"{in_words(error)}; correct the data set, or remove the item",
            Code.UNREADABLE,
        ) from error


def _parts(row: Any, index: int) -> tuple[Any, Any]:
    """Return item and label of a row: an item, (item, label), or a dict with image and label."""
    if isinstance(row, Mapping):
        if COLUMNS[0] not in row:
            raise DataError(
                f'data: item {index} must have the key "{COLUMNS[0]}", got '
                f"{', '.join(map(str, row)) or 'none'}; rename the column",
                Code.NOT_FOUND,
            )
        return row[COLUMNS[0]], row.get(COLUMNS[1])
    if isinstance(row, tuple):
        if len(row) not in (1, 2):
            raise DataError(
                f"data: item {index} must be an item or a tuple (item, label), got a tuple of "
                f"length {len(row)}; remove the other parts",
                Code.WRONG_LENGTH,
            )
        return row[0], row[1] if len(row) == 2 else None
    return row, None


def as_array(item: Any) -> NDArray[Any]:
    """Return an item or all items as an array; color images of Pillow are converted to RGB.

    Raises:
        DataError: a tensor is sparse, or has no values.
    """
    if isinstance(item, Tensor):
        if item.layout is not torch.strided or item.is_meta:
            raise DataError(
                f"data must be dense tensors with values, got a tensor with the layout "
                f"{item.layout} on {item.device}; pass tensor.to_dense(), or a tensor on a device",
                Code.WRONG_TYPE,
            )
        values = item.detach().cpu()
        # NumPy has no bfloat16.
        return (values.float() if values.is_floating_point() else values).numpy()
    if isinstance(item, Image.Image):
        gray = item.mode == "L"
        if item.mode.startswith(("I", "F")):  # 16 or 32 bits, which a conversion would clip
            return np.asarray(item)[..., None]
        return np.asarray(item if gray else item.convert("RGB")).reshape(*item.size[::-1], -1)
    return np.asarray(item)


def _class(label: Any, index: int) -> int:
    try:
        return operator.index(label)
    except TypeError as error:
        raise DataError(
            f"data: the label of item {index} must be an integer, got {label!r:.60}; write the "
            "number of its class, from 0",
            Code.WRONG_TYPE,
        ) from error
