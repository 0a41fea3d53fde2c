"""Pair the batches of a data loader with noise, for any trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from genkit.blame import plugin_errors
from genkit.errors import Code, DataError
from genkit.interfaces import Coupler
from genkit.pairs import pairs_of
from genkit.plugin.manager import load_plugins
from genkit.random import generator
from genkit.recipe import decode
from genkit.tensors import to_float
from genkit.types import Batch


class PairedLoader:
    """A data loader that pairs each batch with noise.

    Iteration yields ``(batch, noise)``: the batch in the form of the loader, and float32 noise
    ``[B, *shape]`` of unit variance on its device. Noise sample k is paired with item k. The order
    of the items in a batch may change; if the coupler is no bijection, an item may be repeated.

    Args:
        loader: loader of batches. A batch is a tensor of images ``[B, *shape]``, a tuple or list
            that begins with images and may continue with labels ``[B]``, or a dict with the keys
            ``image`` and ``label``. Images are floats near [-1, 1], or uint8 from 0 to 255.
        coupler: coupler, its name, or its table as in a recipe. A coupler that refers to a stage of
            a recipe is not supported.
        seed: seed of the noise, which also depends on :attr:`epoch` and the index of the batch.

    Attributes:
        epoch: number of iterations that were started. To resume a training run with the same noise,
            set it to the number of finished epochs.

    Raises:
        DataError: ``coupler`` is a coupler over the whole data set; or, in an iteration, a batch
            has no images or an item is not finite.
        PluginError: no coupler has the given name.
        SettingError: a setting of the coupler is unknown or invalid.
    """

    @plugin_errors()
    def __init__(
        self, loader: Iterable[Any], coupler: str | Mapping[str, Any] | Coupler, seed: int = 0
    ) -> None:
        if not isinstance(coupler, Coupler):
            found = decode.checked(load_plugins().registry, "coupler", coupler)
            if not isinstance(found, Coupler):
                raise DataError("coupler must pair the items of a batch", Code.WRONG_KIND)
            coupler = found
        self.loader = loader
        self.coupler = coupler
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]  # an error as for the loader itself

    @plugin_errors()
    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for index, batch in enumerate(self.loader):
            images, labels = _images_and_labels(batch, index)
            draws = generator(self.seed, "pairs", epoch, index)
            count = len(images) * self.coupler.noises_per_image
            noise = torch.randn(count, *images.shape[1:], generator=draws).to(images.device)
            pool = Batch(to_float(images), labels=labels)
            pairs = pairs_of(self.coupler, self.coupler, pool, noise, draws)
            yield _at(batch, pairs.data), noise[pairs.noise.to(noise.device)]


def _images_and_labels(batch: Any, index: int) -> tuple[Tensor, Tensor | None]:
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
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        return images, None
    return images, labels.long() if labels.shape == images.shape[:1] else None


def _at(part: Any, index: Tensor) -> Any:
    """Return the items of a batch, or of a part of it, at indices."""
    if isinstance(part, Tensor):
        return part[index.to(part.device)]
    if isinstance(part, Mapping):
        return {name: _at(value, index) for name, value in part.items()}
    if any(isinstance(value, Tensor) for value in part):
        return type(part)(_at(value, index) for value in part)
    return [part[k] for k in index.tolist()]  # such as file names
