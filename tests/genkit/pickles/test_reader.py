from __future__ import annotations

import collections
import copyreg
import datetime
import io
import os
import pickle
import pickletools
import struct
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genkit.errors import Code, DataError
from genkit.pickles import Call, Global, Persistent, read_pickle
from raising import raises_code

pytestmark = pytest.mark.slow

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
PLAIN = st.recursive(
    KEYS | st.floats(allow_nan=False) | st.integers(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner) | st.sets(KEYS)
    ),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(PLAIN, st.integers(3, pickle.HIGHEST_PROTOCOL))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    written = pickle.dumps(value, protocol)
    if protocol == 3 and b"cbuiltins\nset" in written:  # no opcodes for sets before protocol 4
        return
    read = read_pickle(written)
    assert read == value
    assert repr(read) == repr(pickle.loads(written))  # noqa: S301, 1, 1.0 and True are equal


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_is_read(protocol):
    value = {"text": "\u00e9\n\\ \udc80", "numbers": [0, 1, 255, 256, -5, 2**40, 2.5], "b": True}
    value["self"] = value["numbers"]
    read = read_pickle(pickle.dumps(value, protocol))
    assert read == value
    assert read["self"] is read["numbers"]
    assert read["b"] is True


def test_strings_of_python_2_are_bytes():
    assert read_pickle(b"S'it\\'s \\x00\\n'\n.") == b"it's \0\n"
    assert read_pickle(b"U\x02a\xff.") == b"a\xff"
    assert read_pickle(b"T\x02\0\0\0ab.") == b"ab"


def test_a_bytearray():
    read = read_pickle(pickle.dumps(bytearray(b"ab" * 100), 5))
    assert (type(read), read) == (bytearray, bytearray(b"ab" * 100))


@pytest.mark.parametrize(
    "written",
    [
        b"cos\nsystem\n(X\x02\0\0\0lstR.",
        b"(X\x02\0\0\0lsios\nsystem\n.",
        b"(cos\nsystem\nX\x02\0\0\0lso.",
        b"\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85\x81.",
    ],
    ids=["reduce", "inst", "obj", "newobj"],
)
def test_calls_are_recorded(written):
    call = read_pickle(written)
    assert isinstance(call, Call)
    assert (call.function, call.args, call.state) == (Global("os", "system"), ("ls",), None)


def test_a_record_is_called_as_another_record():
    outer = read_pickle(b"cbuiltins\ngetattr\n)R(K\x01tR.")
    assert outer.args == (1,)
    assert outer.function.function == Global("builtins", "getattr")
    assert isinstance(read_pickle(b"Pid\n)R.").function, Persistent)


def test_what_a_call_is_given_is_recorded():
    call = read_pickle(b"ccollections\nOrderedDict\n)RK\x05a(K\x06K\x07eK\x01K\x02s(K\x03K\x04u}b.")
    assert call.elements == [5, 6, 7]
    assert call.items == {1: 2, 3: 4}
    assert call.state == {}


def test_persistent_ids_are_recorded():
    assert read_pickle(b"Pa name\n.").id == "a name"
    found = read_pickle(b"K\x01K\x02\x86Q.")
    assert isinstance(found, Persistent)
    assert found.id == (1, 2)


def test_real_objects_become_records():
    value = [datetime.date(2024, 1, 2), collections.Counter("aab"), ValueError("x")]
    date, counter, error = read_pickle(pickle.dumps(value))
    assert (date.function, date.args) == (Global("datetime", "date"), (b"\x07\xe8\x01\x02",))
    assert counter.function == Global("collections", "Counter")
    assert counter.args == ({"a": 2, "b": 1},)
    assert (error.function, error.args) == (Global("builtins", "ValueError"), ("x",))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_container_may_contain_itself(protocol):
    held: list[object] = []
    held.append((held,))
    read = read_pickle(pickle.dumps(held, protocol))
    assert read[0][0] is read


def test_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "hostile_module.py").write_text("import os; os.mkdir('executed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    written = b"chostile_module\nname\n)R."
    assert read_pickle(written).function == Global("hostile_module", "name")
    assert "hostile_module" not in sys.modules
    assert not (tmp_path / "executed").exists()
    with pytest.raises(AttributeError):  # the control: Python's own reader does import it
        pickle.loads(written)  # noqa: S301
    assert (tmp_path / "executed").exists()
    del sys.modules["hostile_module"]


@pytest.mark.parametrize("written", [b"\x82\xf3.", b"\x83\xf3\0.", b"\x84\xf3\0\0\0."])
def test_the_extension_registry_is_not_used(written):
    copyreg.add_extension("os", "getcwd", 0xF3)
    try:
        for _ in range(2):  # the second time, the function itself is in Python's cache
            assert pickle.loads(written) is os.getcwd  # noqa: S301, the control
            with pytest.raises(DataError):
                read_pickle(written)
    finally:
        copyreg.remove_extension("os", "getcwd", 0xF3)


TUPLES = b")\x94" + b"".join(b"h%ch%c\x86\x94" % (k, k) for k in range(60))
"""Each contains the one before twice, so that a hash takes 2^60 steps."""


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"N",
        b"\xff.",
        b"\x80\x06N.",
        b".",
        b"K\x01\x86.",
        b"(.",
        b"t.",
        b"0.",
        b"2.",
        b"q\0.",
        b"h\7.",
        b"gx\n.",
        b"I1",
        b"I1.5\n.",
        b"I" + b"1" * 5000 + b"\n.",
        b"I0x" + b"f" * 5000 + b"\n.",
        b"L-0x" + b"f" * 5000 + b"\n.",
        b"Fx\n.",
        b"X\x05\0\0\0ab.",
        b"B\xff\xff\xff\xff.",
        b"\x8e" + b"\xff" * 8 + b".",
        b"\x96" + b"\xff" * 8 + b".",
        b"\x8b\x01\0\0\0\xff.",
        b"\x8c\x01\xff.",
        b"V\\u12\n.",
        b"Sx\n.",
        b"S'\\q'\n.",
        b"(K\x01d.",
        b"}](K\x01e]s.",
        b"})K\x01s.",
        b"}()K\x01u.",
        b"()K\x01d.",
        b"\x8f()\x90.",
        b"()\x91.",
        TUPLES + b"h\0}h<Ns.",
        TUPLES + b"(h<\x91.",
        b")" + b"\x85" * 10**6 + b"\x94}h\0Ns.",
        b"NNa.",
        b"N(Ne.",
        b"N(NNu.",
        b"N(N\x90.",
        b"N)R.",
        b"(NK\x01o.",
        b"cos\nsystem\nNR.",
        b"cos\nsystem\n]R.",
        b"cos\nsystem\n)}\x92.",
        b"(o.",
        b"NNb.",
        b"cos\nsystem\n}b.",
        b"cos\nsystem\n)R}b}b.",
        b"K\x01\x8c\x01a\x93.",
        b"\x97.",
        b"N\x98.",
        b"\x96\x01" + bytes(7) + b"a\x98.",
    ],
    ids=lambda written: repr(written[:20]),
)
def test_an_invalid_pickle_is_refused(written):
    with pytest.raises(DataError) as error:
        read_pickle(written, what="file.pkl")
    assert str(error.value).startswith("file.pkl: ")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_refused(protocol):
    written = pickle.dumps({"a": [1, 2.5, "text", b"raw", (datetime.date(2024, 1, 2),)]}, protocol)
    for end in range(len(written)):
        with pytest.raises(DataError):
            read_pickle(written[:end])


@pytest.mark.parametrize(
    "written", [b"cos\nsystem\n0N.", b"(ios\nsystem\n0N.", b"\x8c\x02os\x8c\x06system\x930N."]
)
def test_names_that_are_not_expected_are_refused_even_where_they_are_dropped(written):
    assert read_pickle(written) is None
    assert read_pickle(written, expected=lambda name: name.module == "os") is None
    with raises_code(DataError, Code.UNSAFE, "os.system"):
        read_pickle(written, expected=lambda name: name.module == "torch")


def test_every_opcode_is_read_or_refused_on_purpose():
    refused = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "LONG4", "NEWOBJ_EX"}
    for opcode in pickletools.opcodes:
        with pytest.raises(DataError) as error:
            read_pickle(b"N(" + opcode.code.encode("latin-1"))
        assert (f"KeyError: {ord(opcode.code)}" in str(error.value)) == (opcode.name in refused)


LAUGHS = b"]q\0" + b"".join(
    b"](" + bytes([ord("h"), k]) * 10 + b"e" + bytes([ord("q"), k + 1]) for k in range(50)
)


@pytest.mark.parametrize(
    "written",
    [
        LAUGHS + b".",
        b"\x8e" + b"\xff" * 7 + b"\x7f.",
        b"\x96" + struct.pack("<Q", 2**34) + b"x.",
        b"\x95" + struct.pack("<Q", 2**34) + b"N.",
        b"Nr\xff\xff\xff\xff.",
        b"](" + b"]q\0" * 1000 + b"e.",
        b"}q\0h\0" * 10_000 + b".",
        b"(" * 100_000,
        b"]" * 100_000,
        b"\x8f" * 100_000,
        b"cos\nmkdir\n" + b"2)R" * 30_000 + b".",
        b"cos\nmkdir\n(" + b"K\1" * 1000 + b"lq\0" + b"0cos\nmkdir\nh\0R" * 1000 + b".",
        b"B\x10\x27\0\0" + bytes(10_000) + b"q\0" + b"0cos\nmkdir\nh\0R" * 1000 + b".",
    ],
    ids=lambda written: repr(written[:20]),
)
def test_memory_is_bounded_by_the_pickle(written):
    tracemalloc.start()
    try:
        read_pickle(written)
    except DataError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**20 + 300 * len(written)


def test_a_deep_pickle_is_read():
    read = read_pickle(b"]" * 10**5 + b"a" * (10**5 - 1) + b".")
    for _ in range(10**5 - 1):
        (read,) = read
    assert read == []


def test_pickles_in_a_row():
    file = io.BytesIO(b"??" + pickle.dumps([1]) + pickle.dumps("two") + b"rest")
    file.seek(2)
    assert (read_pickle(file), read_pickle(file), file.read()) == ([1], "two", b"rest")
