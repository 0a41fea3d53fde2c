"""Define the artifacts of trained networks: weights, and a description to build the network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from genkit import tensors
from genkit.artifacts.artifact import Artifact
from genkit.artifacts.coupling import Coupling
from genkit.errors import Code, DataError, GenkitError
from genkit.settings import quote
from genkit.types import DataSpec


@dataclass(frozen=True)
class NetworkFile(Artifact):
    """A trained network as stored in a file. ``context.network`` builds the module.

    Attributes:
        table: recipe table of the network, with all defaults.
        spec: shape and attributes of the training data.
        weights: state dict of the module.
        images: number of training images; 0 if unknown.
        coupling: declarations of the coupler that was used in training; None if unknown, as for
            imported weights.
        ema_length: relative length of the power-function average of the weights, in (0, 1); None
            for other averages.
        denoiser_digest: digest of the denoiser on which a discriminator was trained, see
            :func:`genkit.tensors.network_digest`; None for other networks, or if it is unknown.
        gradient_only: whether only the gradient of the output of a discriminator has a meaning.
        contained: map from each reference in the settings to the network of the earlier stage,
            which is saved in the same file.
    """

    kind: ClassVar[str] = ""
    """Kind of the network; empty for any kind."""

    table: Mapping[str, Any]
    spec: DataSpec
    weights: Mapping[str, Tensor] = field(repr=False)
    images: int = 0
    coupling: Coupling | None = None
    ema_length: float | None = None
    denoiser_digest: str | None = None
    gradient_only: bool = False
    contained: Mapping[str, NetworkFile] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        tensors.save(path, self._all_weights(), self.metadata())

    def _all_weights(self) -> dict[str, Tensor]:
        """Return all weights; those of a contained network have its reference as prefix."""
        named = dict(self.weights)
        for reference, inner in self.contained.items():
            named |= {f"{reference}/{name}": t for name, t in inner._all_weights().items()}
        return named

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the file: everything except the weights."""
        values: dict[str, Any] = {
            "network": dict(self.table),
            "spec": dataclasses.asdict(self.spec),
            "images": self.images,
            "coupling": self.coupling and self.coupling.table(),
            "ema_length": self.ema_length,
            "denoiser_digest": self.denoiser_digest,
            "gradient_only": self.gradient_only or None,
            "contains": {name: inner.metadata() for name, inner in self.contained.items()} or None,
        }
        values = {name: value for name, value in values.items() if value is not None}
        return {"kind": self.kind} | {k: json.dumps(v, sort_keys=True) for k, v in values.items()}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the network in a file, or the averaged network in a checkpoint.

        Raises:
            DataError: the file is missing, damaged, or not a network of this kind.
        """
        weights, metadata = tensors.load(path)
        prefix = metadata.get("prefix", "")
        chosen = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
        return cls._parsed(path, metadata, chosen)

    @classmethod
    def outline(cls, path: Path) -> Self:
        """Return the network in a file without its weights, which are not read.

        Raises:
            DataError: as for :meth:`load`.
        """
        return cls._parsed(path, tensors.metadata(path), {})

    @classmethod
    def _parsed(
        cls, path: Path, metadata: Mapping[str, str], weights: Mapping[str, Tensor]
    ) -> Self:
        if missing := sorted({"kind", "network", "spec", "images"} - metadata.keys()):
            got = f"a file without {', '.join(missing)} in its metadata"
            raise DataError(
                f"{path} must be a network that genkit wrote, got {got}; convert other files with "
                "`genkit import`"
            )
        kind = metadata["kind"]
        type_of_file = NETWORK_FILES.get(kind)
        if type_of_file is None or not issubclass(type_of_file, cls):
            got = f"a {kind}" if type_of_file else f"the unknown kind {quote(kind)}"
            raise DataError(f"{path} must be a {cls.kind or 'network'}, got {got}", Code.WRONG_KIND)
        with convert_errors(f"{path}: its description"):
            spec = json.loads(metadata["spec"])
            if "sources" in spec:  # earlier versions called realness "sources"
                spec["realness"] = spec.pop("sources")
            coupling = json.loads(metadata.get("coupling", "null"))
            own, contained = dict(weights), {}
            for name, inner in json.loads(metadata.get("contains", "{}")).items():
                mark = f"{name}/"
                theirs = {n.removeprefix(mark): own.pop(n) for n in weights if n.startswith(mark)}
                contained[name] = NetworkFile._parsed(path, inner, theirs)
            return type_of_file(
                table=dict(json.loads(metadata["network"])),
                spec=DataSpec(**{**spec, "shape": tuple(spec["shape"])}),
                weights=own,
                images=int(metadata["images"]),
                coupling=None if coupling is None else Coupling.parsed(coupling),
                ema_length=json.loads(metadata.get("ema_length", "null")),
                denoiser_digest=json.loads(metadata.get("denoiser_digest", "null")),
                gradient_only=json.loads(metadata.get("gradient_only", "false")),
                contained=contained,
            )


class DenoiserFile(NetworkFile):
    """A trained denoiser; see :class:`NetworkFile`."""

    name = kind = "denoiser"


class DiscriminatorFile(NetworkFile):
    """A trained discriminator; see :class:`NetworkFile`."""

    name = kind = "discriminator"


class ClassifierFile(NetworkFile):
    """A trained classifier; see :class:`NetworkFile`."""

    name = kind = "classifier"


NETWORK_FILES: Mapping[str, type[NetworkFile]] = {
    cls.kind: cls for cls in (DenoiserFile, DiscriminatorFile, ClassifierFile)
}
"""Map from the kind of a network to the class of its artifact."""


@contextmanager
def convert_errors(what: str) -> Iterator[None]:
    """Convert errors of an invalid description to a DataError that begins with ``what``."""
    try:
        yield
    except GenkitError:
        raise  # some are ValueErrors
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{what} does not describe a network", Code.UNREADABLE) from error
