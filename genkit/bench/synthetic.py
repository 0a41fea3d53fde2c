"""Made-up images as a data set, so that a recipe can be measured without its data."""

from __future__ import annotations

from dataclasses import dataclass

from genkit.bench.data import require_memory, synthetic
from genkit.interfaces import Dataset, Inputs
from genkit.settings import setting
from genkit.types import Batch, DataSpec


@dataclass(frozen=True, kw_only=True)
class Synthetic(Dataset):
    """Noise whose amplitude falls as 1/f, as in photographs: to measure with, not to learn from."""

    shape: tuple[int, ...] = setting(
        (3, 32, 32), doc="channels, height and width of an image, or length of a vector", at_least=1
    )
    classes: int = setting(10, doc="classes of the labels; 0 for no labels", at_least=0)
    count: int = setting(2048, doc="number of images", at_least=1)
    seed: int = setting(0, doc="chooses the images", at_least=0)

    def spec(self) -> DataSpec:
        return DataSpec(self.shape, self.classes)

    def load(self, inputs: Inputs) -> Batch:
        require_memory(self.count, self.shape)
        return synthetic(self.shape, self.classes, self.count, self.seed)
