from __future__ import annotations

import pytest
import torch

from genkit.errors import Code, DataError, SettingError
from genkit.testing import check_dataset
from genkit.types import DataSpec
from genkit_data.fashion_mnist import FashionMNIST
from raising import raises_code

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.fixture
def root(tmp_path, write_idx):
    """The four files, tiny: 3 images of 4x5 to train on and 2 to test on."""
    write_idx(tmp_path / IMAGES, (3, 4, 5), content=bytes(range(60)))
    write_idx(tmp_path / LABELS, (3,), content=bytes([9, 0, 4]))
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", (2, 4, 5), content=bytes([0, 255] * 20))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", (2,), content=bytes([1, 2]))
    return tmp_path


def test_train(root, inputs):
    dataset = FashionMNIST(root=str(root))
    check_dataset(dataset)
    batch = dataset.load(inputs)
    assert dataset.spec() == DataSpec((1, 4, 5), classes=10)
    assert batch.labels.tolist() == [9, 0, 4]
    assert torch.equal(batch.data, torch.arange(60, dtype=torch.uint8).reshape(3, 1, 4, 5))


def test_test_split_and_range(root, inputs):
    batch = FashionMNIST(root=str(root), split="test").load(inputs)
    assert batch.labels.tolist() == [1, 2]
    assert batch.data.unique().tolist() == [0, 255]


def test_unknown_split(root):
    with raises_code(SettingError, Code.UNKNOWN_CHOICE, "split"):
        FashionMNIST(root=str(root), split="tset")


def test_spec_reads_headers_only(root, write_idx, inputs):
    write_idx(root / IMAGES, (3, 4, 5), content=b"")
    dataset = FashionMNIST(root=str(root))
    assert dataset.spec().shape == (1, 4, 5)
    with raises_code(DataError, Code.WRONG_LENGTH, IMAGES, "got 0"):
        dataset.load(inputs)


def test_missing_file(root):
    (root / LABELS).unlink()
    with raises_code(DataError, Code.NOT_FOUND, LABELS, "genkit data get fashion-mnist"):
        FashionMNIST(root=str(root)).spec()


def test_misspelled_file(root):
    (root / IMAGES).rename(root / "train-images.idx3-ubyte.gz")
    with raises_code(DataError, Code.NOT_FOUND, IMAGES, "train-images.idx3-ubyte"):
        FashionMNIST(root=str(root)).spec()


def test_missing_folder(root):
    with raises_code(DataError, Code.NOT_FOUND, "genkit data get fashion-mnist"):
        FashionMNIST(root=str(root / "fashion")).spec()


def test_counts_differ(root, write_idx):
    write_idx(root / LABELS, (2,))
    with raises_code(DataError, Code.CONFLICT, LABELS, "3 images", "got 2"):
        FashionMNIST(root=str(root)).spec()


def test_label_out_of_range(root, write_idx, inputs):
    write_idx(root / LABELS, (3,), content=bytes([9, 10, 11]))
    with raises_code(DataError, Code.OUT_OF_RANGE, LABELS, "label 1", "10"):
        FashionMNIST(root=str(root)).load(inputs)


def test_images_and_labels_swapped(root):
    (root / IMAGES).rename(root / "x")
    (root / LABELS).rename(root / IMAGES)
    (root / "x").rename(root / LABELS)
    with raises_code(DataError, Code.WRONG_KIND, IMAGES, "00000801"):
        FashionMNIST(root=str(root)).spec()


def test_the_version_follows_the_files(root, write_idx):
    dataset = FashionMNIST(root=str(root))
    first = dataset.version()
    assert dataset.version() == first
    write_idx(root / LABELS, (3,), content=bytes([9, 0, 5]))
    assert dataset.version() != first


def test_the_second_start_decodes_nothing(root, inputs, monkeypatch):
    dataset = FashionMNIST(root=str(root))
    first = dataset.load(inputs)
    monkeypatch.setattr("genkit_data.fashion_mnist.idx.read", None)
    assert torch.equal(dataset.load(inputs).data, first.data)


def test_what_is_published():
    assert {name: remote.size for name, remote in FashionMNIST.archives.items()} == {
        IMAGES: 26_421_880,
        LABELS: 29_515,
        "t10k-images-idx3-ubyte.gz": 4_422_102,
        "t10k-labels-idx1-ubyte.gz": 5_148,
    }
    assert all(remote.url.endswith(name) for name, remote in FashionMNIST.archives.items())
