"""Pair the batches of a data loader with noise, for any trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genkit.blame import plugin_errors
from genkit.errors import Code, DataError
from genkit.interfaces import Coupler
from genkit.pairs import pairs_of
from genkit.plugin.manager import load_plugins
from genkit.random import generator
from genkit.recipe import decode
from genkit.tensors import describe, require_finite, to_float
from genkit.types import Batch


class PairedLoader:
    """A data loader that pairs each batch with noise.

    Iteration yields ``(batch, noise)``: the batch in the form of the loader, and float32 noise
    ``[B, *shape]`` of unit variance on its device. Noise sample k is paired with item k. The order
    of the items in a batch may change; if the coupler is no bijection, an item may be repeated.

    Args:
        loader: loader of batches. A batch is a tensor of images ``[B, *shape]``, a tuple or list
            that begins with images and may continue with labels ``[B]``, or a dict with the keys
            ``image`` and ``label``. Images are floats near [-1, 1], or uint8 from 0 to 255. Labels
            are integers. Parts of a batch that have no item for each image are not changed.
        coupler: coupler, its name, or its table as in a recipe. A coupler that refers to a stage of
            a recipe is not supported.
        seed: seed of the noise, an integer. The noise also depends on :attr:`epoch` and the index
            of the batch.

    Attributes:
        epoch: number of iterations that were started. To resume a training run with the same noise,
            set it to the number of finished epochs.

    Raises:
        DataError: ``loader`` is not iterable, ``seed`` is no integer, or ``coupler`` is no coupler,
            or one over the whole data set; or, in an iteration, a batch has no images, its labels
            are no integers ``[B]``, or an image is not finite. The error contains the index of the
            batch.
        PluginError: no coupler has the given name.
        SettingError: a setting of the coupler is unknown or invalid.

    Example:
        >>> import torch
        >>> loader = torch.utils.data.DataLoader(torch.rand(32, 3, 8, 8) * 2 - 1, batch_size=16)
        >>> for images, noise in PairedLoader(loader, "hungarian"):
        ...     print(images.shape == noise.shape)
        True
        True
    """

    @plugin_errors()
    def __init__(
        self, loader: Iterable[Any], coupler: str | Mapping[str, Any] | Coupler, seed: int = 0
    ) -> None:
        pairing: object = coupler
        if isinstance(coupler, (str, Mapping)):
            pairing = decode.checked(load_plugins().registry, "coupler", coupler)
        if not isinstance(pairing, Coupler):
            raise DataError(
                "coupler must be a coupler for the items of a batch, its name or its table, got "
                f'{type(pairing).__name__}; write a name such as "hungarian"',
                Code.WRONG_TYPE,
            )
        if not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
            raise DataError(
                f"loader must be a loader of batches, got {type(loader).__name__}; pass a "
                "torch.utils.data.DataLoader, or a list of tensors",
                Code.WRONG_TYPE,
            )
        self.loader = loader
        self.coupler = pairing
        self.seed = _seed(seed)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]  # an error as for the loader itself

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for index, batch in enumerate(self.loader):
            with plugin_errors():
                paired = self._paired(batch, index, epoch)
            yield paired

    def __repr__(self) -> str:
        return f"PairedLoader({self.loader!r}, {self.coupler!r}, seed={self.seed})"

    def _paired(self, batch: Any, index: int, epoch: int) -> tuple[Any, Tensor]:
        pool = _pool(batch, index)
        draws = generator(self.seed, "pairs", epoch, index)
        count = len(pool) * self.coupler.noises_per_image
        noise = torch.randn(count, *pool.data.shape[1:], generator=draws).to(pool.data.device)
        pairs = pairs_of(self.coupler, self.coupler, pool, noise, draws)
        return _at(batch, pairs.data.cpu(), len(pool)), noise[pairs.noise.to(noise.device)]


def _seed(value: Any) -> int:
    """Return an integer of Python or NumPy; raise DataError for any other value."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise DataError(
            f"seed must be an integer, got {value!r:.60}; write a number such as 0",
            Code.WRONG_TYPE,
        )
    return int(value)


def _pool(batch: Any, index: int) -> Batch:
    """Return the images and labels of a batch."""
    if isinstance(batch, Mapping):
        parts = [batch.get("image"), batch.get("label")]
    else:
        parts = list(batch) if isinstance(batch, (tuple, list)) else [batch]
    images, labels = [*parts, None, None][:2]
    if not isinstance(images, Tensor) or images.ndim < 2:
        raise DataError(
            f"batch {index} must be images [B, *shape], begin with them, or have the key "
            f'"image", got {type(batch).__name__}; pass a loader of tensors',
            Code.WRONG_TYPE,
        )
    if not images.numel():
        raise DataError(
            f"batch {index} must have at least 1 image, got the shape {list(images.shape)}; remove "
            "empty batches from the loader",
            Code.WRONG_LENGTH,
        )
    floats = to_float(images)
    require_finite(floats, f"batch {index}: image")
    if not isinstance(labels, Tensor):  # such as file names
        return Batch(floats)
    if labels.is_floating_point() or labels.shape != images.shape[:1]:
        raise DataError(
            f"batch {index}: labels must be integers of shape [{len(images)}], got "
            f"{describe(labels)}; convert them, or pass a dict that has them under a key other "
            'than "label"',
            Code.WRONG_SHAPE,
        )
    return Batch(floats, labels=labels.long())


def _at(part: Any, index: Tensor, count: int) -> Any:
    """Return the items of a batch, or of a part of it, at indices.

    Values without an item for each of the ``count`` images are returned unchanged.
    """
    if isinstance(part, (Tensor, np.ndarray)):
        where = index.to(part.device) if isinstance(part, Tensor) else index.numpy()
        return part[where] if part.shape[:1] == (count,) else part
    if isinstance(part, Mapping):
        return {name: _at(value, index, count) for name, value in part.items()}
    if not isinstance(part, (tuple, list)):
        return part
    if len(part) == count and not any(isinstance(value, Tensor) for value in part):
        return [part[k] for k in index.tolist()]  # such as file names
    values = [_at(value, index, count) for value in part]
    return type(part)(*values) if hasattr(part, "_fields") else type(part)(values)
