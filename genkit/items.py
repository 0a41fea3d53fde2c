"""Read the items of arrays and of data sets in Python, and keep them in the folder of a run."""

from __future__ import annotations

import hashlib
import operator
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genkit.errors import Code, DataError
from genkit.tensors import digest, load, require_finite, save
from genkit.types import Batch

Data = Tensor | NDArray[Any] | Dataset[Any] | Iterable[Any]
"""Items: ``[N, *shape]`` tensor or array, or a data set of PyTorch or Hugging Face."""

Labels = Tensor | NDArray[Any] | Sequence[int]
"""``[N]`` classes."""

_MAX_CHANNELS = 4  # an axis of at most this size is the channels, not height or width
# A network has weights for each class. Without this limit, a corrupt index allocates billions.
_MAX_CLASSES = 1_000_000
_COLUMNS = ("image", "label")  # the defaults of the data set `huggingface`


@dataclass(frozen=True)
class Items:
    """All items of a data set in Python.

    Attributes:
        batch: ``[N, C, H, W]`` images, uint8 or float32 in [-1, 1], or ``[N, D]`` float32 vectors;
            with labels if there are any.
        classes: number of classes; 0 without labels.
    """

    batch: Batch
    classes: int

    @classmethod
    def of(cls, data: Data, labels: Labels | None = None) -> Items:
        """Return the items of a tensor, an array or a data set; see ``run_recipe``.

        Raises:
            DataError: an item differs from the first one in shape or type, or is not finite or out
                of range; the error contains its index. Or there are no items, or the type, the
                shape or the labels are invalid.
        """
        classes = 0
        if isinstance(data, Tensor):
            array = _array(data)
        elif isinstance(data, np.ndarray):
            array = data
        else:
            array, own = _collected(data)
            if own is not None and labels is not None:
                raise DataError(
                    "labels must be None if the items of data have labels; remove one of the two",
                    Code.CONFLICT,
                )
            labels = own if labels is None else labels
            named = getattr(getattr(data, "features", None), "get", lambda _: None)(_COLUMNS[1])
            classes = getattr(named, "num_classes", 0) if own is not None else 0
        items = as_items(array, "data")
        _warn_about_range(items)
        if labels is None:
            return cls(Batch(items), 0)
        indices = as_classes(np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels))
        if len(indices) != len(items):
            raise DataError(
                f"labels must contain a class for each of the {len(items)} items, got "
                f"{len(indices)}; pass data and labels of the same length",
                Code.WRONG_LENGTH,
            )
        return cls(Batch(items, indices), max(classes, int(indices.max()) + 1))

    def digest(self) -> str:
        """Return the SHA-256 of items, labels and number of classes, in hex."""
        parts = [digest(part) for part in (self.batch.data, self.batch.labels) if part is not None]
        return hashlib.sha256(" ".join([*parts, str(self.classes)]).encode()).hexdigest()

    def table(self, run: Path) -> dict[str, Any]:
        """Return the recipe table of the items in the folder of a run."""
        sha256 = self.digest()
        return {
            "use": "tensors",
            "path": str(run.absolute() / f"data-{sha256[:16]}.safetensors"),
            "sha256": sha256,
            "shape": list(self.batch.data.shape[1:]),
            "items": len(self.batch),
            "classes": self.classes,
        }

    def write(self, table: Mapping[str, Any]) -> None:
        """Write the items to the file in their table, unless it contains them already."""
        path = Path(table["path"])
        with suppress(DataError):  # the file is missing or damaged
            if Items.read(path).digest() == table["sha256"]:
                return
        tensors = {k: v for k, v in vars(self.batch).items() if v is not None}
        save(path, tensors, {"classes": str(self.classes)})

    @classmethod
    def read(cls, path: Path) -> Items:
        """Return the items of a file that :meth:`write` wrote.

        Raises:
            DataError: the file is missing or is not such a file.
        """
        tensors, metadata = load(path)
        if "data" not in tensors or not metadata.get("classes", "").isdecimal():
            raise DataError(
                f"{path} must be written by run_recipe, got other tensors; run the script again",
                Code.WRONG_KIND,
            )
        return cls(Batch(tensors["data"], tensors.get("labels")), int(metadata["classes"]))


def channels_last(shape: Sequence[int], dtype: np.dtype[Any], where: str) -> bool:
    """Return whether the items of an array are images ``[N, H, W, C]``.

    They are images ``[N, C, H, W]`` or vectors ``[N, D]`` otherwise.

    Args:
        shape: shape of the array.
        dtype: type of the array.
        where: name of the array in the error.

    Raises:
        DataError: an array of this shape and type does not contain items.
    """
    if dtype.kind != "f" and (dtype != np.uint8 or len(shape) == 2):
        allowed = "floats" if len(shape) == 2 else "uint8 from 0 to 255 or floats from -1 to 1"
        raise DataError(f"{where} must be {allowed}, got {dtype}; convert it", Code.WRONG_TYPE)
    if len(shape) not in (2, 4) or 0 in shape:
        hint = "; add an axis for the one channel, [N, 1, H, W]" if len(shape) == 3 else ""
        hint = "; pass at least one item" if shape[:1] == (0,) else hint
        raise DataError(
            f"{where} must have the shape [N, H, W, C] or [N, C, H, W] for images, or [N, D] for "
            f"vectors, got {tuple(shape)}{hint}",
            Code.WRONG_SHAPE,
        )
    if len(shape) == 2:
        return False
    first, last = shape[1] <= _MAX_CHANNELS, shape[3] <= _MAX_CHANNELS
    if first == last:
        raise DataError(
            f"{where} must have 1 to {_MAX_CHANNELS} channels either first or last, got the "
            f"shape {tuple(shape)}; write [N, H, W, C] or [N, C, H, W]",
            Code.WRONG_SHAPE,
        )
    return last


def as_items(array: NDArray[Any], where: str) -> Tensor:
    """Return the items of an array: ``[N, C, H, W]`` uint8 or float32, or ``[N, D]`` float32.

    Args:
        array: images ``[N, H, W, C]`` or ``[N, C, H, W]`` with 1 to 4 channels, uint8 from 0 to 255
            or floats from -1 to 1; or vectors ``[N, D]`` of floats.
        where: name of the array in the error.

    Raises:
        DataError: as for :func:`channels_last`, or an item is not finite or out of range.
    """
    last = channels_last(array.shape, array.dtype, where)
    dtype = np.uint8 if array.dtype == np.uint8 else np.float32
    with np.errstate(over="ignore"):  # overflow to inf is reported by require_finite
        values = torch.from_numpy(np.ascontiguousarray(array, dtype))
    values = (values.movedim(-1, 1) if last else values).contiguous()
    if not values.is_floating_point():
        return values
    require_finite(values, f"{where}: {'image' if values.ndim == 4 else 'vector'}")
    outside = values.flatten(1).abs().amax(1) > 1
    if values.ndim == 4 and bool(outside.any()):
        index = int(outside.nonzero()[0])
        raise DataError(
            f"{where}: floats must be from -1 to 1, got image {index} with "
            f"{float(values[index].min()):g} to {float(values[index].max()):g}; write bytes "
            "from 0 to 255, or scale the floats",
            Code.OUT_OF_RANGE,
        )
    return values


def as_classes(array: NDArray[Any], where: str = "labels") -> Tensor:
    """Return classes as ``[N]`` int64.

    Args:
        array: ``[N]`` integers from 0 to 999,999.
        where: name of the array in the error.

    Raises:
        DataError: the array has another type or shape, or a class is out of range.
    """
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(
            f"{where} must be integers of shape [N], got {array.dtype} of shape {array.shape}; "
            "write one class for each item",
            Code.WRONG_SHAPE,
        )
    classes = torch.from_numpy(array.astype(np.int64))
    invalid = (classes < 0) | (classes >= _MAX_CLASSES)
    if bool(invalid.any()):
        index = int(invalid.nonzero()[0])
        raise DataError(
            f"{where}: the class of item {index} must be from 0 to {_MAX_CLASSES - 1:,}, got "
            f"{int(classes[index])}; number the classes from 0",
            Code.OUT_OF_RANGE,
        )
    return classes


def _warn_about_range(items: Tensor) -> None:
    """Warn about images that are probably floats from 0 to 1, as torchvision's ToTensor returns."""
    if items.ndim == 4 and items.is_floating_point() and float(items.min()) >= 0:
        warnings.warn(
            "data: no image has a value below 0, but floats are expected from -1 to 1; if yours "
            "are from 0 to 1, pass 2 * data - 1",
            stacklevel=4,
        )


def _collected(data: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the items of a data set as one array, and their labels if there are any."""
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
    for index, row in enumerate(_rows(data)):
        item, label = _parts(row, index)
        array = _array(item)
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
        return (data[index] for index in range(len(data)))
    return iter(data)


def _parts(row: Any, index: int) -> tuple[Any, Any]:
    """Return item and label of a row: an item, (item, label), or a dict with image and label."""
    if isinstance(row, Mapping):
        if _COLUMNS[0] not in row:
            raise DataError(
                f'data: item {index} must have the key "{_COLUMNS[0]}", got '
                f"{', '.join(map(str, row)) or 'none'}; rename the column",
                Code.NOT_FOUND,
            )
        return row[_COLUMNS[0]], row.get(_COLUMNS[1])
    if isinstance(row, tuple):
        if len(row) not in (1, 2):
            raise DataError(
                f"data: item {index} must be an item or a tuple (item, label), got a tuple of "
                f"length {len(row)}; remove the other parts",
                Code.WRONG_LENGTH,
            )
        return row[0], row[1] if len(row) == 2 else None
    return row, None


def _array(item: Any) -> NDArray[Any]:
    """Return an item or all items as an array; color images of Pillow are converted to RGB."""
    if isinstance(item, Tensor):
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
