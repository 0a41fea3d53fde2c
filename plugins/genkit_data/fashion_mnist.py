"""Fashion-MNIST, read from its four published files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from genkit.errors import Code, DataError
from genkit.interfaces import Dataset, Inputs
from genkit.settings import FilePath, near_match, setting
from genkit.types import Batch, DataSpec, RemoteFile
from genkit_data import idx
from genkit_data.cache import Decoding, load_or_decode
from genkit_data.folder import entries, existing_folder, how_to_fetch, version_of

CLASSES = 10
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_PUBLISHED = {
    "train-images-idx3-ubyte.gz": (26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "train-labels-idx1-ubyte.gz": (29_515, "25c81989df183df01b3e8a0aad5dffbe"),
    "t10k-images-idx3-ubyte.gz": (4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
    "t10k-labels-idx1-ubyte.gz": (5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
}


@dataclass(frozen=True, kw_only=True)
class FashionMNIST(Dataset):
    """Gray 28x28 images of clothes in 10 classes: 60,000 for training and 10,000 for testing.

    Reads ``train-images-idx3-ubyte.gz`` and ``train-labels-idx1-ubyte.gz``, or the test files,
    whose names start with ``t10k``. ``genkit data get fashion-mnist --root DIR`` downloads the
    files. This component can also read MNIST, whose files have the same names and format.
    """

    source = "Xiao, Rasul and Vollgraf, arXiv 1708.07747"
    archives: ClassVar[Mapping[str, RemoteFile]] = MappingProxyType(
        {name: RemoteFile(_SITE + name, size, md5) for name, (size, md5) in _PUBLISHED.items()}
    )

    root: FilePath = setting(doc="folder of the IDX .gz files; ~ is your home folder")
    split: Literal["train", "test"] = setting("train", doc="split to read")

    def spec(self) -> DataSpec:
        images, labels = self._files()
        count, height, width = idx.read_shape(images, 3)
        (label_count,) = idx.read_shape(labels, 1)
        if count != label_count:
            raise DataError(
                f"{labels} must have a label for each of the {count} images of {images}, got "
                f"{label_count}",
                Code.CONFLICT,
            )
        return DataSpec((1, height, width), CLASSES)

    def item_count(self) -> int:
        return idx.read_shape(self._files()[0], 3)[0]

    def version(self) -> str:
        return version_of(self._files())

    def load(self, inputs: Inputs) -> Batch:
        name = f"fashion-mnist-{self.split}"
        return load_or_decode(existing_folder(self.root), name, self.version(), self._decode)

    def _decode(self) -> Decoding:
        spec = self.spec()
        images_file, labels_file = self._files()
        images, labels = idx.read(images_file, 3), idx.read(labels_file, 1).long()
        if bool((invalid := labels >= CLASSES).any()):
            index = int(invalid.nonzero()[0])
            raise DataError(
                f"{labels_file}: label {index} must be from 0 to 9, got {int(labels[index])}",
                Code.OUT_OF_RANGE,
            )
        count, height, width = images.shape
        batch = Batch(images.reshape(count, *spec.shape), labels)
        return Decoding((count, 1, height, width), True, iter([batch]))

    def _files(self) -> tuple[Path, Path]:
        """Return the path of the image file and the path of the label file."""
        remedy = how_to_fetch("fashion-mnist", self.root)
        folder = existing_folder(self.root, remedy)
        present = [path.name for path in entries(folder)]
        # The other published files are not misspellings of the missing one.
        others = [name for name in present if name not in {*FILES["train"], *FILES["test"]}]
        for name in FILES[self.split]:
            if name not in present:
                hint = near_match(name, others)
                parts = (f"{folder}: must contain {name}", hint, remedy)
                raise DataError("; ".join(filter(None, parts)), Code.NOT_FOUND)
        images, labels = FILES[self.split]
        return folder / images, folder / labels
