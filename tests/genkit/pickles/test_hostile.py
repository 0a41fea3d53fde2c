"""2,000 hostile and mutated pickles: nothing in them is imported or called."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import datetime
import functools
import operator
import pickle
import pickletools
import random
import struct
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from genkit.pickles import read_pickle

SEED = 20250611
EXTENSION = 0xF3
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Reduced:
    """Pickled as a call of ``function``, whose result is given a state and contents."""

    def __init__(self, function, args, state=None, elements=(), items=()):
        self.parts = (function, args, state, elements, items)

    def __reduce__(self):
        *call, elements, items = self.parts
        return (*call, iter(elements), iter(items))

    def __call__(self):
        raise NotImplementedError("a pickler requires that what it writes as called is callable")


def calls(folder):
    """Return values that make a folder where they are unpickled."""
    make = f"__import__('os').mkdir({folder!r})"
    run = Reduced(eval, (make,))
    shutil = Reduced(import_module, ("shutil",))
    mkdir = Reduced(Reduced(operator.attrgetter, ("os.mkdir",)), (shutil,))
    late = Reduced(functools.partial, (len,), (eval, (make,), {}, {}))
    return [
        run,
        Reduced(exec, (make,)),
        Reduced(subprocess.call, (["mkdir", folder],)),
        Reduced(import_module, ("hostile_module",)),
        Reduced(list, (Reduced(map, (eval, [make])),)),
        Reduced(functools.partial(eval, make), ()),
        Reduced(late, ()),  # its function is a part of its state
        Reduced(mkdir, (folder,)),
        Reduced(
            Reduced(operator.methodcaller, ("mkdir", folder)),
            (Reduced(getattr, (shutil, "os")),),
        ),
        Reduced(list, (), elements=[run]),
        Reduced(dict, (), items=[("a", run)]),
        Reduced(copyreg._reconstructor, (collections.Counter, dict, {}), {"a": run}),
    ]


def written_by_hand(folder):
    """Return pickles that make a folder where they are unpickled, which no pickler writes."""
    make = f"__import__('os').mkdir({folder!r})".encode()
    text = b"X" + struct.pack("<I", len(make)) + make
    word = b"X" + struct.pack("<I", len(folder)) + folder.encode()
    evaluate = b"cbuiltins\neval\n"
    simple = b"ctypes\nSimpleNamespace\n)R}X%b" + evaluate + b"sb"
    named = {name: struct.pack("<I", len(name)) + name for name in (b"__setstate__", b"append")}
    return [
        b"(" + text + b"ibuiltins\neval\n.",
        b"(" + evaluate + text + b"o.",
        b"\x8c\x08builtins\x8c\x04eval\x93" + text + b"\x85R.",
        b"cposix\nmkdir\n" + word + b"\x85R.",
        b"cos\nsystem\n(S'mkdir " + folder.encode() + b"'\ntR.",
        # Methods that are attributes of an instance: BUILD calls one, APPEND the other.
        simple % named[b"__setstate__"] + text + b"b.",
        simple % named[b"append"] + text + b"a.",
        b"\x82%c" % EXTENSION + word + b"\x85R.",
        b"\x83%c\0" % EXTENSION + word + b"\x85R.",
        b"\x84%c\0\0\0" % EXTENSION + word + b"\x85R.",
    ]


class Hostile:
    """Makes the pickles, the same ones each time."""

    def __init__(self, folder):
        self.random = random.Random(SEED)  # noqa: S311
        self.calls = calls(str(folder))
        self.by_hand = written_by_hand(str(folder))
        value = {
            "labels": [3, -1, 2**40, 2**70, True, None, 0.5],
            "data": np.arange(6, dtype="<f4").reshape(2, 3),
            b"raw": (b"\0\xff" * 20, bytearray(b"ab"), "\u0416\n", {1, 2}, frozenset("a")),
            "objects": [datetime.date(2024, 1, 2), collections.OrderedDict(a=1), ValueError("x")],
        }
        self.valid = [pickle.dumps(value, protocol) for protocol in PROTOCOLS]
        self.hostile = [*self.by_hand, *(pickle.dumps(c, p) for p in PROTOCOLS for c in self.calls)]

    def any(self):
        return self.random.choice(self.random.choice((self.valid, self.hostile)))

    def place(self, content):
        """Return the position of an opcode behind the first one."""
        return self.random.choice([at for _, _, at in pickletools.genops(content)][1:])

    def inside(self):
        """A call anywhere inside of containers and other calls, and hidden in a state."""
        value = self.random.choice(self.calls)
        for _ in range(self.random.randrange(4)):
            value = self.random.choice(
                (
                    [1, value],
                    (value, "x"),
                    {"a": value},
                    Reduced(ValueError, (value,)),
                    Reduced(ValueError, (), {"a": value}),
                )
            )
        return pickle.dumps(value, self.random.choice(PROTOCOLS))

    def inserted(self):
        """A whole program between two opcodes of another one, its result dropped or not."""
        content, other = self.random.choice(self.valid[:4]), self.random.choice(self.hostile)
        at = self.place(content)
        return content[:at] + other[:-1] + self.random.choice((b"0", b"")) + content[at:]

    def flipped(self):
        content = bytearray(self.any())
        for _ in range(self.random.choice((1, 1, 2, 8))):
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        return bytes(content)

    def spliced(self):
        """The beginning of one and the end of another, cut between opcodes."""
        start, end = self.any(), self.any()
        return start[: self.place(start)] + end[self.place(end) :]

    def truncated(self):
        content = self.any()
        return content[: self.random.randrange(len(content))]

    def soup(self):
        """Opcodes in any order, with names that are found and short arguments."""
        codes = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
        words = [
            b"cbuiltins\neval\n",
            b"cos\nmkdir\n",
            b"\x8c\x02os",
            b"K\x01",
            b"()",
            b"\x01\0\0\0",
        ]
        parts = (self.random.choice((codes, words)) for _ in range(self.random.randrange(2, 60)))
        return b"".join(map(self.random.choice, parts)) + b"."

    def all(self):
        """Yield the kind and the content of 2,000 pickles."""
        yield from (("by_hand", content) for content in self.by_hand)
        for make, count in (
            (self.inside, 400),
            (self.inserted, 400),
            (self.flipped, 500),
            (self.spliced, 300),
            (self.truncated, 150),
            (self.soup, 250 - len(self.by_hand)),
        ):
            for _ in range(count):
                yield make.__name__, make()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that shows that something was executed; a module makes it when it is imported."""
    folder = tmp_path / "executed"
    (tmp_path / "hostile_module.py").write_text(f"import os; os.mkdir({str(folder)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    copyreg.add_extension("os", "mkdir", EXTENSION)
    yield folder
    copyreg.remove_extension("os", "mkdir", EXTENSION)
    sys.modules.pop("hostile_module", None)


def test_a_plain_unpickler_does_execute_them(folder):
    """The control: everything that the others are made from is hostile."""
    for content in Hostile(folder).hostile:
        with contextlib.suppress(AttributeError, TypeError):
            pickle.loads(content)  # noqa: S301
        assert folder.is_dir(), content
        folder.rmdir()
        sys.modules.pop("hostile_module", None)


def test_2000_hostile_pickles(folder, watch):
    watch.events = ("",)  # every event that Python reports
    pickle.loads(b"\x82%c." % EXTENSION)  # noqa: S301, the function itself is in Python's cache
    read = collections.Counter()
    count = collections.Counter()
    for kind, content in Hostile(folder).all():
        count[kind] += 1
        read[kind] += not watch.outcome(read_pickle, content)
        assert watch.seen == [], content
        assert not folder.exists(), content
    assert count.total() == 2000
    assert "hostile_module" not in sys.modules
    assert read["inside"] == count["inside"]
    assert all(0 < read[kind] < count[kind] for kind in ("by_hand", "inserted", "flipped"))
    assert read["truncated"] == 0
