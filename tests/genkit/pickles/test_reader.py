from __future__ import annotations

import collections
import datetime
import pickle
import pickletools
import struct
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genkit.errors import DataError
from genkit.pickles import Call, Global, Limits, Persistent, read_next, read_pickle
from genkit.pickles.opcodes import OPCODES, STOP

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

KEYS = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.text() | st.binary()
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


def test_every_opcode_is_known():
    assert {*OPCODES, STOP} == {ord(opcode.code) for opcode in pickletools.opcodes}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"I01\n.", True),
        (b"I00\n.", False),
        (b"I1\n.", 1),
        (b"L-12L\n.", -12),
        (b"F-1e3\n.", -1000.0),
        (b"S'it\\'s \\x00\\n\\\\ \\101'\n.", b"it's \0\n\\ A"),
        (b'S"it\'s"\n.', b"it's"),
        (b"U\x02ab.", b"ab"),
        (b"T\x02\0\0\0ab.", b"ab"),
        (b"V\\u0416\n.", "\u0416"),
        (b"\x8a\x00.", 0),
        (b"\x8b\x01\0\0\0\xff.", -1),
        (b"\x8d\x01" + bytes(7) + b"a.", "a"),
        (b"\x8e\x01" + bytes(7) + b"a.", b"a"),
        (b"\x96\x01" + bytes(7) + b"a.", bytearray(b"a")),
        (b"(I1\nI2\nl.", [1, 2]),
        (b"(I1\nI2\nd.", {1: 2}),
        (b"(K\x01K\x021N.", None),  # what lies above a mark is dropped
        (b"K\x01K\x020.", 1),
        (b"N(0.", None),  # a mark alone is dropped
        (b"K\x012\x86.", (1, 1)),
        (b"K\x01p12345678901\n0g12345678901\n.", 1),
        (b"K\x01r\0\0\1\0" + b"0j\0\0\1\0.", 1),
        (b"\x8f(K\x01\x90.", {1}),
        (b"(K\x01\x91.", frozenset({1})),
        (b"\x80\x04\x95\x02" + bytes(7) + b"K\x01.", 1),
    ],
)
def test_opcodes(written, expected):
    read = read_pickle(written)
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("written", "function", "args"),
    [
        (b"cposix\nsystem\n(X\x02\0\0\0lstR.", Global("posix", "system"), ("ls",)),
        (b"(X\x02\0\0\0lsios\nsystem\n.", Global("os", "system"), ("ls",)),
        (b"(cos\nsystem\nX\x02\0\0\0lso.", Global("os", "system"), ("ls",)),
        (b"\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85\x81.", Global("os", "system"), ("ls",)),
    ],
    ids=["reduce", "inst", "obj", "newobj"],
)
def test_calls_are_noted_and_not_made(written, function, args):
    called = read_pickle(written)
    assert isinstance(called, Call)
    assert (called.function, called.args, called.state) == (function, args, None)


def test_what_a_call_is_given_is_noted():
    written = b"\x80\x04ccollections\nOrderedDict\n)}X\x01\0\0\0kK\x01s\x92"
    written += b"K\x05a(K\x06K\x07eK\x01K\x02s(K\x03K\x04u}b."
    called = read_pickle(written)
    assert called.keywords == {"k": 1}
    assert called.elements == [5, 6, 7]
    assert called.items == {1: 2, 3: 4}
    assert called.state == {}


def test_persistent_ids_are_noted():
    assert read_pickle(b"Pa name\n.").id == "a name"
    found = read_pickle(b"K\x01K\x02\x86Q.")
    assert isinstance(found, Persistent)
    assert found.id == (1, 2)


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


def test_real_objects_become_notes():
    value = [datetime.date(2024, 1, 2), collections.Counter("aab"), ValueError("x")]
    date, counter, error = read_pickle(pickle.dumps(value))
    assert (date.function, date.args) == (Global("datetime", "date"), (b"\x07\xe8\x01\x02",))
    assert (counter.function, counter.args) == (
        Global("collections", "Counter"),
        ({"a": 2, "b": 1},),
    )
    assert (error.function, error.args) == (Global("builtins", "ValueError"), ("x",))


def test_a_container_may_hold_itself():
    held: list[object] = []
    held.append((held,))
    read = read_pickle(pickle.dumps(held))
    assert read[0][0] is read


def deep(levels):
    return b")" + b"\x85" * levels + b"."


LAUGHS = b"]q\0" + b"".join(
    b"](" + bytes([ord("h"), k]) * 10 + b"e" + bytes([ord("q"), k + 1]) for k in range(50)
)


@pytest.mark.parametrize(
    ("written", "at", "reason"),
    [
        (b"", 0, "1 bytes are announced, and 0 are left"),
        (b"N", 1, "1 bytes are announced, and 0 are left"),
        (b"N.N", 2, "the pickle has ended, and 1 bytes follow"),
        (b"\xff.", 0, "0xff is no opcode"),
        (b"\x80\x06N.", 0, "protocol 6 is unknown"),
        (b".", 0, "empty stack"),
        (b"K\x01\x86.", 2, "empty stack"),
        (b"(.", 1, "empty stack"),
        (b"t.", 0, "a mark is wanted"),
        (b"0.", 0, "a mark is wanted"),
        (b"2.", 0, "the stack is empty"),
        (b"q\0.", 0, "the stack is empty"),
        (b"h\7.", 0, "place 7 of the memo is empty"),
        (b"g7\n.", 0, "place 7 of the memo is empty"),
        (b"gx\n.", 0, "no integer"),
        (b"I1", 0, "a line has no end"),
        (b"I1.5\n.", 0, "no integer"),
        (b"I" + b"1" * 5000 + b"\n.", 0, "no integer of at most 400 digits"),
        (b"I1_000\n.", 0, "no integer"),
        (b"Fx\n.", 0, "no number"),
        (b"X\x05\0\0\0ab.", 0, "5 bytes are announced, and 3 are left"),
        (b"B\xff\xff\xff\xff.", 0, "4294967295 bytes are announced"),
        (b"\x8e" + b"\xff" * 8 + b".", 0, "18446744073709551615 bytes are announced"),
        (b"\x8b\xff\xff\xff\xff.", 0, "an integer of 4294967295 bytes; at most 128"),
        (b"\x8a\xc8" + bytes(200) + b".", 0, "an integer of 200 bytes; at most 128"),
        (b"\x8c\x01\xff.", 0, "a string is not utf-8"),
        (b"V\\u12\n.", 0, "a string is not raw-unicode-escape"),
        (b"Sx\n.", 0, "no string in quotes"),
        (b"S'a'b'\n.", 0, "no string in quotes"),
        (b"S'\\'\n.", 0, "an escape that Python does not write"),
        (b"S'\\q'\n.", 0, "an escape that Python does not write"),
        (b"(K\x01d.", 3, "a key has no value"),
        (b"}](K\x01e]s.", 7, "a list of 1 is no key that is read"),
        (b"})K\x01s.", 4, "a tuple of 0 is no key that is read"),
        (b"}\x8a\x09" + bytes(8) + b"\x01Ns.", 13, "no key that is read"),
        (b"(]\x91.", 2, "a list of 0 is no key"),
        (b"NNa.", 2, "None cannot be appended to"),
        (b"N(Ne.", 3, "None cannot be appended to"),
        (b"](NNu.", 4, "a list of 0 has no items to set"),
        (b"N(N\x90.", 3, "None cannot be added to"),
        (b"N)R.", 2, "None is called"),
        (b"cos\nsystem\nNR.", 12, "the arguments of a call are None, and not a tuple"),
        (b"cos\nsystem\n)N\x92.", 13, "the keywords of a call are None"),
        (b"cos\nsystem\n)]\x92.", 13, "the keywords of a call are a list of 0"),
        (b"(o.", 1, "an object has no class"),
        (b"NNb.", 2, "None cannot be given a state"),
        (b"cos\nsystem\n)R}b}b.", 16, "given a state twice"),
        (b"K\x01\x8c\x01a\x93.", 5, "name nothing"),
        (b"\x82\x01.", 0, "the extension registry"),
        (b"\x83\x01\0.", 0, "the extension registry"),
        (b"\x84\x01\0\0\0.", 0, "the extension registry"),
        (b"\x97.", 0, "a buffer from outside"),
        (b"N\x98.", 1, "a buffer from outside"),
        (b"\x95\x09" + bytes(7) + b"N.", 0, "a frame of 9 bytes is announced, and 2 are left"),
        (b"\x95\x01" + bytes(7) + b"K\x01.", 9, "reaches over the end of its frame"),
        (
            b"\x95\x0b" + bytes(7) + b"\x95\x01" + bytes(7) + b"N.",
            9,
            "a frame begins inside a frame",
        ),
        (b"\x95\x03" + bytes(7) + b"N.N", 10, "stops inside a frame"),
        (deep(201), 202, "more than 200 deep"),
        (b"]" * 300 + b"a" * 299 + b".", 599, "more than 200 deep"),
        (b"cos\nsystem\n" + b")R" * 300 + b".", 611, "more than 200 deep"),
    ],
)
def test_damage_is_told_with_its_place(written, at, reason):
    with pytest.raises(DataError) as error:
        read_pickle(written, what="file.pkl")
    assert str(error.value).startswith(f"file.pkl: byte {at}: ")
    assert reason in str(error.value)


def test_a_deep_tree_is_found_however_it_is_tied():
    """Lists that are in the memo before they are filled: depth shows at the end alone."""
    count = 250
    made = b"".join(b"]r" + struct.pack("<I", k) for k in range(count))
    tied = b"".join(
        b"j" + struct.pack("<I", k) + b"j" + struct.pack("<I", k + 1) + b"a0"
        for k in range(count - 1)
    )
    every = b"(" + b"".join(b"j" + struct.pack("<I", k) for k in reversed(range(count))) + b"l"
    with pytest.raises(DataError, match="more than 200 deep"):
        read_pickle(made + tied + every + b".")
    with pytest.raises(DataError, match="more than 200 deep"):
        read_pickle(made + tied + b"j" + struct.pack("<I", 0) + b".")


@pytest.mark.parametrize(
    ("written", "limits", "reason"),
    [
        (b"NNN.", Limits(opcodes=3), "more than 3 opcodes"),
        (deep(3), Limits(depth=3), "more than 3 deep"),
        (b"\x8c\x02ab\x8c\x02ab.", Limits(text=3), "more than 3 bytes together"),
        (b"cab\ncd\n.", Limits(text=3), "more than 3 bytes together"),
        (b"\x8a\x02ab.", Limits(integer=1), "an integer of 2 bytes"),
    ],
)
def test_limits(written, limits, reason):
    with pytest.raises(DataError, match=reason):
        read_pickle(written, limits=limits)
    read_next(written, 0)


@pytest.mark.parametrize(
    "written", [b"cos\nsystem\n0N.", b"(ios\nsystem\n0N.", b"\x8c\x02os\x8c\x06system\x930N."]
)
def test_names_that_are_not_expected_are_refused_even_where_they_are_dropped(written):
    assert read_pickle(written) is None
    assert read_pickle(written, expected=lambda name: name.module == "os") is None
    with pytest.raises(DataError, match=r"byte \d+: it asks for os.system, which has no place"):
        read_pickle(written, expected=lambda name: name.module == "torch")


def test_what_fits_its_limits_is_read():
    read_pickle(b"NN0.", limits=Limits(opcodes=4))
    read_pickle(deep(2), limits=Limits(depth=3))
    read_pickle(deep(199))


@pytest.mark.parametrize(
    "written",
    [
        LAUGHS + b".",
        b"\x8e" + b"\xff" * 7 + b"\x7f.",
        b"](" + b"]q\0" * 1000 + b"e.",
        b"}q\0h\0" * 10_000 + b".",
        b"(" * 100_000,
        b"]" * 100_000,
    ],
    ids=["laughs", "length", "lists", "memo", "marks", "stack"],
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


def test_pickles_in_a_row():
    data = b"??" + pickle.dumps([1]) + pickle.dumps("two") + b"rest"
    first, place = read_next(data, 2)
    second, place = read_next(data, place)
    assert (first, second, data[place:]) == ([1], "two", b"rest")
