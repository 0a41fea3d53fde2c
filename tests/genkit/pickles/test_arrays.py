from __future__ import annotations

import pickle
import struct

import numpy as np
import pytest

from genkit.errors import Code, DataError
from genkit.pickles import Call, Global, array, read_pickle
from raising import raises_code


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["b1", "u1", "<i2", ">i8", "<f2", "<f4", ">f8"])
def test_arrays_of_numpy(dtype, protocol):
    whole = np.arange(12).reshape(3, 4).astype(dtype)
    for values in (whole, np.asfortranarray(whole), whole[:0], whole[0, 1:2].reshape(())):
        found = array(read_pickle(pickle.dumps(values, protocol)))
        np.testing.assert_array_equal(found, values)
        assert (found.dtype, found.shape) == (values.dtype, values.shape)
        assert found.flags.writeable


def test_a_scalar_of_numpy():
    assert array(read_pickle(pickle.dumps(np.float32(3.5)))) == 3.5


def test_a_batch_that_python_2_wrote():
    """The layout of CIFAR-10's batches: protocol 2, strings as bytes, numpy's old names."""
    labels = bytes((7 * k * k + 3) % 10 for k in range(40))
    pixels = bytes(range(256)) * 480
    written = (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x05batchq\x03U\x06labelsq\x04]q\x05("
        + b"".join(b"K%c" % label for label in labels)
        + b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08"
        b"K\x00\x85U\x01b\x87Rq\x09(K\x01K\x28M\x00\x0c\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01"
        b"\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", len(pixels))
        + pixels
        + b"tbu."
    )
    batch = read_pickle(written)
    assert batch[b"batch_label"] == b"batch"
    assert bytes(batch[b"labels"]) == labels
    assert array(batch[b"data"]).tobytes() == pixels
    assert array(batch[b"data"]).shape == (40, 3072)


def noted(dtype="u1", shape=(2,), content=b"ab", order="|"):
    kind = Call(Global("numpy", "dtype"), (dtype, False, True), state=(3, order, None))
    function = Global("numpy.core.multiarray", "_reconstruct")
    return Call(
        function, (Global("numpy", "ndarray"), (0,), b"b"), state=(1, shape, kind, False, content)
    )


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (None, (Code.WRONG_KIND, "None")),
        (Call(Global("os", "system"), ("ls",)), (Code.WRONG_KIND, "os.system")),
        (Call(Global("numpy.core.multiarray", "_reconstruct"), ()), (Code.WRONG_KIND,)),
        (noted("O"), (Code.WRONG_TYPE, "O")),
        (noted("V8"), (Code.WRONG_TYPE, "V8")),
        (noted(5), (Code.WRONG_TYPE,)),
        (noted(order="x"), (Code.UNKNOWN_CHOICE, "'x'")),
        (noted(shape=(3,)), (Code.WRONG_LENGTH, "(3,)", "uint8", "3 bytes", "2")),
        (noted(shape=(2**20, 2**20)), (Code.WRONG_LENGTH, "1099511627776 bytes")),
        (noted(shape=(2**40, 2**40)), (Code.OUT_OF_RANGE,)),
        (noted(shape=(0, 2**47, 2**47), content=b""), (Code.OUT_OF_RANGE,)),
        (noted(shape=(-2,)), (Code.OUT_OF_RANGE,)),
        (noted(shape=(True, 2)), (Code.OUT_OF_RANGE,)),
        (noted(shape=[2]), (Code.OUT_OF_RANGE,)),
        (noted(shape=(1,) * 33), (Code.OUT_OF_RANGE,)),
        (noted(content="ab"), (Code.UNREADABLE, "a str of length 2")),
        (noted(content=Call(Global("os", "system"), ("ab",))), (Code.UNREADABLE,)),
        (
            noted(content=Call(Global("_codecs", "encode"), ("a\u0416", "latin1"))),
            (Code.UNREADABLE,),
        ),
    ],
)
def test_notes_that_are_no_array(node, reason):
    with raises_code(DataError, reason[0], "file.pkl", *reason[1:]):
        array(node, what="file.pkl")
