"""Each law is broken here once, by an importer that is sound but for that."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import replace

import pytest

import genkit
from genkit.plugin import DataError, DataSpec, Imported, Importer, load_tensors
from genkit.plugin import save_tensors as save
from genkit.random import seeded
from genkit.testing import check_importer
from raising import breaks

NETWORK = genkit.component("denoiser", "mlp", width=4, blocks=1)
COUNTER = itertools.count(1)


@pytest.fixture
def file(tmp_path):
    with seeded(0):
        weights = NETWORK.build(DataSpec((2,))).state_dict()
    save(tmp_path / "one.net", weights, {})
    content = (tmp_path / "one.net").read_bytes()
    (tmp_path / "one.net").write_bytes(zlib.crc32(content).to_bytes(4, "big") + content)
    return tmp_path / "one.net"


class Sound(Importer):
    """Sound: a safetensors file behind its CRC-32."""

    def read(self, path):
        inner = path.with_suffix(".inner")
        inner.write_bytes(self.content(path))
        try:
            return self.change(Imported(NETWORK, DataSpec((2,)), load_tensors(inner)[0], 0))
        finally:
            inner.unlink()

    def content(self, path):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error}") from error
        if content[:4] != zlib.crc32(content[4:]).to_bytes(4, "big"):
            raise DataError(f"{path} is damaged")
        return content[4:]

    def change(self, imported):
        return imported


class ReadsNothing(Sound):
    def read(self, path):
        raise DataError(f"{path} is refused")


class TakesNoFile(Sound):
    def read(self, path):
        none = Imported(NETWORK, DataSpec((2,)), {}, 0)
        return super().read(path) if path.exists() else none


class RaisesOSError(Sound):
    def content(self, path):
        path.stat()
        return super().content(path)


class TakesACut(Sound):
    whole = b""

    def content(self, path):
        try:
            type(self).whole = super().content(path)
        except DataError:
            if not path.exists():
                raise
        return self.whole


class RaisesValueError(Sound):
    def content(self, path):
        if path.exists() and not path.read_bytes():
            raise ValueError("empty")
        return super().content(path)


class OtherWeights(Sound):
    def change(self, imported):
        count = next(COUNTER)
        return replace(imported, weights={n: t + count for n, t in imported.weights.items()})


class OneWeightLess(Sound):
    def change(self, imported):
        return replace(imported, weights=dict(list(imported.weights.items())[1:]))


class Draws(Sound):
    def change(self, imported):
        NETWORK.build(imported.spec)
        return imported


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (ReadsNothing, "reads-sound-file"),
        (TakesNoFile, "refuses-damage; a missing file"),
        (RaisesOSError, "raises-data-error; a missing file"),
        (TakesACut, "refuses-damage; truncated to 0 bytes"),
        (RaisesValueError, "raises-data-error; truncated to 0 bytes"),
        (OtherWeights, "same-again"),
        (OneWeightLess, "weights-fit"),
        (Draws, "own-generator"),
    ],
)
def test_importers(broken, law, file):
    with breaks(law):
        check_importer(broken(), file)


def test_an_importer_that_changes_the_file(file):
    class Once(Sound):
        reads = 0

        def content(self, path):
            content = super().content(path)
            type(self).reads += 1
            if self.reads == 2:
                path.write_bytes(b"read")
            return content

    with breaks("leaves-file"):
        check_importer(Once(), file)


def test_a_sound_importer(file):
    check_importer(Sound(), file)
