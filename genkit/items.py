"""Read the items of arrays and of data sets in Python, and keep them in the folder of a run."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from genkit.errors import Code, DataError
from genkit.recipe.source import Source
from genkit.rows import COLUMNS, as_array, collect
from genkit.tensors import digest, load, require_finite, save
from genkit.types import Batch

Data = Tensor | NDArray[Any] | Dataset[Any] | Iterable[Any]
"""Items: ``[N, *shape]`` tensor or array, or a data set of PyTorch or Hugging Face."""

Labels = Tensor | NDArray[Any] | Sequence[int]
"""``[N]`` classes."""

_MAX_CHANNELS = 4  # an axis of at most this size is the channels, not height or width
# A network has weights for each class. Without this limit, a corrupt index allocates billions.
_MAX_CLASSES = 1_000_000


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
            DataError: an item cannot be read, differs from the first one in shape or type, or is
                not finite or out of range; the error contains its index. Or there are no items, or
                the type, the shape or the labels are invalid.
        """
        classes = 0
        if isinstance(data, Tensor):
            array = as_array(data)
        elif isinstance(data, np.ndarray):
            array = data
        else:
            array, own = collect(data)
            if own is not None and labels is not None:
                raise DataError(
                    "labels must be None if the items of data have labels; remove one of the two",
                    Code.CONFLICT,
                )
            labels = own if labels is None else labels
            named = getattr(getattr(data, "features", None), "get", lambda _: None)(COLUMNS[1])
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


def with_items(source: Source, table: Mapping[str, Any]) -> Source:
    """Return the source of a recipe whose data was replaced, as it is written to the run folder.

    The path of the items is relative to that folder, so that the folder can be moved.

    Args:
        source: recipe without the items.
        table: table of the items, see :meth:`Items.table`.
    """
    beside = {**table, "path": Path(table["path"]).name}
    text = tomli_w.dumps({**source.table, "data": beside})
    note = "# data: items that a script passed to run_recipe. The file is in the folder of the run."
    return Source.parse(f"{note}\n{text}", source.label, source.folder)


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
