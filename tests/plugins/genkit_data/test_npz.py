from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch

from genkit.errors import Code, DataError
from genkit.testing import check_dataset
from genkit.types import DataSpec
from genkit_data.npz import NPZ
from raising import raises_code

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
CLASSES = np.array([3, 0, 1, 1, 2])


@pytest.fixture
def write(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return str(tmp_path / "data.npz")

    return write


@pytest.mark.parametrize("names", [("images", "labels"), ("arr_0", "arr_1")])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, ">i8"])
def test_bytes(write, inputs, names, channels_last, dtype):
    images = IMAGES if channels_last else np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))
    dataset = NPZ(path=write(**dict(zip(names, (images, CLASSES.astype(dtype)), strict=True))))
    assert dataset.spec() == DataSpec((3, 6, 7), classes=4)
    check_dataset(dataset)
    batch = dataset.load(inputs)
    assert np.array_equal(batch.data.permute(0, 2, 3, 1).numpy(), IMAGES)
    assert batch.labels.tolist() == CLASSES.tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
def test_floats(write, inputs, dtype):
    images = (IMAGES / 255 * 2 - 1).astype(dtype)
    dataset = NPZ(path=write(images=images), labels=False)
    check_dataset(dataset)
    batch = dataset.load(inputs)
    expected = torch.from_numpy(images.astype(np.float32)).movedim(3, 1)
    assert torch.equal(batch.data, expected)
    assert batch.labels is None


@pytest.mark.parametrize("shape", [(1000, 2), (5, 3), (7, 1)])
def test_vectors(write, inputs, shape):
    vectors = 3 * np.random.default_rng(1).standard_normal(shape)
    labelled = NPZ(path=write(images=vectors, labels=np.arange(len(vectors)) % 2))
    assert labelled.spec() == DataSpec(shape[1:], classes=2)
    check_dataset(labelled)
    batch = labelled.load(inputs)
    assert np.array_equal(batch.data.numpy(), vectors.astype(np.float32))
    assert NPZ(path=labelled.path, labels=False).load(inputs).labels is None


def test_compressed_and_in_the_order_of_fortran(tmp_path, inputs):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, images=np.asfortranarray(IMAGES))
    data = NPZ(path=str(path), labels=False).load(inputs).data
    assert np.array_equal(data.permute(0, 2, 3, 1).numpy(), IMAGES)


def test_the_second_start_reads_no_images(write, inputs, monkeypatch):
    dataset = NPZ(path=write(images=IMAGES, labels=CLASSES))
    first = dataset.load(inputs)
    monkeypatch.setattr("genkit_data.npz_arrays.npy.read_array", None)
    assert torch.equal(dataset.load(inputs).data, first.data)


def test_objects_are_never_unpickled(write, inputs):
    hostile = np.empty((5, 6, 7, 3), object)
    with raises_code(DataError, Code.UNSAFE, '"images"'):
        NPZ(path=write(images=hostile), labels=False).spec()
    labels = np.empty(5, object)
    with raises_code(DataError, Code.UNSAFE, '"labels"'):
        NPZ(path=write(images=IMAGES, labels=labels)).load(inputs)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"pictures": IMAGES}, (Code.NOT_FOUND, '"images"', '"arr_0"')),
        ({"images": IMAGES}, (Code.NOT_FOUND, '"labels"', '"arr_1"')),
        ({"images": IMAGES, "labels": CLASSES[:4]}, (Code.WRONG_SHAPE, "int64", "(4,)", "(5,)")),
        ({"images": IMAGES, "labels": CLASSES / 2}, (Code.WRONG_SHAPE, "float64")),
        ({"images": IMAGES, "labels": np.eye(5, dtype=int)}, (Code.WRONG_SHAPE, "(5, 5)")),
        ({"images": IMAGES, "labels": CLASSES - 1}, (Code.OUT_OF_RANGE, "item 1", -1)),
        ({"images": IMAGES, "labels": CLASSES * 10**6}, (Code.OUT_OF_RANGE, "item 0", 3000000)),
        ({"images": IMAGES.astype(np.int64)}, (Code.WRONG_TYPE, "int64")),
        ({"images": IMAGES.astype(np.uint16)}, (Code.WRONG_TYPE, "uint16")),
        ({"images": IMAGES[0]}, (Code.WRONG_SHAPE, "(6, 7, 3)", "[N, H, W, C]")),
        ({"images": IMAGES[:0]}, (Code.WRONG_SHAPE, "(0, 6, 7, 3)", "[N, H, W, C]")),
        ({"images": IMAGES[:, :3, :3]}, (Code.WRONG_SHAPE, "(5, 3, 3, 3)", "1 to 4")),
        ({"images": IMAGES[0, 0]}, (Code.WRONG_TYPE, "uint8", "floats")),
        ({"images": np.zeros(9)}, (Code.WRONG_SHAPE, "(9,)", "[N, D]")),
        ({"images": np.repeat(IMAGES, 2, 3)}, (Code.WRONG_SHAPE, "(5, 6, 7, 6)", "1 to 4")),
    ],
)
def test_arrays_that_do_not_fit(write, inputs, arrays, reason):
    dataset = NPZ(path=write(**arrays))
    for read in (dataset.spec, lambda: dataset.load(inputs)):
        with raises_code(DataError, reason[0], "data.npz", *reason[1:]):
            read()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.nan, (Code.NOT_FINITE, "nan")),
        (1e300, (Code.NOT_FINITE, "inf")),
        (255, (Code.OUT_OF_RANGE, "0 to 255")),
    ],
)
def test_floats_out_of_range(write, inputs, value, reason):
    images = np.zeros((5, 6, 7, 3))
    images[3, 2, 1, 0] = value
    with raises_code(DataError, reason[0], "image 3", *reason[1:]):
        NPZ(path=write(images=images), labels=False).load(inputs)


def test_a_vector_that_is_not_finite(write, inputs):
    vectors = np.zeros((5, 2))
    vectors[3, 1] = np.inf
    with raises_code(DataError, Code.NOT_FINITE, "vector 3", "inf"):
        NPZ(path=write(images=vectors), labels=False).load(inputs)


def npy(array, change=lambda content: content):
    file = io.BytesIO()
    np.save(file, array)
    return change(file.getvalue())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c[:-1], (Code.WRONG_LENGTH, "629", "630")),
        (lambda c: c + b"x", (Code.WRONG_LENGTH, "631", "630")),
        (lambda c: c.replace(b"(5, 6", b"(9**9", 1), (Code.UNREADABLE,)),
        (lambda c: c.replace(b"(5, 6, ", b"(-5,-6,", 1), (Code.UNREADABLE, "-5")),
        (lambda c: c.replace(b"(5, 6, 7, 3), } ", b"(True,30,7,3), }", 1), (Code.UNREADABLE,)),
        (lambda c: c.replace(b"|u1", b"|z1", 1), (Code.UNREADABLE,)),
        (lambda c: b"\x93NUMPY\x09" + c[7:], (Code.UNREADABLE,)),
        (lambda c: b"", (Code.UNREADABLE,)),
        (lambda c: c[:9], (Code.UNREADABLE,)),
    ],
)
def test_damaged_headers(tmp_path, change, reason):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", npy(IMAGES, change))
    with raises_code(DataError, reason[0], '"images"', *reason[1:]):
        NPZ(path=str(path), labels=False).spec()


def test_too_little_memory(write, inputs, monkeypatch):
    def full(*args, **kwargs):
        raise MemoryError("Unable to allocate 1. TiB")

    path = write(images=IMAGES)
    monkeypatch.setattr("genkit_data.npz_arrays.npy.read_array", full)
    with raises_code(DataError, Code.UNREADABLE, '"images"'):
        NPZ(path=path, labels=False).load(inputs)


def test_no_zip_archive(tmp_path):
    path = tmp_path / "data.npz"
    np.save(path.with_suffix(".npy"), IMAGES)
    path.with_suffix(".npy").rename(path)
    with raises_code(DataError, Code.UNREADABLE, "data.npz"):
        NPZ(path=str(path)).spec()
