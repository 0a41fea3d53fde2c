from __future__ import annotations

import io
import warnings
import zipfile

import pytest

from genkit.errors import Code, DataError
from genkit.pickles import TorchZip
from raising import raises_code


def zipped(*members, packed=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a name is there twice
        with zipfile.ZipFile(content, "w", packed) as file:
            for name, data in members:
                file.writestr(name, data)
    return content.getvalue()


GOOD = (("a/data.pkl", b"N."), ("a/data/0", b"1234"), ("a/byteorder", b"little"))


def test_members_are_read_by_name():
    opened = TorchZip(zipped(*GOOD), "file.pt")
    assert (opened.pickle(), opened.storage("0")) == (b"N.", b"1234")
    for key in ("1", "../data.pkl", "/etc/passwd", "../../../etc/passwd", "x" * 1000):
        with raises_code(DataError, Code.NOT_FOUND, "file.pt"):
            opened.storage(key)


def bomb():
    """Return a zip file of two members that lie over each other."""
    content = zipped(("a/data.pkl", b"N." + bytes(2000)), ("a/data/0", b"1" * 2000))
    one, other = content.find(b"PK\x01\x02"), content.rfind(b"PK\x01\x02")
    place = content[one + 42 : one + 46]
    sizes = (10**9).to_bytes(4, "little") * 2
    return (
        content[: other + 20]
        + sizes
        + content[other + 28 : other + 42]
        + place
        + content[other + 46 :]
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04", (Code.UNREADABLE,)),
        (zipped(*GOOD)[:-30], (Code.UNREADABLE,)),
        (zipped(*GOOD, GOOD[1]), (Code.DUPLICATE, "'a/data/0'")),
        (zipped(*GOOD, packed=zipfile.ZIP_DEFLATED), (Code.WRONG_TYPE, "'a/data.pkl'")),
        (
            zipped(("a/data.pkl", bytes(10**6)), packed=zipfile.ZIP_BZIP2),
            (Code.WRONG_TYPE, "'a/data.pkl'"),
        ),
        (bomb(), (Code.UNSAFE,)),
        (zipped(*GOOD[1:]), (Code.WRONG_LENGTH, 0)),
        (zipped(*GOOD, ("b/data.pkl", b"N.")), (Code.WRONG_LENGTH, 2)),
        (zipped(("../a/data.pkl", b"N.")), (Code.WRONG_LENGTH, 0)),
        (zipped(*GOOD[:2], ("a/byteorder", b"big")), (Code.UNKNOWN_CHOICE,)),
    ],
)
def test_what_is_no_file_of_torch_is_refused(content, reason):
    with raises_code(DataError, reason[0], "file.pt", *reason[1:]):
        TorchZip(content, "file.pt")


def test_a_member_that_is_damaged_is_refused():
    content = zipped(*GOOD)
    damaged = TorchZip(content.replace(b"1234", b"1235"), "file.pt")
    with raises_code(DataError, Code.UNREADABLE, "file.pt", "'a/data/0'"):
        damaged.storage("0")
