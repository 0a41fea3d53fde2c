"""Decoded images that are kept in a mapped file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from damage import damaged
from genkit import tensors
from genkit.errors import Code, DataError
from genkit.types import Batch
from genkit_data.cache import Decoding, load_or_decode
from raising import raises_code

pytestmark = pytest.mark.slow


def images(count=5, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 2, 3), generator=draws, dtype=torch.uint8)


class Decoder:
    """Decodes to given images in parts of two, and counts how often it is asked."""

    def __init__(self, data, labels=None):
        self.batch, self.calls = Batch(data, labels), 0

    def __call__(self):
        self.calls += 1
        parts = (self.batch[k : k + 2] for k in range(0, len(self.batch), 2))
        return Decoding(tuple(self.batch.data.shape), self.batch.labels is not None, parts)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of data; the user's folder for caches lies in tmp_path as well."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("labels", [None, torch.arange(5) * 2**40])
def test_what_was_decoded_comes_back(place, labels):
    decode = Decoder(images(), labels)
    for _ in range(2):
        batch = load_or_decode(place, "a", "1", decode)
        assert torch.equal(batch.data, decode.batch.data)
        assert batch.data.dtype == torch.uint8
        assert batch.data.is_contiguous()
        assert (batch.labels is None) == (labels is None)
        assert labels is None or torch.equal(batch.labels, labels)
    assert decode.calls == 1
    assert [path.name for path in (place / ".genkit").glob("*.safetensors")] == ["a.safetensors"]


def test_the_file_is_safetensors(place):
    decode = Decoder(images(), torch.arange(5))
    load_or_decode(place, "a", "version", decode)
    stored, about = tensors.load(place / ".genkit" / "a.safetensors")
    assert set(stored) == {"images", "labels"}
    assert about["version"].endswith("version")


def test_names_keep_apart(place):
    one, other = Decoder(images()), Decoder(images(seed=1))
    load_or_decode(place, "a", "1", one)
    load_or_decode(place, "b", "1", other)
    assert torch.equal(load_or_decode(place, "a", "1", one).data, one.batch.data)
    assert one.calls == other.calls == 1


def test_a_stale_file_is_made_anew(place):
    load_or_decode(place, "a", "1", Decoder(images()))
    later = Decoder(images(seed=1))
    assert torch.equal(load_or_decode(place, "a", "2", later).data, later.batch.data)
    assert torch.equal(load_or_decode(place, "a", "2", later).data, later.batch.data)
    assert later.calls == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: tensors.save(path, {"images": torch.zeros(5)}, {"version": "2 1"}),
        lambda path: tensors.save(path, {"labels": torch.zeros(5)}, {"version": "2 1"}),
        lambda path: path.write_bytes(damaged(path.read_bytes(), "flip", -1)),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_file_is_made_anew(place, damage):
    decode = Decoder(images())
    load_or_decode(place, "a", "1", decode)
    damage(place / ".genkit" / "a.safetensors")
    assert torch.equal(load_or_decode(place, "a", "1", decode).data, decode.batch.data)
    assert decode.calls == 2


def test_writing_to_an_item_leaves_the_file_as_it_is(place):
    decode = Decoder(images())
    load_or_decode(place, "a", "1", decode).data.zero_()
    assert torch.equal(load_or_decode(place, "a", "1", decode).data, decode.batch.data)
    assert decode.calls == 1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
def test_the_file_is_mapped(place):
    load_or_decode(place, "mapped", "1", Decoder(images()))
    batch = load_or_decode(place, "mapped", "1", Decoder(images()))
    assert "mapped.safetensors" in Path("/proc/self/maps").read_text()
    del batch


def blocked(folder):
    """Put a file where the folder of the cache would be: not even root can write into it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.touch()


def test_the_users_folder_serves_where_the_data_cannot_be_written(place, tmp_path):
    blocked(place / ".genkit")
    decode = Decoder(images())
    for _ in range(2):
        assert torch.equal(load_or_decode(place, "a", "1", decode).data, decode.batch.data)
    assert decode.calls == 1
    assert len(list((tmp_path / "home" / "genkit").glob("*/a.safetensors"))) == 1
    other = tmp_path / "other"
    other.mkdir()
    blocked(other / ".genkit")
    load_or_decode(other, "a", "1", Decoder(images()))
    assert len(list((tmp_path / "home" / "genkit").glob("*/a.safetensors"))) == 2


def test_a_user_without_a_home(place, monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    blocked(place / ".genkit")
    decode = Decoder(images())
    assert torch.equal(load_or_decode(place, "a", "1", decode).data, decode.batch.data)


@pytest.mark.parametrize("labels", [None, torch.arange(5)])
def test_memory_serves_where_nothing_can_be_written(place, tmp_path, labels):
    blocked(place / ".genkit")
    blocked(tmp_path / "home")
    decode = Decoder(images(), labels)
    for calls in (1, 2):
        batch = load_or_decode(place, "a", "1", decode)
        assert torch.equal(batch.data, decode.batch.data)
        assert labels is None or torch.equal(batch.labels, labels)
        assert decode.calls == calls


def test_a_full_disk(place, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    decode = Decoder(images())
    assert torch.equal(load_or_decode(place, "a", "1", decode).data, decode.batch.data)
    assert [path.name for path in tmp_path.rglob("*safetensors*")] == []


def test_data_that_cannot_be_decoded_leaves_nothing(place):
    def parts():
        yield Batch(images(2))
        raise DataError("image 2 is damaged")

    with raises_code(DataError, Code.DATA, "image 2"):
        load_or_decode(place, "a", "1", lambda: Decoding((5, 3, 2, 3), False, parts()))
    assert [path.name for path in place.rglob("*safetensors*")] == []


def test_fewer_images_than_were_promised_are_not_kept(place):
    data = images()
    for _ in range(2):
        batch = load_or_decode(
            place, "a", "1", lambda: Decoding((6, 3, 2, 3), False, iter([Batch(data)]))
        )
        assert torch.equal(batch.data, data)


def test_two_at_a_time_decode_once(place):
    decode, found = Decoder(images()), []
    parts = decode.batch

    def slow():
        decode.calls += 1
        time.sleep(0.2)
        return Decoding(tuple(parts.data.shape), False, iter([parts]))

    threads = [
        threading.Thread(target=lambda: found.append(load_or_decode(place, "a", "1", slow).data))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decode.calls == 1
    assert len(found) == 4
    assert all(torch.equal(data, parts.data) for data in found)


PROCESSES = """
import os, sys, time, torch
from pathlib import Path
from genkit.types import Batch
from genkit_data.cache import Decoding, load_or_decode
place = Path(sys.argv[1])
data = torch.arange(60, dtype=torch.uint8).reshape(5, 3, 2, 2)

def decode():
    with (place / "calls").open("a") as file:
        file.write("x")
    time.sleep(0.5)
    return Decoding((5, 3, 2, 2), False, iter([Batch(data)]))

child = os.fork()
assert torch.equal(load_or_decode(place, "a", "1", decode).data, data)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")
def test_two_processes_decode_once(place):
    command = [sys.executable, "-W", "error", "-c", PROCESSES, str(place)]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (place / "calls").read_text() == "x"
