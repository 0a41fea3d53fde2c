"""Makes hostile and mutated files, the same ones each time."""

from __future__ import annotations

import io
import pickletools
import random
import struct
import zipfile
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from genkit.pickles import Call, Global, Persistent

SEED = 20240611
ARGUMENTS = {"img_resolution": 8, "img_channels": 1, "model_channels": 4, "sigma_max": np.inf}


def payloads(marker):
    """Return calls each of which makes the folder ``marker`` where it is made."""
    folder = str(marker)
    make = f"__import__('os').mkdir({folder!r})"
    return [
        Call(Global("os", "mkdir"), (folder,)),
        Call(Global("posix", "mkdir"), (folder,)),
        Call(Global("os", "system"), (f"mkdir {folder}",)),
        Call(Global("builtins", "eval"), (make,)),
        Call(Global("builtins", "exec"), (make,)),
        Call(Global("subprocess", "call"), (["mkdir", folder],)),
        Call(Global("timeit", "timeit"), (make, "pass", Global("time", "time"), 1)),
        Call(Global("runpy", "_run_code"), (make, {})),
        Call(
            Call(Global("operator", "methodcaller"), ("mkdir", folder)), (Global("shutil", "os"),)
        ),
        Call(Global("hostile_module", "make"), (folder,)),
    ]


def slots(node, found=None, inside=None):
    """Return every place of a tree that holds a value, as (container, key)."""
    found = [] if found is None else found
    if isinstance(node, Call):
        for name in ("function", "args", "state"):
            found.append((node, name))
            slots(getattr(node, name), found)
        slots(node.items, found)
    elif isinstance(node, (dict, list)):
        for key in node if isinstance(node, dict) else range(len(node)):
            found.append((node, key))
            slots(node[key], found)
    elif isinstance(node, tuple):
        for item in node:
            slots(item, found)
    return found


class replaced:  # noqa: N801, it is used as a function
    """Puts another value into a place of a tree for as long as the block lasts."""

    def __init__(self, place, value):
        self.holder, self.key = place
        self.value = value

    def put(self, value):
        if isinstance(self.holder, Call):
            setattr(self.holder, self.key, value)
        else:
            self.holder[self.key] = value

    def __enter__(self):
        is_call = isinstance(self.holder, Call)
        self.before = getattr(self.holder, self.key) if is_call else self.holder[self.key]
        self.put(self.value)

    def __exit__(self, *error):
        self.put(self.before)


class Hostile:
    """Makes the files, the same ones for each seed."""

    def __init__(self, edm_files, marker, weights=None):
        rng = np.random.default_rng(0)
        names = ["map.weight", "enc.8x8_conv.weight", "enc.8x8_conv.bias", "enc.8x8_block0.n.bias"]
        small = {f"model.{name}": rng.standard_normal((2, 3), np.float32) for name in names}
        made = weights or (small, "EDMPrecond", ARGUMENTS)
        self.files = edm_files
        self.random = random.Random(SEED)  # noqa: S311
        is_edm2 = made[1] == "Precond"
        self.tree = (edm_files.edm2_snapshot if is_edm2 else edm_files.snapshot)(*made)
        self.slots = slots(self.tree)
        self.tensors = [
            node
            for place in self.slots
            if isinstance(place[0], Call) and place[1] == "args"
            for node in [place[0]]
            if node.function == Global("torch._utils", "_rebuild_tensor_v2")
        ]
        self.plain = edm_files.emitted(self.tree)
        self.zip = edm_files.training_state(*made)
        self.between = [place for _, _, place in pickletools.genops(self.plain)][1:]
        self.payloads = payloads(marker)
        self.values = [
            None,
            True,
            -1,
            0,
            2**62,
            -(2**62),
            0.5,
            "",
            "x",
            b"",
            b"x",
            [],
            {},
            (),
            (1,),
        ]

    def base(self):
        return self.zip if self.random.random() < 0.25 else self.plain

    def flipped(self):
        content = bytearray(self.base())
        for _ in range(self.random.choice((1, 1, 1, 2, 8, 64))):
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        return bytes(content)

    def truncated(self):
        content = self.base()
        return content[: self.random.randrange(len(content))]

    def spliced(self):
        content = self.base()
        start, other = (self.random.randrange(len(content)) for _ in range(2))
        length = self.random.choice((1, 2, 9, 100, 5000))
        part = content[other : other + length] if self.random.random() < 0.7 else b""
        return content[:start] + part + content[start + self.random.choice((0, length)) :]

    def with_opcodes(self):
        """Opcodes where opcodes are: any of them, or a whole call whose result is dropped."""
        place = self.random.choice(self.between)
        if self.random.random() < 0.5:
            added = self.random.randbytes(self.random.choice((1, 1, 2, 9)))
        else:
            added = self.files.emitted(self.random.choice(self.payloads))[2:-1] + b"0"
        return self.plain[:place] + added + self.plain[place:]

    def with_payload(self):
        return self.with_value(self.random.choice(self.payloads))

    def with_nonsense(self):
        return self.with_value(self.random.choice(self.values))

    def with_value(self, value):
        holder, key = self.random.choice(self.slots)
        if key == "args" and not isinstance(value, tuple):
            value = (value,) * max(1, len(holder.args))
        with replaced((holder, key), value):
            return self.files.emitted(self.tree)

    def with_other_tensor(self):
        """Wrong numbers of elements, offsets, shapes and strides."""
        node = self.random.choice(self.tensors)
        args = list(node.args)
        numbers = (0, 1, 2, 3, 5, 6, 7, -1, 2**31, 2**47, 2**48, 2**63, 10**18)
        pick = self.random.choice
        position = self.random.randrange(5)
        if position == 4:
            values = np.zeros(6, np.float32)
            known = list(self.files.storage_id(values))
            known[self.random.randrange(6)] = pick((*self.values, *self.payloads, *numbers))
            known, count = pick(((tuple(known), None), (None, pick(numbers[:-3]))))
            content = self.files.nested(values, known=known, count=count)
            args[0] = Call(args[0].function, (content,))
        elif position == 0:
            values = np.zeros(pick((0, 1, 5, 7)), np.float32)
            args[0] = Call(args[0].function, (self.files.nested(values),))
        elif position == 1:
            args[1] = pick(numbers)
        else:
            args[position] = tuple(pick(numbers) for _ in range(self.random.randrange(5)))
        with replaced((node, "args"), tuple(args)):
            return self.files.emitted(self.tree)

    def bomb(self):
        count = self.random.choice((10, 300, 5_000))
        huge = struct.pack("<Q", self.random.choice((2**31, 2**40, 2**63 - 1, 2**64 - 1)))
        laughs = b"".join(b"](" + b"h%c" % k * 10 + b"eq%c" % (k + 1) for k in range(60))
        return self.random.choice(
            (
                b"]q\0" + laughs + b".",
                b"}q\0X\3\0\0\0ema" + b"]q\0" + laughs + b"s.",
                b"\x8e" + huge + b"x.",
                b"\x8d" + huge + b"x.",
                b"\x96" + huge + b"x.",
                b"\x95" + huge + b"N.",
                b"\x8b" + huge[:4] + b"\xff.",
                b"I" + b"9" * count + b"\n.",
                b"L" + b"9" * count + b"L\n.",
                b"(" * count + b".",
                b"]" * count + b"a" * (count - 1) + b".",
                b")" + b"\x85" * count + b".",
                b"]q\0" + b"h\0a" * count + b".",
                b"}q\0" + b"K\1h\0s" * count + b".",
                b"]" + b"2" * count + b"e.",
                b"Nr" + huge[:4] + b"N\x94" * count + b".",
                b"cos\nmkdir\n" + b")R" * count + b".",
                b"".join(b"]r" + struct.pack("<I", k) for k in range(count)) + b".",
            )
        )

    def zipped(self):
        """Zip bombs, paths, members that are missing, there twice, or something else."""
        content = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self.zip)) as good:
            members = [(name, good.read(name)) for name in good.namelist()]
        place = self.random.randrange(len(members))
        name, data = members[place]
        packed = zipfile.ZIP_STORED
        match self.random.randrange(6):
            case 0:
                del members[place]
            case 1:
                members[place] = (name, data[:-1] + self.random.randbytes(9))
            case 2:
                members[place] = (self.random.choice(("/etc/x", "../../x", "", "a" * 999)), data)
            case 3:
                members[place] = (name, bytes(300_000))
                packed = self.random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
            case 4:
                stored = Persistent(("storage", self.random.choice(self.payloads), "0", "cpu", 6))
                members[place] = (name, self.files.emitted({"net": stored}))
            case _:
                members[-1] = ("training-state-000001/byteorder", self.random.randbytes(3))
        with zipfile.ZipFile(content, "w", packed) as file:
            for name, data in members:
                file.writestr(name or "x", data)
        return content.getvalue()

    def noise(self):
        start = self.random.choice((b"", b"\x80\x04", b"\x80\x02}", b"PK\x03\x04", b"(((("))
        return start + self.random.randbytes(self.random.randrange(2000))

    def all(self):
        """Yield the kind and the content of 2,000 files."""
        for make, count in (
            (self.flipped, 450),
            (self.truncated, 200),
            (self.spliced, 250),
            (self.with_opcodes, 250),
            (self.with_payload, 250),
            (self.with_nonsense, 150),
            (self.with_other_tensor, 200),
            (self.bomb, 100),
            (self.zipped, 70),
            (self.noise, 80),
        ):
            for _ in range(count):
                yield make.__name__, make()


@pytest.fixture(scope="session")
def hostile(edm_files):
    """The payloads, and what makes the files."""
    return SimpleNamespace(files=partial(Hostile, edm_files), payloads=payloads)
