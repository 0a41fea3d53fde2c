from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch

from genkit.errors import Code, DataError
from genkit.pickles import Call, Global, Persistent, TensorReader, read_pickle
from raising import raises_code

VALUES = np.arange(24, dtype=np.float32)


def nothing(key):
    raise DataError(f"nothing is outside, and {key} is asked for")


def rebuilt(storage, offset, shape, strides):
    args = (storage, offset, shape, strides, False, None)
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), args)


def loaded(content):
    return Call(Global("torch.storage", "_load_from_bytes"), (content,))


@pytest.fixture(scope="module")
def plain(edm_files):
    """A storage of VALUES inside a plain pickle."""
    return loaded(edm_files.nested(VALUES))


def pickled(tensor):
    """Return what Python's own pickle and torch make of a tensor."""
    return read_pickle(pickle.dumps(tensor))


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t,
        lambda t: t.T,
        lambda t: t[1:, 2:],
        lambda t: t[:, 1],
        lambda t: t[2, 3],
        lambda t: t[:0],
        lambda t: t[::2, ::2],
        lambda t: t.reshape(2, 2, 6).permute(2, 0, 1),
        lambda t: t.reshape(4, 1, 6).transpose(0, 1),
        lambda t: t.half(),
        lambda t: t.double(),
        lambda t: torch.nn.Parameter(t[1:, 2:]),
    ],
)
def test_views_that_torch_pickled(make):
    tensor = make(torch.from_numpy(VALUES.copy()).reshape(4, 6))
    found = TensorReader(nothing, 10**6).read(pickled(tensor))
    np.testing.assert_array_equal(found, tensor.detach().numpy(), strict=True)
    assert found.flags.c_contiguous


def test_torch_reads_the_storage_assembled_by_hand(edm_files):
    """The helper of these tests writes what torch itself reads."""
    storage = torch.load(io.BytesIO(edm_files.nested(VALUES)), weights_only=False)
    assert torch.empty(0).set_(storage).tolist() == VALUES.tolist()


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "reason"),
    [
        (1, (24,), (1,), (Code.OUT_OF_RANGE, "offset 1", "(24,)", "(1,)", "element 24")),
        (0, (4, 7), (7, 1), (Code.OUT_OF_RANGE, "element 27")),
        (0, (4, 6), (7, 1), (Code.OUT_OF_RANGE, "element 26")),
        (24, (), (), (Code.OUT_OF_RANGE, "element 24")),
        (0, (2**40, 2**40), (2**40, 1), (Code.OUT_OF_RANGE, "element")),
        (0, (24,), (0,), (Code.DUPLICATE, "strides")),
        (0, (3, 4), (2, 1), (Code.DUPLICATE, "strides")),
        (0, (4, 6), (1, 1), (Code.DUPLICATE, "strides")),
        (0, (24,), (1, 1), (Code.WRONG_LENGTH, "shape", "strides")),
        (0, (0, 2**47, 2**47), (1, 1, 1), (Code.UNSAFE, "shape")),
        (-1, (2,), (1,), (Code.WRONG_TYPE, "offset")),
        (True, (2,), (1,), (Code.WRONG_TYPE, "offset")),
        (0, (-2,), (1,), (Code.WRONG_TYPE, "shape")),
        (0, (2,), (-1,), (Code.WRONG_TYPE, "strides")),
        (0, (2.0,), (1,), (Code.WRONG_TYPE, "shape")),
        (0, [2], (1,), (Code.WRONG_TYPE, "shape")),
        (0, (2**48,), (1,), (Code.WRONG_TYPE, "shape")),
        (0, (1,) * 33, (1,) * 33, (Code.WRONG_TYPE, "shape")),
    ],
)
def test_a_tensor_reaches_nothing_outside_its_storage(plain, offset, shape, strides, reason):
    with raises_code(DataError, *reason):
        TensorReader(nothing, 10**6).read(rebuilt(plain, offset, shape, strides))


def test_tensors_that_share_a_storage_are_bounded_together(plain):
    reader = TensorReader(nothing, 2 * VALUES.nbytes)
    node = rebuilt(plain, 0, (24,), (1,))
    assert reader.read(node).tolist() == reader.read(node).tolist()
    with raises_code(DataError, Code.UNSAFE):
        reader.read(node)


STORAGE = ("storage", Global("torch", "FloatStorage"), "7", "cpu", 24, None)


@pytest.mark.parametrize(
    ("differs", "reason"),
    [
        ({"known": 5}, (Code.WRONG_KIND, 5)),
        ({"known": ("module", *STORAGE[1:])}, (Code.WRONG_KIND, "a tuple of length 6")),
        ({"known": STORAGE[:4]}, (Code.WRONG_KIND, "a tuple of length 4")),
        (
            {"known": ("storage", Global("torch", "LongStorage"), *STORAGE[2:])},
            (Code.UNKNOWN_CHOICE, "torch.LongStorage"),
        ),
        (
            {"known": ("storage", Global("os", "FloatStorage"), *STORAGE[2:])},
            (Code.UNSAFE, "os.FloatStorage"),
        ),
        ({"known": ("storage", "FloatStorage", *STORAGE[2:])}, (Code.UNKNOWN_CHOICE,)),
        ({"known": (*STORAGE[:2], 7, *STORAGE[3:])}, (Code.INVALID_NAME,)),
        ({"known": (*STORAGE[:2], "8", *STORAGE[3:])}, (Code.NOT_FOUND,)),
        ({"known": (*STORAGE[:4], 23, None)}, (Code.CONFLICT,)),
        ({"known": (*STORAGE[:4], -24, None)}, (Code.WRONG_TYPE,)),
        ({"known": (*STORAGE[:5], ("8", 0, 24))}, (Code.UNSAFE,)),
        ({"known": (*STORAGE[:4], 25, None), "count": 25}, (Code.WRONG_LENGTH, "100 bytes", 96)),
        ({"known": (*STORAGE[:4], 23, None), "count": 23}, (Code.WRONG_LENGTH, "92 bytes", 96)),
        ({"known": (*STORAGE[:4], 2**47, None), "count": 2**47}, (Code.WRONG_LENGTH, 96)),
        ({"count": 25}, (Code.CONFLICT,)),
        ({"count": -1}, (Code.CONFLICT,)),
        ({"keys": ()}, (Code.NOT_FOUND,)),
        ({"keys": ("7", "8")}, (Code.NOT_FOUND,)),
        ({"head": (1, 1001, {"little_endian": True})}, (Code.WRONG_KIND, "torch.save")),
        (
            {"head": (0x1950A86A20F9469CFC6C, 1000, {"little_endian": True})},
            (Code.WRONG_KIND, "torch.save"),
        ),
        (
            {"head": (0x1950A86A20F9469CFC6C, 1001, {"little_endian": False})},
            (Code.UNKNOWN_CHOICE,),
        ),
        ({"head": (0x1950A86A20F9469CFC6C, 1001, None)}, (Code.UNKNOWN_CHOICE,)),
    ],
)
def test_a_storage_that_contradicts_itself_is_refused(edm_files, differs, reason):
    content = edm_files.nested(VALUES, **differs)
    with raises_code(DataError, *reason):
        TensorReader(nothing, 10**6).read(rebuilt(loaded(content), 0, (2,), (1,)))


def test_every_truncation_of_a_storage_is_refused(edm_files):
    whole = edm_files.nested(VALUES[:2])
    for end in range(len(whole)):
        with pytest.raises(DataError):
            TensorReader(nothing, 10**6).read(rebuilt(loaded(whole[:end]), 0, (1,), (1,)))


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (None, (Code.WRONG_KIND, "a tensor is required, got None")),
        (Call(Global("os", "system"), ("ls",) * 6), (Code.WRONG_KIND, "os.system")),
        (
            Call(Global("torch._utils", "_rebuild_tensor_v2"), ()),
            (Code.WRONG_KIND, "torch._utils._rebuild_tensor_v2"),
        ),
        (Call(Global("torch._utils", "_rebuild_parameter"), (1, 2, 3)), (Code.WRONG_KIND, "1")),
        (rebuilt(None, 0, (), ()), (Code.WRONG_KIND, "None")),
        (rebuilt(loaded("text"), 0, (), ()), (Code.WRONG_KIND,)),
        (
            rebuilt(Call(Global("os", "system"), (b"ls",)), 0, (), ()),
            (Code.WRONG_KIND, "os.system"),
        ),
        (rebuilt(Persistent(STORAGE), 0, (2,), (1,)), (Code.DATA, 7)),
    ],
)
def test_what_is_no_tensor_is_refused(node, reason):
    with raises_code(DataError, *reason):
        TensorReader(nothing, 10**6).read(node)


def test_a_storage_outside_is_asked_for_once():
    asked = []

    def outside(key):
        asked.append(key)
        return VALUES.tobytes()

    reader = TensorReader(outside, 10**6)
    for offset in range(3):
        node = rebuilt(Persistent(STORAGE[:5]), offset, (2,), (1,))
        assert reader.read(node).tolist() == [offset, offset + 1]
    assert asked == ["7"]
    other = ("storage", Global("torch", "DoubleStorage"), "7", "cpu", 12)
    with raises_code(DataError, Code.CONFLICT, "7"):
        reader.read(rebuilt(Persistent(other), 0, (2,), (1,)))
