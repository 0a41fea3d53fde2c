"""Compute the features of samples and reference once, and cache those of the reference on disk."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from genkit import tensors
from genkit.artifacts.statistics import Statistics, load_statistics, mismatch
from genkit.blame import fault, plugin_errors, require_type
from genkit.designs import components, references
from genkit.errors import Code, DataError
from genkit.files import cache_folder
from genkit.interfaces import Component, Dataset, Extractor, Inputs
from genkit.networks import FileInputs
from genkit.parts.precision import network_precision
from genkit.plugin.registry import Registry
from genkit.recipe.encode import table
from genkit.tensors import as_stored, digest, file_digest, require_finite, to_float
from genkit.types import Batch
from genkit.versions import code_of
from genkit.world import SINGLE_PROCESS, World

BATCH = 256
"""Number of items whose features are computed at a time."""


class FeatureContext(Inputs, Protocol):
    """The part of :class:`genkit.interfaces.Context` that the computation of features requires."""

    @property
    def world(self) -> World:
        """Processes over which the items are distributed."""
        ...

    def describe(self, component: Component) -> dict[str, Any]:
        """Return the table that a recipe writes for a component."""
        ...

    def warn(self, text: str) -> None:
        """Print a warning."""
        ...


@dataclass(frozen=True)
class FileContext(FileInputs):
    """Implements :class:`FeatureContext` outside a run, where a reference is the path of a file.

    Attributes:
        registry: registry with the names of components.
        warn: function that prints a warning.
        world: processes over which the items are distributed.
    """

    registry: Registry = field(kw_only=True)
    warn: Callable[[str], None] = field(kw_only=True)
    world: World = SINGLE_PROCESS

    def describe(self, component: Component) -> dict[str, Any]:
        return table(self.registry, component)


class Extractors:
    """Binds each extractor of a stage once, and computes features.

    Args:
        context: context of the stage.
    """

    def __init__(self, context: FeatureContext) -> None:
        self.context = context
        self._bound: dict[str, nn.Module] = {}

    def module(self, extractor: Extractor) -> nn.Module:
        """Return the module that computes the features."""
        name = extractor.identity(self.context)
        if name not in self._bound:
            bound = require_type(extractor, "bind", extractor.bind(self.context), nn.Module)
            self._bound[name] = bound.eval()
        return self._bound[name]

    @torch.no_grad()
    def compute(self, extractor: Extractor, items: Tensor, what: str) -> Tensor:
        """Return the features ``[N, F]`` of items on the CPU. Collective.

        Args:
            extractor: extractor of the features.
            items: ``[N, *shape]``, images as uint8.
            what: name of an item in messages.

        Raises:
            DataError: a feature is not finite, or the features do not have the shape ``[N, F]``.
        """
        context, module = self.context, self.module(extractor)
        parts: list[Tensor] = []
        for part in context.world.padded_shard(torch.split(items, BATCH)):
            features = None
            if part is not None:
                # Float32 without TF32, unless the extractor sets a precision itself. Its module is
                # not a component, so the extractor is passed for messages.
                with network_precision(context.device, "float32"), plugin_errors(None, extractor):
                    result = module(to_float(part.to(context.device)))
                shape = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
                if shape[:1] != [len(part)] or len(shape) != 2:
                    reason = f"must return features of shape [{len(part)}, F], got {shape}"
                    raise fault(extractor, reason)
                features = result.cpu()
            parts += context.world.all_gather(features)
        joined = torch.cat(parts)
        require_finite(joined, f"the features of {what}")
        return joined


class Reference(ABC):
    """Real items, or their statistics, with which samples are compared.

    Attributes:
        batch: real items, images as uint8; None if there are only statistics.
        identity: name with a hash of the items; references with the same identity have the same
            items.
    """

    batch: Batch | None
    identity: str

    @abstractmethod
    def features(self, extractor: Extractor) -> Tensor:
        """Return ``[M, F]`` features of the items."""

    @abstractmethod
    def statistics(self, extractor: Extractor) -> Statistics:
        """Return mean and covariance of the features."""


class ItemReference(Reference):
    """Real items in memory.

    Args:
        items: ``[M, *shape]`` items, images uint8 or in [-1, 1].
        identity: name of the items with a hash; a subclass may add the hash itself.
        extractors: extractors of the stage.

    Raises:
        DataError: an item is not finite.
    """

    def __init__(self, items: Batch, identity: str, extractors: Extractors) -> None:
        self.batch: Batch = items.with_data(as_stored(items.data, "reference item"))
        self.identity = identity
        self._extractors = extractors
        self._context = extractors.context
        self._features: dict[str, Tensor] = {}
        self._statistics: dict[str, Statistics] = {}

    def features(self, extractor: Extractor) -> Tensor:
        name = extractor.identity(self._context)
        if name not in self._features:
            self._features[name] = self._compute(extractor, name)
        return self._features[name]

    def statistics(self, extractor: Extractor) -> Statistics:
        name = extractor.identity(self._context)
        if name not in self._statistics:
            self._statistics[name] = Statistics.of(self.features(extractor), name, self.identity)
        return self._statistics[name]

    def _compute(self, extractor: Extractor, name: str) -> Tensor:
        return self._extractors.compute(extractor, self.batch.data, "reference item")


class DatasetReference(ItemReference):
    """The items of a data set, whose features are cached in the user's cache folder.

    Features are not cached if the extractor or the data set refers to a stage of the run, or if
    the extractor has no weights.

    Args:
        data: data set with the items.
        extractors: extractors of the stage.
    """

    def __init__(self, data: Dataset, extractors: Extractors) -> None:
        context = extractors.context
        items = require_type(data, "load", data.load(context), Batch)
        super().__init__(items, context.describe(data)["use"], extractors)
        # The items are hashed instead of file times, which change when files are copied.
        self.identity += f" sha256:{digest(self.batch.data)}"
        self._data = data

    def _compute(self, extractor: Extractor, name: str) -> Tensor:
        module = self._extractors.module(extractor)
        # The folder of rank 0, since the environment may differ between ranks.
        folder = self._context.world.on_main(cache_folder)
        trained_here = any(references(extractor)) or any(references(self._data))
        if folder is None or trained_here or next(module.parameters(), None) is None:
            return super()._compute(extractor, name)
        parts = list(components(extractor))
        versions = [*(part.version() for part in parts), version("genkit-diffusion")]
        about = [self.identity, name, code_of(parts), versions, torch.__version__]
        about.append(self._context.device.type)  # rounding differs between devices
        key = json.dumps(about, sort_keys=True)
        file = folder / "features" / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
        cached = self._context.world.on_main(lambda: self._read(file))
        if cached is not None:
            return cached
        features = super()._compute(extractor, name)
        if self._context.world.is_main:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                tensors.save(file, {"features": features}, {"of": key})
            except OSError as error:  # a full disk, or no permission
                self._context.warn(f"the features of {name} are not cached: {error}")
        return features

    def _read(self, file: Path) -> Tensor | None:
        if not file.exists():
            return None
        with suppress(DataError, KeyError):
            return tensors.load(file)[0]["features"]
        self._context.warn(f"{file} is damaged; the features are computed again")
        return None


class StatisticsReference(Reference):
    """Statistics of real items from a file, in place of the items.

    Args:
        path: file written by `genkit stats`, or published by EDM or EDM2.
        extractors: extractors of the stage.

    Raises:
        DataError: the file is missing, damaged or not a file of statistics.
    """

    batch = None

    def __init__(self, path: Path, extractors: Extractors) -> None:
        self._path = path
        self._context = extractors.context
        self._loaded = load_statistics(path)
        self.identity = f"statistics sha256:{file_digest(path)}"

    def features(self, extractor: Extractor) -> Tensor:
        raise DataError(
            f"{self._path} contains only statistics, and a metric requires the features of the "
            "items; set `data` instead of `statistics`",
            Code.MISSING_ATTRIBUTE,
        )

    def statistics(self, extractor: Extractor) -> Statistics:
        name, score = extractor.identity(self._context), extractor.frechet
        if reason := mismatch(self._loaded, score, name):
            raise DataError(
                f"{self._path}: {extractor.label} {reason}; write such a file with `genkit stats`",
                Code.WRONG_KIND,
            )
        statistics = self._loaded[score]
        if statistics.extractor is None:
            self._context.warn(
                f"{self._path} does not contain the name of the network whose features its "
                f"statistics describe; {name} is assumed"
            )
        return statistics


@dataclass(frozen=True)
class StageFeatures:
    """Implements :class:`genkit.interfaces.Features`.

    Attributes:
        extractors: extractors of the stage.
        samples: ``[N, *shape]`` samples.
        reference: real items or statistics.
        part: slice that selects the samples to measure.
    """

    extractors: Extractors
    samples: Tensor
    reference: Reference
    part: slice = field(default_factory=lambda: slice(None))
    _computed: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def of_samples(self, extractor: Extractor) -> Tensor:
        name = extractor.identity(self.extractors.context)
        if name not in self._computed:
            self._computed[name] = self.extractors.compute(extractor, self.samples, "sample")
        return self._computed[name][self.part]

    def of_reference(self, extractor: Extractor) -> Tensor:
        return self.reference.features(extractor)

    def statistics(self, extractor: Extractor) -> Statistics:
        return self.reference.statistics(extractor)

    @torch.no_grad()
    def logits(self, extractor: Extractor, features: Tensor) -> Tensor:
        head = getattr(self.extractors.module(extractor), "head", None)
        if not callable(head):
            raise fault(
                extractor,
                "must bind to a classifier with a method head, got a module without it; name an "
                "extractor that is a classifier",
            )
        device = self.extractors.context.device
        with network_precision(device, "float32"), plugin_errors(None, extractor):
            return torch.cat([head(part.to(device)).cpu() for part in torch.split(features, BATCH)])
