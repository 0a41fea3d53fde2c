"""CIFAR-10, read from the archives that its authors published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from genkit.errors import Code, DataError
from genkit.interfaces import Dataset, Inputs
from genkit.settings import FilePath, near_match, setting
from genkit.types import Batch, DataSpec, RemoteFile
from genkit_data.cache import Decoding, load_or_decode
from genkit_data.cifar10_batches import BINARY, CLASSES, SHAPE, VERSIONS, Version
from genkit_data.folder import (
    content_of,
    entries,
    existing_folder,
    how_to_fetch,
    require_md5,
    size_of,
    version_of,
)
from genkit_data.tarball import read_members


@dataclass(frozen=True, kw_only=True)
class CIFAR10(Dataset):
    """Color photographs of 32x32 pixels in 10 classes: 50,000 for training and 10,000 for testing.

    Reads the official archive, ``cifar-10-binary.tar.gz`` or ``cifar-10-python.tar.gz``, or its
    unpacked folder, ``cifar-10-batches-bin`` or ``cifar-10-batches-py``. ``genkit data get cifar10
    --root DIR`` downloads the archive.
    """

    source = "Krizhevsky, Learning multiple layers of features from tiny images, 2009"
    archives: ClassVar[Mapping[str, RemoteFile]] = MappingProxyType({BINARY.archive: BINARY.remote})
    versions: ClassVar[tuple[Version, ...]] = VERSIONS
    """Versions of the archive, in order of preference."""

    root: FilePath = setting(doc="folder that contains the archive; ~ is your home folder")
    split: Literal["train", "test"] = setting("train", doc="split to read")

    def spec(self) -> DataSpec:
        self._find().check_sizes()
        return DataSpec(SHAPE, CLASSES)

    def item_count(self) -> int:
        return self._find().count

    def version(self) -> str:
        return version_of(self._find().files)

    def load(self, inputs: Inputs) -> Batch:
        split = self._find()
        return load_or_decode(
            existing_folder(self.root),
            f"cifar10-{self.split}",
            version_of(split.files),
            split.decode,
        )

    def _find(self) -> _Split:
        remedy = how_to_fetch("cifar10", self.root)
        folder = existing_folder(self.root, remedy)
        present = {path.name: path for path in entries(folder)}
        for version in self.versions:
            for name in (version.folder, version.archive):
                if name in present:
                    return _Split(version, present[name], version.batches[self.split])
        names = [name for version in self.versions for name in (version.archive, version.folder)]
        hint = next((hint for name in names if (hint := near_match(name, present))), "")
        raise DataError(
            "; ".join(filter(None, (f"{folder}: must contain {names[0]}", hint, remedy))),
            Code.NOT_FOUND,
        )


@dataclass(frozen=True)
class _Split:
    """The files of a split.

    Attributes:
        version: version of the archive.
        place: path of the archive, or of the folder to which it was unpacked.
        batches: names of the files of the split.
    """

    version: Version
    place: Path
    batches: tuple[str, ...]

    @property
    def unpacked(self) -> bool:
        return self.place.name == self.version.folder

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the files that are read."""
        if self.unpacked:
            return tuple(self.place / name for name in self.batches)
        return (self.place,)

    @property
    def count(self) -> int:
        """Number of images."""
        return self.version.images * len(self.batches)

    def check_sizes(self) -> None:
        """Raise DataError if a file is missing, or the archive does not have its published size."""
        sizes = [size_of(path) for path in self.files]
        published = self.version.remote.size
        if not self.unpacked and sizes[0] != published:
            raise DataError(
                f"{self.place}: must have {published:,} bytes as published, got {sizes[0]:,}; "
                "delete it and download it again",
                Code.UNREADABLE,
            )

    def decode(self) -> Decoding:
        """Check the sizes, and start decoding."""
        self.check_sizes()
        shape = (self.count, *SHAPE)
        return Decoding(shape, True, self._parts())

    def _parts(self) -> Iterator[Batch]:
        version = self.version
        if self.unpacked:
            for path in self.files:
                if path.name in version.digests:
                    require_md5(path, version.digests[path.name])
                content = content_of(path, version.at_most)
                yield version.read(content, version.images, str(path))
            return
        require_md5(self.place, version.remote.md5)
        names = [f"{version.folder}/{name}" for name in self.batches]
        contents = read_members(self.place, names, version.at_most)
        for name in names:
            yield version.read(contents[name], version.images, f"{self.place}: {name}")
