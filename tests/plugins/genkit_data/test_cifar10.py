from __future__ import annotations

import hashlib
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from genkit.errors import Code, DataError
from genkit.testing import check_dataset
from genkit.types import DataSpec
from genkit_data.cifar10 import CIFAR10
from genkit_data.cifar10_batches import BINARY, PYTHON, read_binary, read_python
from raising import raises_code

VERSIONS = pytest.mark.parametrize("version", [BINARY, PYTHON], ids=["binary", "python"])


def kept(root):
    """The files that hold decoded images."""
    return sorted(root.glob(".genkit/*.safetensors"))


@VERSIONS
@pytest.mark.parametrize("unpacked", [False, True])
def test_both_versions_give_the_same_images(small_cifar10, inputs, version, unpacked):
    small_cifar10.write(version)
    if unpacked:
        small_cifar10.unpack(version)
        (small_cifar10.root / version.archive).unlink()
    for split, part in (("train", slice(0, 15)), ("test", slice(15, 18))):
        dataset = CIFAR10(root=str(small_cifar10.root), split=split)
        assert dataset.spec() == DataSpec((3, 32, 32), classes=10)
        check_dataset(dataset)
        batch = dataset.load(inputs)
        assert batch.data.dtype == torch.uint8
        assert np.array_equal(batch.data.flatten(1).numpy(), small_cifar10.pixels[part])
        assert batch.labels.tolist() == small_cifar10.labels[part]


def test_red_green_and_blue_are_planes_of_rows(inputs):
    pixels = np.zeros((1, 3072), np.uint8)
    pixels[0, 1024 + 32 * 5 + 7] = 9  # green, row 5, column 7
    batch = read_binary(b"\x04" + pixels.tobytes(), 1, "a.bin")
    assert batch.data.nonzero().tolist() == [[0, 1, 5, 7]]
    assert batch.labels.tolist() == [4]


def test_what_is_published():
    assert (BINARY.remote.size, PYTHON.remote.size) == (170_052_171, 170_498_071)
    assert BINARY.remote.md5 == "c32a1d4ab5d03f1284b67883e8d87530"
    assert PYTHON.remote.md5 == "c58f30108f718f92721af3b95e74349a"
    assert dict(CIFAR10.archives) == {"cifar-10-binary.tar.gz": BINARY.remote}
    assert BINARY.at_most == 10_000 * 3073


def test_validation_reads_no_content(small_cifar10):
    path = small_cifar10.write(BINARY)
    path.write_bytes(bytes(path.stat().st_size))
    assert CIFAR10(root=str(small_cifar10.root)).spec().classes == 10


@VERSIONS
def test_truncated_archive(small_cifar10, version):
    path = small_cifar10.write(version)
    path.write_bytes(path.read_bytes()[:-1])
    with raises_code(DataError, Code.UNREADABLE, "tar.gz", "bytes"):
        CIFAR10(root=str(small_cifar10.root)).spec()


@VERSIONS
def test_wrong_checksum(small_cifar10, inputs, version):
    path = small_cifar10.write(version)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with raises_code(DataError, Code.UNREADABLE, "tar.gz", "MD5"):
        CIFAR10(root=str(small_cifar10.root)).load(inputs)
    assert kept(small_cifar10.root) == []


def test_corrupt_archive_of_the_right_checksum(small_cifar10, inputs):
    path = small_cifar10.write(BINARY)
    path.write_bytes(path.read_bytes()[:-200])
    small_cifar10.publish()
    with raises_code(DataError, Code.UNREADABLE, "tar.gz"):
        CIFAR10(root=str(small_cifar10.root)).load(inputs)
    assert kept(small_cifar10.root) == []


def link(kind, name="cifar-10-batches-bin/data_batch_1.bin"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("/etc/passwd", (Code.UNSAFE,)),
        ("cifar-10-batches-bin/../../x", (Code.UNSAFE,)),
        ("..\\x", (Code.UNSAFE,)),
        (link(tarfile.SYMTYPE), (Code.UNSAFE,)),
        (link(tarfile.LNKTYPE, "other"), (Code.UNSAFE,)),
        (link(tarfile.FIFOTYPE, "other"), (Code.UNSAFE,)),
        (
            "cifar-10-batches-bin/data_batch_2.bin",
            (Code.DUPLICATE, "cifar-10-batches-bin/data_batch_2.bin"),
        ),
    ],
)
def test_hostile_members(small_cifar10, inputs, member, reason):
    content = b"" if isinstance(member, tarfile.TarInfo) else bytes(3 * 3073)
    small_cifar10.write(BINARY, [*small_cifar10.members(BINARY), (member, content)])
    with raises_code(DataError, *reason):
        CIFAR10(root=str(small_cifar10.root)).load(inputs)
    assert kept(small_cifar10.root) == []


def test_a_batch_is_missing(small_cifar10, inputs):
    small_cifar10.write(BINARY, small_cifar10.members(BINARY)[:-1])
    with raises_code(DataError, Code.NOT_FOUND, "cifar-10-batches-bin/data_batch_2.bin"):
        CIFAR10(root=str(small_cifar10.root)).load(inputs)
    (small_cifar10.unpack(BINARY) / "data_batch_4.bin").unlink()
    with raises_code(DataError, Code.IO_ERROR, "data_batch_4.bin"):
        CIFAR10(root=str(small_cifar10.root)).spec()


def test_a_batch_is_too_large(small_cifar10, inputs):
    members = small_cifar10.members(BINARY)
    name, _ = members[-1]
    small_cifar10.write(BINARY, [*members[:-1], (name, bytes(20_001))])
    with raises_code(DataError, Code.UNSAFE, "20,001", "20,000"):
        CIFAR10(root=str(small_cifar10.root)).load(inputs)
    (small_cifar10.unpack(BINARY) / "data_batch_1.bin").write_bytes(bytes(20_001))
    with raises_code(DataError, Code.UNSAFE, "data_batch_1.bin", "20,001", "20,000"):
        CIFAR10(root=str(small_cifar10.root)).load(inputs)


def test_images_of_another_size():
    with raises_code(DataError, Code.WRONG_LENGTH, "a.bin", "6,144", "2 images"):
        read_binary(bytes(2 * 3072), 2, "a.bin")


def test_a_class_out_of_range(small_cifar10):
    content = bytearray(small_cifar10.members(BINARY)[-2][1])
    content[3073] = 10
    with raises_code(DataError, Code.OUT_OF_RANGE, "a", "image 1", "10"):
        read_binary(bytes(content), 3, "a")


def test_unpacked_batches_of_the_python_version_are_verified(small_cifar10, inputs, monkeypatch):
    folder = small_cifar10.unpack(PYTHON)
    digests = {
        path.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in folder.iterdir()
    }
    version = replace(PYTHON, images=3, digests=digests)
    monkeypatch.setattr(CIFAR10, "versions", (version,))
    dataset = CIFAR10(root=str(small_cifar10.root))
    assert len(dataset.load(inputs)) == 15
    content = bytearray((folder / "data_batch_3").read_bytes())
    content[-100] ^= 1
    (folder / "data_batch_3").write_bytes(content)
    with raises_code(DataError, Code.UNREADABLE, "data_batch_3"):
        dataset.load(inputs)


def patched(content, old, new):
    assert old in content
    return content.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"U\x06labels", b"U\x06labelz", (Code.NOT_FOUND, '"labels"')),
        (b"U\x04data", b"U\x04dato", (Code.NOT_FOUND, '"data"')),
        (b"U\x02u1", b"U\x02i1", (Code.WRONG_SHAPE, '"data"', "int8", "(3, 3072)")),
        (
            b"M\x03\x00M\x00\x0c",
            b"M\x00\x0cM\x03\x00",
            (Code.WRONG_SHAPE, '"data"', "uint8", "(3072, 3)"),
        ),
        (b"U\x02u1", b"U\x01O\x30", (Code.UNREADABLE,)),
        (b"cnumpy.core.multiarray\n_reconstruct", b"cos\nsystem", (Code.WRONG_KIND, "os.system")),
        (b"](K", b"](N", (Code.UNREADABLE,)),
        (b"\x80\x02}", b"\x80\x02]", (Code.UNREADABLE,)),
    ],
)
def test_pickles_that_are_no_batch(small_cifar10, old, new, reason):
    content = small_cifar10.members(PYTHON)[-2][1]
    with raises_code(DataError, reason[0], "a", *reason[1:]):
        read_python(patched(content, old, new), 3, "a")


def test_pickled_labels(small_cifar10):
    content = small_cifar10.members(PYTHON)[-2][1]
    labels = b"](K" + bytes(small_cifar10.labels[:1])
    for new, reason in (
        (b"](K\x0a", (Code.OUT_OF_RANGE, "image 0", 10)),
        (b"](M\x00\x01", (Code.WRONG_TYPE, '"labels"')),
        (b"](N", (Code.WRONG_TYPE, '"labels"')),
        (b"](", (Code.WRONG_TYPE, '"labels"')),
    ):
        with raises_code(DataError, reason[0], "a", *reason[1:]):
            read_python(patched(content, labels, new), 3, "a")
    with raises_code(DataError, Code.WRONG_KIND, "a"):
        read_python(b"\x80\x02].", 3, "a")


def test_nothing_is_executed(small_cifar10, tmp_path):
    proof = tmp_path / "proof"
    call = f"cos\nsystem\n(S'touch {proof}'\ntR".encode()
    with pytest.raises(DataError):
        read_python(b"\x80\x02}(" + b"U\x04data" + call + b"U\x06labels](K\x01eu.", 1, "a")
    assert not proof.exists()


def test_nothing_there(tmp_path):
    with raises_code(
        DataError, Code.NOT_FOUND, "cifar-10-binary.tar.gz", "genkit data get cifar10"
    ):
        CIFAR10(root=str(tmp_path)).spec()
    with raises_code(DataError, Code.NOT_FOUND, "genkit data get cifar10 --root"):
        CIFAR10(root=str(tmp_path / "cifar10")).spec()
    with raises_code(DataError, Code.NOT_FOUND, "genkit data get cifar10 --root 'my data'"):
        CIFAR10(root="my data").spec()
    (tmp_path / "cifar-10-binary.tgz").touch()
    with raises_code(DataError, Code.NOT_FOUND, '"cifar-10-binary.tgz"'):
        CIFAR10(root=str(tmp_path)).spec()


def test_the_second_start_reads_no_archive(small_cifar10, inputs, monkeypatch):
    small_cifar10.write(BINARY)
    dataset = CIFAR10(root=str(small_cifar10.root))
    first = dataset.load(inputs)
    monkeypatch.setattr("genkit_data.cifar10.read_members", None)
    assert torch.equal(dataset.load(inputs).data, first.data)
    assert [path.name for path in kept(small_cifar10.root)] == ["cifar10-train.safetensors"]


def test_the_version_follows_the_archive(small_cifar10, inputs):
    small_cifar10.write(BINARY)
    dataset = CIFAR10(root=str(small_cifar10.root))
    version, batch = dataset.version(), dataset.load(inputs)
    small_cifar10.pixels = 255 - small_cifar10.pixels
    small_cifar10.write(BINARY)
    assert dataset.version() != version
    assert torch.equal(dataset.load(inputs).data, 255 - batch.data)
    shutil.rmtree(small_cifar10.root / ".genkit")
    assert torch.equal(dataset.load(inputs).data, 255 - batch.data)
