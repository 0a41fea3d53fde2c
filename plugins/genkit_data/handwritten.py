"""Handwritten digits that are included in the package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files

from genkit import tensors
from genkit.interfaces import Dataset, Inputs
from genkit.types import Batch, DataSpec


@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """1,797 handwritten digits of 8x8 gray pixels in 10 classes, included in genkit.

    The original gray values from 0 to 16 are scaled to [-1, 1]. Authors and license are in
    ``digits/ATTRIBUTION.md``.
    """

    source = "UCI Optical Recognition of Handwritten Digits, doi 10.24432/C50P49"

    def spec(self) -> DataSpec:
        return DataSpec((1, 8, 8), classes=10)

    def item_count(self) -> int:
        return 1797

    def load(self, inputs: Inputs) -> Batch:
        with as_file(files("genkit_data") / "digits" / "digits.safetensors") as path:
            stored, _ = tensors.load(path)
        return Batch(stored["images"].float() / 8 - 1, stored["labels"].long())
