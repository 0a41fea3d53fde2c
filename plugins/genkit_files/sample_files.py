"""The output folder of ``genkit sample``: one file per seed, and the settings of the samples."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genkit.errors import DataError, UsageError
from genkit.files import inf_as_text, read_json, write_bytes, write_json
from genkit.parts.grid import grid
from genkit.tensors import to_float, to_uint8
from genkit.types import DataSpec

_SETTINGS = "sampling.json"
_GRID = "grid.png"


@dataclass(frozen=True)
class SampleFiles:
    """Samples in a folder, as PNG files if they are gray or color images, otherwise as .npy files.

    Attributes:
        folder: folder of the samples.
        spec: specification of the samples.
    """

    folder: Path
    spec: DataSpec

    def begin(self, settings: Mapping[str, Any], seeds: Iterable[int]) -> list[int]:
        """Create the folder, or open it to resume; return the seeds whose samples are missing.

        Args:
            settings: dict from the name of each setting of the samples to its value.
            seeds: seeds of the samples.

        Raises:
            UsageError: the folder contains other files, or samples with different settings.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(
                f"--out must be a folder, got the file {self.folder}; write another name"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = inf_as_text(settings)
        names = {path.name for path in self.folder.iterdir()}
        if names - {_SETTINGS}:  # if there are no samples yet, the settings may be replaced
            self._require_same(settings)
        else:
            write_json(self.folder / _SETTINGS, settings)
        return [seed for seed in seeds if self.path(seed).name not in names]

    def _require_same(self, settings: Mapping[str, Any]) -> None:
        try:
            earlier = read_json(self.folder / _SETTINGS)
        except (DataError, OSError, ValueError):
            earlier = None
        if not isinstance(earlier, dict):
            raise UsageError(
                f"--out must be a new folder or a folder that genkit sample wrote, got "
                f"{self.folder}; write a different name"
            )
        earlier.setdefault("latents", {"use": "derived"})  # the only latents of version 0.1
        earlier.setdefault("start", "noise")  # the only start of version 0.1
        earlier.setdefault("guidance", [])
        earlier.setdefault("file", [])
        if differ := sorted(name for name in settings if earlier.get(name) != settings[name]):
            raise UsageError(
                f"--out must be a folder of samples with the same settings, got {self.folder} with "
                f"a different {' and '.join(differ)}; write a different name"
            )

    def path(self, seed: int) -> Path:
        """Return the path of the sample of a seed."""
        is_picture = self.spec.is_image and self.spec.shape[0] in (1, 3)
        return self.folder / f"{seed:06d}.{'png' if is_picture else 'npy'}"

    def save(self, seed: int, item: Tensor) -> None:
        """Write one sample: an image as PNG, anything else as a float32 array.

        Args:
            seed: seed of the sample, which determines the file name.
            item: sample; a float64 image is converted directly to 8 bits, not rounded to float32
                first.
        """
        content = io.BytesIO()
        path = self.path(seed)
        if path.suffix == ".png":
            pixels = to_uint8(item).movedim(0, -1).squeeze(-1)
            Image.fromarray(pixels.numpy()).save(content, format="png")
        else:
            np.save(content, item.float().numpy(), allow_pickle=False)
        write_bytes(path, content.getvalue())

    def save_grid(self, seeds: Iterable[int]) -> None:
        """Write a picture with the samples of these seeds.

        Raises:
            DataError: the file of a sample is corrupt.
        """
        png = grid(torch.stack([self._load(seed) for seed in seeds]))
        write_bytes(self.folder / _GRID, png)

    def _load(self, seed: int) -> Tensor:
        """Return a sample that :meth:`save` wrote."""
        path = self.path(seed)
        try:
            if path.suffix == ".npy":
                item = torch.from_numpy(np.load(path, allow_pickle=False))
            else:
                with Image.open(path) as image:
                    pixels = torch.from_numpy(np.array(image))
                item = to_float(pixels.reshape(*pixels.shape[:2], -1).movedim(-1, 0))
        except (EOFError, OSError, SyntaxError, TypeError, ValueError) as error:
            raise self._corrupt(path) from error
        if item.shape != self.spec.shape:
            raise self._corrupt(path)
        return item

    def _corrupt(self, path: Path) -> DataError:
        return DataError(f"{path} is corrupt; delete it, and run the same command to draw it again")
