from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from genkit.errors import Code, DataError
from genkit.testing import check_dataset
from genkit.types import DataSpec
from genkit_data.image_folder import ImageFolder
from raising import raises_code


def draw(path, size=(5, 4), mode="RGB", value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    color = value if mode in ("L", "I;16", "F", "P") else (value,) * len(mode)
    Image.new(mode, size, color).save(path)


def test_images_without_labels_in_order_of_their_names(tmp_path, inputs):
    for name, value in (("b.png", 255), ("a.png", 0), ("c.bmp", 51)):
        draw(tmp_path / name, value=value)
    dataset = ImageFolder(root=str(tmp_path))
    check_dataset(dataset)
    batch = dataset.load(inputs)
    assert dataset.spec() == DataSpec((3, 4, 5))
    assert batch.labels is None
    assert batch.data.dtype == torch.uint8
    assert batch.data.flatten(1).unique(dim=1).flatten().tolist() == [0, 255, 51]


def test_a_class_for_each_folder(tmp_path, inputs):
    draw(tmp_path / "dog" / "1.png", value=255)
    draw(tmp_path / "cat" / "1.png")
    draw(tmp_path / "cat" / "2.png")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "cat" / ".DS_Store").touch()
    dataset = ImageFolder(root=str(tmp_path))
    check_dataset(dataset)
    batch = dataset.load(inputs)
    assert dataset.spec() == DataSpec((3, 4, 5), classes=2)
    assert batch.labels.tolist() == [0, 0, 1]
    assert batch.data[:, 0, 0, 0].tolist() == [0, 0, 255]


def test_pixels_stay_in_place(tmp_path, inputs):
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = ImageFolder(root=str(tmp_path)).load(inputs).data[0]
    assert torch.equal(image, torch.from_numpy(values).permute(2, 0, 1))


def test_grey_keeps_one_channel(tmp_path, inputs):
    values = np.arange(20, dtype=np.uint8).reshape(4, 5)
    Image.fromarray(values).save(tmp_path / "a.png")
    dataset = ImageFolder(root=str(tmp_path))
    assert dataset.spec().shape == (1, 4, 5)
    assert torch.equal(dataset.load(inputs).data[0], torch.from_numpy(values)[None])


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "1"])
def test_all_else_becomes_colour(tmp_path, inputs, mode):
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(tmp_path / "a.png")
    dataset = ImageFolder(root=str(tmp_path))
    assert dataset.spec().shape == (3, 4, 5)
    assert dataset.load(inputs).data.unique().tolist() == [255]


def test_sizes_differ(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png")
    draw(tmp_path / "c.png", size=(6, 4))
    with raises_code(DataError, Code.WRONG_SHAPE, "c.png", "6x4", "a.png", "5x4"):
        ImageFolder(root=str(tmp_path)).spec()


def test_grey_beside_colour(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", mode="L")
    with raises_code(DataError, Code.WRONG_SHAPE, "b.png", "a.png"):
        ImageFolder(root=str(tmp_path)).spec()


@pytest.mark.parametrize(("name", "mode"), [("a.png", "I;16"), ("a.tiff", "F")])
def test_deep_pixels_are_not_clipped(tmp_path, name, mode):
    draw(tmp_path / name, mode=mode)
    with raises_code(DataError, Code.WRONG_TYPE, name, mode):
        ImageFolder(root=str(tmp_path)).spec()


def test_no_image(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not an image")
    with raises_code(DataError, Code.UNREADABLE, "b.png"):
        ImageFolder(root=str(tmp_path)).spec()


def test_truncated_image(tmp_path, inputs):
    values = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    dataset = ImageFolder(root=str(tmp_path))
    assert dataset.spec().shape == (3, 32, 32)  # its header is sound
    with raises_code(DataError, Code.UNREADABLE, "a.png"):
        dataset.load(inputs)


def test_image_too_large_to_trust(tmp_path, monkeypatch):
    draw(tmp_path / "a.png", size=(50, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with raises_code(DataError, Code.UNREADABLE, "a.png"):
        ImageFolder(root=str(tmp_path)).spec()


def test_link_to_nothing(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    with raises_code(DataError, Code.IO_ERROR, "a.png"):
        ImageFolder(root=str(tmp_path)).spec()


def test_files_beside_folders(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "cat" / "b.png")
    with raises_code(DataError, Code.CONFLICT, "a.png", "cat"):
        ImageFolder(root=str(tmp_path)).spec()


def test_empty_folder(tmp_path):
    with raises_code(DataError, Code.NOT_FOUND):
        ImageFolder(root=str(tmp_path)).spec()


def test_empty_class(tmp_path):
    draw(tmp_path / "cat" / "a.png")
    (tmp_path / "dog").mkdir()
    with raises_code(DataError, Code.NOT_FOUND, "dog"):
        ImageFolder(root=str(tmp_path)).spec()


def test_folder_in_a_class(tmp_path):
    draw(tmp_path / "cat" / "a.png")
    draw(tmp_path / "cat" / "deep" / "a.png")
    with raises_code(DataError, Code.CONFLICT, "deep"):
        ImageFolder(root=str(tmp_path)).spec()


def test_missing_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    with raises_code(DataError, Code.NOT_FOUND, '"photos"'):
        ImageFolder(root=str(tmp_path / "photo")).spec()


def test_the_version_follows_the_files(tmp_path):
    draw(tmp_path / "a.png")
    dataset = ImageFolder(root=str(tmp_path))
    first = dataset.version()
    assert dataset.version() == first
    draw(tmp_path / "b.png")
    second = dataset.version()
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    assert len({first, second, dataset.version()}) == 3


def test_more_images_than_are_decoded_at_a_time(tmp_path, inputs):
    for k in range(150):
        draw(tmp_path / f"{k % 2}" / f"{k:03}.png", size=(1, 1), value=k)
    batch = ImageFolder(root=str(tmp_path)).load(inputs)
    assert batch.data[:, 0, 0, 0].tolist() == [*range(0, 150, 2), *range(1, 150, 2)]
    assert batch.labels.tolist() == [0] * 75 + [1] * 75


def test_the_second_start_decodes_nothing(tmp_path, inputs, monkeypatch):
    draw(tmp_path / "a.png", value=7)
    dataset = ImageFolder(root=str(tmp_path))
    first = dataset.load(inputs)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)
        assert torch.equal(dataset.load(inputs).data, first.data)
    draw(tmp_path / "a.png", value=77)
    assert dataset.load(inputs).data.unique().tolist() == [77]


def test_headers_are_read_once_for_each_version(tmp_path, monkeypatch):
    draw(tmp_path / "a.png")
    dataset = ImageFolder(root=str(tmp_path))
    first = dataset.spec()
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)
        assert dataset.spec() == first
    draw(tmp_path / "a.png", size=(7, 7))
    assert dataset.spec().shape == (3, 7, 7)
