"""Data sets of the library ``datasets``, from Parquet files of this machine alone."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from genkit.errors import Code, DataError
from genkit.testing import check_dataset
from genkit.types import DataSpec
from genkit_data.huggingface import HuggingFace
from raising import raises_code

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def png(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "png")
    return file.getvalue()


def test_without_the_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    install = "pip install 'datasets"
    with raises_code(DataError, Code.MISSING_PACKAGE, install):
        HuggingFace(path=str(tmp_path)).spec()


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    """The library, offline, its cache in a folder of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    found = pytest.importorskip("datasets", reason='needs the extra "huggingface"')
    monkeypatch.setattr(found.config, "HF_DATASETS_CACHE", tmp_path / "home" / "datasets")
    found.disable_progress_bars()
    return found


@pytest.fixture
def write(datasets, tmp_path):
    """Writes a folder with a Parquet file, by default of 5 images in 4 classes."""

    def write(images=None, labels=(3, 0, 1, 1, 2), name="train.parquet", **features):
        cells = [{"bytes": png(v), "path": None} for v in PIXELS] if images is None else images
        columns = {"image": datasets.Image()} | features
        rows = {"image": cells}
        if labels is not None:
            rows["label"] = list(labels)
            columns.setdefault("label", datasets.Value("int64"))
        table = datasets.Dataset.from_dict(rows, datasets.Features(columns))
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        table.to_parquet(folder / name)
        return str(folder)

    return write


def test_images_and_labels(write, inputs):
    dataset = HuggingFace(path=write())
    assert dataset.spec() == DataSpec((3, 4, 6), classes=4)
    check_dataset(dataset)
    assert dataset.item_count() is not None
    batch = dataset.load(inputs)
    assert batch.data.dtype == torch.uint8
    assert np.array_equal(batch.data.permute(0, 2, 3, 1).numpy(), PIXELS)
    assert batch.labels.tolist() == [3, 0, 1, 1, 2]
    assert dataset.version() == HuggingFace(path=dataset.path).version()


def test_named_classes(write, datasets):
    names = datasets.ClassLabel(names=["a", "b", "c", "d", "e", "f"])
    assert HuggingFace(path=write(label=names)).spec().classes == 6


def test_without_labels(write, inputs):
    dataset = HuggingFace(path=write(labels=None), label="")
    assert dataset.spec() == DataSpec((3, 4, 6))
    assert dataset.load(inputs).labels is None


def test_the_second_start_decodes_nothing(write, inputs, monkeypatch):
    dataset = HuggingFace(path=write())
    first = dataset.load(inputs)
    monkeypatch.setattr(Image, "open", None)
    assert torch.equal(dataset.load(inputs).data, first.data)


def test_splits(write, inputs):
    write()
    path = write(labels=(0, 0, 0, 0, 1), name="test.parquet")
    assert HuggingFace(path=path, split="test").load(inputs).labels.tolist() == [0, 0, 0, 0, 1]
    assert HuggingFace(path=path).load(inputs).labels.tolist() == [3, 0, 1, 1, 2]
    with raises_code(DataError, Code.UNREADABLE, "valid"):
        HuggingFace(path=path, split="valid").spec()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"image": "images"}, (Code.NOT_FOUND, '"images"', "image, label", '"image"')),
        ({"label": "class"}, (Code.NOT_FOUND, '"class"', "image, label")),
        ({"image": "label"}, (Code.WRONG_TYPE, "image 0", "int")),
        ({"label": "image"}, (Code.WRONG_TYPE, 'column "image"')),
    ],
)
def test_columns(write, settings, reason):
    with raises_code(DataError, *reason):
        HuggingFace(path=write(), **settings).spec()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (png(PIXELS[0, :3]), (Code.WRONG_SHAPE, "6x3", "image 0", "6x4")),
        (png(PIXELS[0, :, :, 0]), (Code.WRONG_SHAPE, "gray")),
        (png(PIXELS[0].astype(np.uint16)[..., 0]), (Code.WRONG_TYPE, "8 bits")),
        (b"no image", (Code.UNREADABLE,)),
        (None, (Code.WRONG_TYPE, "NoneType")),
    ],
    ids=["size", "gray", "16 bits", "damaged", "none"],
)
def test_images_that_do_not_fit(write, inputs, image, reason):
    cells = [{"bytes": png(values), "path": None} for values in PIXELS]
    cells[2] = None if image is None else {"bytes": image, "path": None}
    with raises_code(DataError, reason[0], "image 2", *reason[1:]):
        HuggingFace(path=write(images=cells)).load(inputs)


@pytest.mark.parametrize(("last", "code"), [(-1, Code.OUT_OF_RANGE), (None, Code.WRONG_TYPE)])
def test_labels_that_are_no_classes(write, inputs, last, code):
    with raises_code(DataError, code, 'column "label"'):
        HuggingFace(path=write(labels=(0, 1, 2, 3, last))).load(inputs)


def test_no_image(write):
    with raises_code(DataError, Code.UNREADABLE):
        HuggingFace(path=write(), split="train[:0]").spec()


def test_nothing_there(datasets, tmp_path):
    with raises_code(DataError, Code.UNREADABLE):
        HuggingFace(path=str(tmp_path / "nothing")).spec()
