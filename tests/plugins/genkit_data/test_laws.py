from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from genkit.testing import check_augmentation, check_dataset
from genkit.types import Batch
from genkit_data.cifar10 import CIFAR10
from genkit_data.cifar10_batches import BINARY
from genkit_data.edm_zip import EDMZip
from genkit_data.fashion_mnist import FashionMNIST
from genkit_data.flip import Flip
from genkit_data.handwritten import Digits
from genkit_data.image_folder import ImageFolder
from genkit_data.mirrored import Mirrored
from genkit_data.npz import NPZ
from genkit_data.points import Moons, SwissRoll
from genkit_data.real_and_fake import RealAndFake


def check_counted(dataset):
    """Check a data set, which must know its number of items: `validate` needs it for metrics."""
    assert dataset.item_count() is not None
    check_dataset(dataset)


@pytest.mark.parametrize(
    "dataset",
    [Digits(), SwissRoll(), Moons(), Mirrored(inner=Digits())],
    ids=lambda d: type(d).__name__,
)
def test_datasets(dataset):
    check_counted(dataset)


def test_cifar10(small_cifar10):
    small_cifar10.write(BINARY)
    dataset = CIFAR10(root=str(small_cifar10.root))
    check_counted(dataset)
    check_counted(Mirrored(inner=dataset))


def test_fashion_mnist(tmp_path, write_idx):
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", (3, 4, 5))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", (3,))
    check_counted(FashionMNIST(root=str(tmp_path)))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_in_folders(tmp_path, mode):
    names = [f"{k % 2}/{k}.png" for k in range(5)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new(mode, (4, 6)).save(tmp_path / name)
    check_counted(ImageFolder(root=str(tmp_path)))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [[n, 1] for n in names]}))
    check_counted(EDMZip(path=str(tmp_path)))
    check_counted(EDMZip(path=str(tmp_path), labels=False))


@pytest.mark.parametrize("images", [np.zeros((5, 1, 6, 6)), np.ones((5, 6, 6, 3), np.uint8)])
def test_npz(tmp_path, images):
    np.savez(tmp_path / "a.npz", images, np.arange(5))
    check_counted(NPZ(path=str(tmp_path / "a.npz")))
    check_counted(NPZ(path=str(tmp_path / "a.npz"), labels=False))


@pytest.mark.parametrize("labels", [False, True])
def test_real_and_fake(with_samples, labels):
    samples = with_samples(Batch(torch.zeros(20, 1, 8, 8), torch.arange(20) % 10))
    dataset = RealAndFake(real=Digits(), fakes="fakes", labels=labels)
    check_dataset(dataset, samples)


def test_augmentations():
    check_augmentation(Flip())
