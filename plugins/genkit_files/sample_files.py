"""The folder of ``genkit sample``: a file for each seed, and what they were drawn with."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genkit.errors import DataError, UsageError
from genkit.files import inf_as_text, write_bytes, write_json
from genkit.parts.grid import grid
from genkit.tensors import to_float, to_uint8
from genkit.types import DataSpec

_SETTINGS = "sampling.json"
_GRID = "grid.png"


@dataclass(frozen=True)
class SampleFiles:
    """Samples in a folder.

    Attributes:
        folder: in which they lie.
        spec: of the samples: PNG holds grey and coloured images, and anything else is an array.
    """

    folder: Path
    spec: DataSpec

    def begin(self, settings: Mapping[str, Any], chosen: Iterable[int]) -> list[int]:
        """Make the folder, or go on in it; return the seeds that are not there yet.

        Args:
            settings: settings with which the samples are drawn, by name.
            chosen: their seeds.

        Raises:
            UsageError: the folder holds something else, or samples drawn with other settings.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder} is a file; choose a folder with --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = inf_as_text(settings)
        there = {path.name for path in self.folder.iterdir()}
        if there - {_SETTINGS}:  # nothing was drawn where only the settings are written
            self._require_same(settings)
        else:
            write_json(self.folder / _SETTINGS, settings)
        return [seed for seed in chosen if self.place(seed).name not in there]

    def _require_same(self, settings: Mapping[str, Any]) -> None:
        try:
            found = json.loads((self.folder / _SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise UsageError(f"{self.folder} holds something else; choose another --out")
        found.setdefault("latents", {"use": "derived"})  # version 0.1 had no other
        found.setdefault("start", "noise")  # no earlier version corrected it
        found.setdefault("guidance", [])
        found.setdefault("file", [])
        if differ := sorted(name for name in settings if found.get(name) != settings[name]):
            raise UsageError(
                f"{self.folder} holds samples of another {' and '.join(differ)}; "
                "choose another --out"
            )

    def place(self, seed: int) -> Path:
        """Return where the sample of a seed lies."""
        pictured = self.spec.is_image and self.spec.shape[0] in (1, 3)
        return self.folder / f"{seed:06d}.{'png' if pictured else 'npy'}"

    def save(self, seed: int, item: Tensor) -> None:
        """Write one sample: an image as PNG, anything else as a float32 array.

        Args:
            seed: seed of the sample, which names the file.
            item: a sample; float64 is rendered to 8 bits without being rounded to float32 first.
        """
        content = io.BytesIO()
        path = self.place(seed)
        if path.suffix == ".png":
            pixels = to_uint8(item).movedim(0, -1).squeeze(-1)
            Image.fromarray(pixels.numpy()).save(content, format="png")
        else:
            np.save(content, item.float().numpy(), allow_pickle=False)
        write_bytes(path, content.getvalue())

    def save_grid(self, seeds: Iterable[int]) -> None:
        """Show some of the samples in one picture.

        Raises:
            DataError: one of them was damaged.
        """
        png = grid(torch.stack([self._load(seed) for seed in seeds]))
        write_bytes(self.folder / _GRID, png)

    def _load(self, seed: int) -> Tensor:
        """Read what :meth:`save` wrote."""
        path = self.place(seed)
        try:
            if path.suffix == ".npy":
                item = torch.from_numpy(np.load(path, allow_pickle=False))
            else:
                with Image.open(path) as image:
                    pixels = torch.from_numpy(np.array(image))
                item = to_float(pixels.reshape(*pixels.shape[:2], -1).movedim(-1, 0))
        except (EOFError, OSError, SyntaxError, TypeError, ValueError) as error:
            raise self._damaged(path) from error
        if item.shape != self.spec.shape:
            raise self._damaged(path)
        return item

    def _damaged(self, path: Path) -> DataError:
        return DataError(f"{path} is damaged; remove it, and the same command draws it again")
