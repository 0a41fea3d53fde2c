"""Items that a script passed to ``genkit.run_recipe``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genkit.errors import Code, DataError
from genkit.interfaces import Dataset, Inputs
from genkit.items import Items
from genkit.settings import FilePath, setting
from genkit.types import Batch, DataSpec


@dataclass(frozen=True, kw_only=True)
class Tensors(Dataset):
    """Items that a script passed to ``genkit.run_recipe(..., data=...)``.

    The script writes this table to the run, and the items to a file in the run folder. A run can be
    resumed as long as the file exists, or by the script with the same items.
    """

    path: FilePath = setting(doc="file of the items", affects_result=False)
    sha256: str = setting(doc="SHA-256 of items and labels, in hex")
    shape: tuple[int, ...] = setting(doc="shape of an item", at_least=1)
    items: int = setting(doc="number of items", at_least=1)
    classes: int = setting(0, doc="number of classes; 0 for items without labels", at_least=0)

    def spec(self) -> DataSpec:
        return DataSpec(self.shape, self.classes)

    def item_count(self) -> int:
        return self.items

    def load(self, inputs: Inputs) -> Batch:
        path = Path(self.path)
        if not path.is_file():
            raise DataError(
                f"{path} must contain the items that a script passed to run_recipe, but does not "
                "exist; run the script again, or restore the file",
                Code.NOT_FOUND,
            )
        items = Items.read(path)
        batch = items.batch
        stored = (items.digest(), tuple(batch.data.shape[1:]), len(batch), items.classes)
        if stored != (self.sha256, self.shape, self.items, self.classes):
            raise DataError(
                f"{path} must contain {self.items} items of shape {self.shape} with the SHA-256 "
                f"{self.sha256:.16}..., got {stored[2]} of shape {stored[1]} with {stored[0]:.16}"
                "...; delete it and run the script again",
                Code.CHANGED,
            )
        return batch
