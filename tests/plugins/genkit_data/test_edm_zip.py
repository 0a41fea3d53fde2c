from __future__ import annotations

import io
import json
import stat
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from genkit.errors import Code, DataError
from genkit.testing import check_dataset
from genkit.types import DataSpec
from genkit_data.edm_zip import EDMZip
from raising import raises_code

NAMES = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00000002.png"]
LABELS = {"labels": [[name, label] for name, label in zip(NAMES, [6, 0, 2], strict=True)]}


def png(values=None, mode="RGB", size=(4, 4)):
    file = io.BytesIO()
    image = Image.new(mode, size) if values is None else Image.fromarray(values)
    image.save(file, "png")
    return file.getvalue()


def photographs(shape=(4, 4, 3)):
    draws = np.random.default_rng(0)
    return [draws.integers(0, 256, shape, dtype=np.uint8) for _ in NAMES]


@pytest.fixture
def write(tmp_path):
    """Writes a data set: by default 3 images and their labels, in a zip archive."""

    def write(labels=LABELS, images=None, more=(), folder=False, at="data.zip"):
        contents = images if images is not None else [png(values) for values in photographs()]
        members = dict(zip(NAMES, contents, strict=False))
        if labels is not None:
            members["dataset.json"] = json.dumps(labels).encode()
        if folder:
            for name, content in members.items():
                path = tmp_path / "data" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return str(tmp_path / "data")
        with zipfile.ZipFile(tmp_path / at, "w") as archive:
            for name, content in reversed(members.items()):
                archive.writestr(name, content)
            for name, content in more:
                archive.writestr(name, content)
        return str(tmp_path / at)

    return write


@pytest.mark.parametrize("folder", [False, True])
def test_images_and_labels(write, inputs, folder):
    dataset = EDMZip(path=write(folder=folder))
    assert dataset.spec() == DataSpec((3, 4, 4), classes=7)
    check_dataset(dataset)
    batch = dataset.load(inputs)
    assert batch.data.dtype == torch.uint8
    assert np.array_equal(batch.data.permute(0, 2, 3, 1).numpy(), np.stack(photographs()))
    assert batch.labels.tolist() == [6, 0, 2]


@pytest.mark.parametrize("labels", [None, {"labels": None}, LABELS])
def test_without_labels(write, inputs, labels):
    dataset = EDMZip(path=write(labels), labels=False)
    assert dataset.spec() == DataSpec((3, 4, 4))
    assert dataset.load(inputs).labels is None


def test_gray(write, inputs):
    dataset = EDMZip(path=write(images=[png(values) for values in photographs((4, 4))]))
    assert dataset.spec().shape == (1, 4, 4)
    assert np.array_equal(dataset.load(inputs).data[:, 0].numpy(), np.stack(photographs((4, 4))))


def test_with_and_without_labels_are_kept_apart(write, inputs):
    path = write()
    for labels in (True, False, True):
        assert (EDMZip(path=path, labels=labels).load(inputs).labels is not None) == labels


@pytest.mark.parametrize("folder", [False, True])
def test_the_second_start_decodes_nothing(write, inputs, monkeypatch, folder):
    dataset = EDMZip(path=write(folder=folder))
    first = dataset.load(inputs)
    version = dataset.version()
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)
        assert torch.equal(dataset.load(inputs).data, first.data)
    write(images=[png()] * 3, folder=folder)
    assert dataset.version() != version
    assert dataset.load(inputs).data.unique().tolist() == [0]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (None, (Code.NOT_FOUND, "dataset.json", "labels")),
        ({"labels": None}, (Code.MISSING_ATTRIBUTE, "dataset.json", "labels")),
        ({"labels": []}, (Code.MISSING_ATTRIBUTE, "dataset.json", "labels")),
        ({}, (Code.UNREADABLE, '"labels"')),
        ([], (Code.UNREADABLE, '"labels"')),
        ({"labels": LABELS["labels"][:2]}, (Code.MISSING_ATTRIBUTE, NAMES[2], 1)),
        ({"labels": [*LABELS["labels"], ["x.png", 1]]}, (Code.NOT_FOUND, "x.png")),
        ({"labels": [*LABELS["labels"], [NAMES[0], 6]]}, (Code.DUPLICATE, NAMES[0])),
        ({"labels": [[NAMES[0], 1.5]]}, (Code.WRONG_TYPE, f'["{NAMES[0]}", 1.5]')),
        ({"labels": [[NAMES[0], True]]}, (Code.WRONG_TYPE,)),
        ({"labels": [[NAMES[0], [0.1, 0.2]]]}, (Code.WRONG_TYPE,)),
        ({"labels": [[1, 1]]}, (Code.WRONG_TYPE,)),
        ({"labels": [[NAMES[0], 2**70]]}, (Code.WRONG_TYPE,)),
        ({"labels": "cats"}, (Code.WRONG_TYPE, '"cats"')),
        ({"labels": [[n, -1] for n in NAMES]}, (Code.OUT_OF_RANGE, "item 0", -1)),
        ({"labels": [[n, 10**6] for n in NAMES]}, (Code.OUT_OF_RANGE, "item 0", 10**6)),
    ],
)
def test_labels_that_do_not_fit(write, inputs, labels, reason):
    dataset = EDMZip(path=write(labels))
    for read in (dataset.spec, lambda: dataset.load(inputs)):
        with raises_code(DataError, *reason):
            read()


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000], ids=["cut", "text", "deep"])
def test_labels_that_are_no_json(write, text):
    path = write(None, more=[("dataset.json", text)])
    with raises_code(DataError, Code.UNREADABLE, "data.zip", "dataset.json", '"labels"'):
        EDMZip(path=path).spec()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (png(size=(5, 4)), (Code.WRONG_SHAPE, "5x4", NAMES[0], "4x4")),
        (png(mode="L"), (Code.WRONG_SHAPE, "gray")),
        (png(mode="RGBA"), (Code.WRONG_SHAPE, "RGBA")),
        (png(mode="P"), (Code.WRONG_SHAPE, "P")),
        (png(mode="I;16"), (Code.WRONG_TYPE, "8 bits")),
        (png(photographs()[0])[:60], (Code.UNREADABLE,)),
        (b"", (Code.UNREADABLE,)),
    ],
    ids=["size", "gray", "transparent", "palette", "16 bits", "truncated", "empty"],
)
def test_images_that_do_not_fit(write, inputs, tmp_path, image, reason):
    path = write(images=[png(), image, png()])
    with raises_code(DataError, reason[0], "data.zip", NAMES[1], *reason[1:]):
        EDMZip(path=path).load(inputs)
    assert list(tmp_path.rglob("*.safetensors*")) == []


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def lzma(name):
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_LZMA
    return info


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("/etc/a.png", (Code.UNSAFE, '"/etc/a.png"')),
        ("00000/../../a.png", (Code.UNSAFE, '"00000/../../a.png"')),
        ("..\\a.png", (Code.UNSAFE, "a.png")),
        (link("a.png"), (Code.UNSAFE, '"a.png"')),
        (lzma("a.png"), (Code.UNSAFE, '"a.png"')),
    ],
)
def test_hostile_members(write, member, reason):
    path = write(more=[(member, png())])
    with raises_code(DataError, *reason):
        EDMZip(path=path).spec()


def test_a_member_there_twice(write):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = write(more=[(NAMES[0], png())])
    with raises_code(DataError, Code.UNSAFE, '"00000/img00000000.png"'):
        EDMZip(path=path).spec()


def test_an_encrypted_member(write, tmp_path):
    path = tmp_path / write().rpartition("/")[2]
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + 8] |= 1
    path.write_bytes(content)
    with raises_code(DataError, Code.UNSAFE):
        EDMZip(path=str(path)).spec()


def test_a_bomb(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAMES[0], bytes(65 * 2**20))
    with raises_code(DataError, Code.UNSAFE, "68,157,440"):
        EDMZip(path=str(path)).spec()


@pytest.mark.parametrize("keep", [0, 30, -30])
def test_a_truncated_archive(write, tmp_path, keep):
    path = tmp_path / write().rpartition("/")[2]
    path.write_bytes(path.read_bytes()[:keep])
    with raises_code(DataError, Code.UNREADABLE, "data.zip"):
        EDMZip(path=str(path)).spec()


def test_a_member_of_another_checksum(write, tmp_path, inputs):
    path = tmp_path / write().rpartition("/")[2]
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 1
    path.write_bytes(content)
    with raises_code(DataError, Code.UNREADABLE, "'00001/img00000002.png'"):
        EDMZip(path=str(path)).load(inputs)
    assert list(tmp_path.rglob("*.safetensors*")) == []


@pytest.mark.parametrize("folder", [False, True])
def test_no_image(write, folder):
    with raises_code(DataError, Code.NOT_FOUND, ".bmp", ".png"):
        EDMZip(path=write(images=[], folder=folder)).spec()


def test_a_file_that_is_too_large(write, monkeypatch):
    monkeypatch.setattr("genkit_data.edm_zip._MAX_BYTES", 50)
    for folder in (False, True):
        with raises_code(DataError, Code.UNSAFE, "dataset.json"):
            EDMZip(path=write(folder=folder)).spec()


def test_missing(write, tmp_path):
    write()
    with raises_code(DataError, Code.NOT_FOUND, '"data.zip"'):
        EDMZip(path=str(tmp_path / "dato.zip")).spec()


def test_the_archive_is_judged_once_for_each_version(write, monkeypatch):
    dataset = EDMZip(path=write())
    first = dataset.spec()
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZipFile", None)
        assert dataset.spec() == first
    write(labels={"labels": [[name, 9] for name in NAMES]})
    assert dataset.spec().classes == 10
