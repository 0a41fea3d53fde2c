"""Data sets that are read with the library ``datasets`` of Hugging Face."""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Dataset, Inputs
from genkit.items import as_classes
from genkit.parts.packages import install_command
from genkit.settings import FilePath, near_match, setting
from genkit.types import Batch, DataSpec
from genkit_data.cache import Decoding, load_or_decode
from genkit_data.pictures import (
    Shape,
    make_batches,
    open_image,
    pixels,
    require_shape,
    shape_of,
)


@dataclass(frozen=True, kw_only=True)
class HuggingFace(Dataset):
    """Images of a data set on the Hugging Face hub, or in a folder with its Parquet files.

    Requires the extra ``huggingface``. Gray images (8 bits, no transparency) have one channel; all
    other images are converted to RGB. All images must have the same size and number of channels.
    Code of the data set is never run.
    """

    path: FilePath = setting(
        doc="name on the hub, such as uoft-cs/cifar10, or a folder; ~ is your home folder"
    )
    split: str = setting("train", doc="split to read")
    image: str = setting("image", doc="name of the column with the images")
    label: str = setting("label", doc="name of the column with the classes; empty for no labels")

    def spec(self) -> DataSpec:
        table = self._table()
        where = f"{self.path}: image 0"
        return DataSpec(_shape(table[0][self.image], where), self._class_count(table))

    def item_count(self) -> int:
        return len(self._table())

    def version(self) -> str:
        return _version(self._table())

    def load(self, inputs: Inputs) -> Batch:
        table = self._table()
        files = _files(table)
        name = hashlib.sha256(f"{self.split}\0{self.image}\0{self.label}".encode()).hexdigest()[:16]
        return load_or_decode(files[0].parent, name, _version(table), lambda: self._decode(table))

    def _decode(self, table: Any) -> Decoding:
        shape = _shape(table[0][self.image], f"{self.path}: image 0")
        labels = self._classes(table) if self.label else None
        parts = make_batches(self._pixels(table, shape), labels)
        return Decoding((len(table), *shape), bool(self.label), parts)

    def _pixels(self, table: Any, shape: Shape) -> Iterator[Tensor]:
        for index, row in enumerate(table.select_columns([self.image])):
            where = f"{self.path}: image {index}"
            with open_image(_file(row[self.image], where), where) as image:
                require_shape(shape_of(image, where), where, shape, "image 0")
                yield pixels(image, shape[0])

    def _table(self) -> Any:
        """Return the table of the split, downloaded if necessary, with encoded images."""
        try:
            datasets = importlib.import_module("datasets")
        except ImportError as error:
            raise DataError(
                'data set "huggingface" requires the library datasets; '
                f"{install_command('huggingface')}",
                Code.MISSING_PACKAGE,
            ) from error
        folder = Path(self.path).expanduser()
        library_error = datasets.exceptions.DatasetsError
        try:
            table = datasets.load_dataset(
                str(folder) if folder.is_dir() else self.path, split=self.split
            )
        except (OSError, ValueError, library_error) as error:
            raise DataError(f"{self.path}: cannot be loaded: {error}", Code.UNREADABLE) from error
        for column in filter(None, (self.image, self.label)):
            if column not in table.column_names:
                hint = near_match(column, table.column_names)
                raise DataError(
                    f'{self.path}: must have the column "{column}", got '
                    f"{', '.join(table.column_names)}" + (f"; {hint}" if hint else ""),
                    Code.NOT_FOUND,
                )
        if isinstance(table.features[self.image], datasets.Image):
            return table.cast_column(self.image, datasets.Image(decode=False))
        return table

    def _class_count(self, table: Any) -> int:
        if not self.label:
            return 0
        named = getattr(table.features[self.label], "num_classes", None)
        return named or int(self._classes(table).max()) + 1

    def _classes(self, table: Any) -> Tensor:
        where = f'{self.path}: column "{self.label}"'
        values = table[self.label][:]
        try:
            labels = torch.tensor(values)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{where} must contain class indices: {error}", Code.WRONG_TYPE
            ) from error
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise DataError(
                f"{where} must contain class indices, got {values[0]!r}", Code.WRONG_TYPE
            )
        return as_classes(labels.numpy(), where)


def _files(table: Any) -> list[Path]:
    """Return the files of a table in the cache of the library."""
    files = [Path(file["filename"]) for file in table.cache_files]
    if not files:
        raise DataError(
            "the library datasets must store its tables in its cache, got tables in memory; enable "
            "its cache"
        )
    return files


def _version(table: Any) -> str:
    """Return a hash of a table's files; their folders contain the configuration and revision."""
    identity = [(*path.parts[-4:], str(path.stat().st_size)) for path in _files(table)]
    return hashlib.sha256(repr(identity).encode()).hexdigest()


def _shape(cell: Any, where: str) -> Shape:
    with open_image(_file(cell, where), where) as image:
        return shape_of(image, where)


def _file(cell: Any, where: str) -> Path | io.BytesIO:
    """Return the content of the image file in a cell, or its path."""
    match cell:
        case {"bytes": bytes(content)}:
            return io.BytesIO(content)
        case {"path": str(path)}:
            return Path(path)
        case _:
            raise DataError(
                f"{where}: the cell must be an image file, got {type(cell).__name__}",
                Code.WRONG_TYPE,
            )
