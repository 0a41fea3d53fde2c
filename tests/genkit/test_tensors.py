from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.distance import cdist

from genkit import tensors
from genkit.errors import Code, DamagedError, DataError
from genkit.random import generator
from raising import raises_code


def pool(dtype=torch.float64):
    g = generator(0, "test")
    return torch.randn((7, 3, 4), generator=g).to(dtype), torch.randn((5, 3, 4), generator=g).to(
        dtype
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_encoded_inverts_decoded(dtype):
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(tensors.to_uint8(tensors.to_float(values).to(dtype)), values)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_are_encoded_as_edm_does(dtype):
    # Where the result changes from one value to the next, and four steps of x to either side.
    up = down = ((np.arange(-3, 260) - 128) / 127.5).astype(dtype)
    near = [up, np.array([-2, 2, -1e30, 1e30], dtype)]
    for _ in range(4):
        up, down = np.nextafter(up, dtype(9)), np.nextafter(down, dtype(-9))
        near += [up, down]
    x = np.concatenate(near)
    wanted = (x * dtype(127.5) + dtype(128)).clip(0, 255).astype(np.uint8)
    encoded = tensors.to_uint8(torch.from_numpy(x))
    assert encoded.dtype == torch.uint8
    assert encoded.tolist() == wanted.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_encoded_in_float32(dtype):
    x = torch.linspace(-1.1, 1.1, 5_000).to(dtype)
    wanted = (x.float().numpy() * np.float32(127.5) + np.float32(128)).clip(0, 255)
    assert tensors.to_uint8(x).tolist() == wanted.astype(np.uint8).tolist()


@pytest.mark.parametrize(
    ("cost", "metric"), [("euclidean", "euclidean"), ("squared", "sqeuclidean")]
)
def test_cost_equals_scipy(cost, metric):
    data, noise = pool()
    found = tensors.pairwise_cost(data, noise, cost)
    expected = cdist(data.reshape(7, -1), noise.reshape(5, -1), metric)
    torch.testing.assert_close(found, torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_cost_is_computed_in_float32_or_wider(dtype, wide):
    data, noise = pool(dtype)
    found = tensors.pairwise_cost(data, noise)
    assert found.dtype == wide
    torch.testing.assert_close(found, tensors.pairwise_cost(data.to(wide), noise.to(wide)))


def test_equal_points_cost_nothing_rather_than_nan():
    data, _ = pool(torch.float32)
    cost = tensors.pairwise_cost(data * 100, data * 100)
    assert bool(cost.isfinite().all())
    assert bool((cost >= 0).all())


def test_cost_leaves_its_inputs_as_they_are():
    data, noise = pool()
    before = data.clone(), noise.clone()
    tensors.pairwise_cost(data, noise)
    assert torch.equal(data, before[0])
    assert torch.equal(noise, before[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", ["image", "noise"])
def test_values_that_are_not_finite_are_named_by_index(which, value):
    data, noise = pool()
    (data if which == "image" else noise)[4, 1, 2] = value
    with raises_code(DataError, Code.NOT_FINITE, f"{which} 4", value):
        tensors.pairwise_cost(data, noise)


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_a_distance_that_overflows_is_named(cost):
    data, noise = pool(torch.float32)
    data[2] = 1e20
    with raises_code(DataError, Code.NOT_FINITE, "the cost of image 2", "inf"):
        tensors.pairwise_cost(data, noise, cost)


def test_one_noise_for_each_image():
    data, noise = pool()
    tensors.require_same_length(data, data)
    with raises_code(DataError, Code.WRONG_LENGTH, "7 images", "got 5"):
        tensors.require_same_length(data, noise)


def test_saved_tensors_come_back_and_equal_content_gives_equal_bytes(tmp_path):
    data, noise = pool()
    kept = {"data": data, "noise": noise.mT}  # not contiguous
    tensors.save(tmp_path / "one", kept, {"b": "2", "a": "1"})
    tensors.save(tmp_path / "two", kept, {"a": "1", "b": "2"})
    found, metadata = tensors.load(tmp_path / "one")
    assert metadata == {"a": "1", "b": "2"}
    assert torch.equal(found["data"], data)
    assert torch.equal(found["noise"], noise.mT)
    whole = (tmp_path / "one").read_bytes()
    assert whole == (tmp_path / "two").read_bytes()
    assert tensors.file_digest(tmp_path / "one") == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("content", [None, b"", b"not safetensors"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    code = Code.NOT_FOUND if content is None else Code.UNREADABLE
    with raises_code(DataError, code, "weights.safetensors"):
        tensors.load(path)


@pytest.mark.parametrize(("name", "kind"), [("a.safetensors", DamagedError), ("a", DataError)])
def test_another_format_is_damage_if_the_name_is_that_of_safetensors(tmp_path, name, kind):
    (tmp_path / name).write_text("# not safetensors")
    with raises_code(DataError, Code.UNREADABLE, name) as caught:
        tensors.load(tmp_path / name)
    assert caught.type is kind


def test_items_of_unlike_shape_have_no_cost():
    with raises_code(DataError, Code.WRONG_SHAPE, "(2,)", "(3,)"):
        tensors.pairwise_cost(torch.zeros(4, 2), torch.zeros(4, 3))


def test_an_empty_pool_has_an_empty_cost():
    assert tensors.pairwise_cost(torch.zeros(0, 2), torch.zeros(0, 2)).shape == (0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_no_flipped_bit_of_a_file_passes(tmp_path, dtype):
    path = tmp_path / "x.safetensors"
    written = {"x": torch.ones(3, 2).to(dtype), "empty": torch.ones(0).to(dtype)}
    tensors.save(path, written, {"a": "b"})
    whole = path.read_bytes()
    assert tensors.load(path)[1] == tensors.metadata(path) == {"a": "b"}
    assert tensors.has_digest(path)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            found, metadata = tensors.load(path)
        except DataError:
            continue
        # Only the keys of the digest and of the metadata, whose absence every reader detects.
        assert all(torch.equal(found[name], values) for name, values in written.items())
        assert metadata != {"a": "b"}


def test_a_file_without_a_digest_is_loaded_unchecked(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.ones(1)}, path)
    assert tensors.load(path)[1] == {}
    assert not tensors.has_digest(path)


def test_metadata_may_have_any_key_except_that_of_the_digest(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors.save(path, {}, {"sha256": "0"})
    assert tensors.load(path) == ({}, {"sha256": "0"})
    with raises_code(DataError, Code.INVALID_NAME, "genkit.sha256"):
        tensors.save(path, {}, {"genkit.sha256": "0"})
