"""The load stage: a trained network from a file, such as published weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from genkit import tensors
from genkit.errors import Code, DataError, PluginError, Problem, SettingError
from genkit.interfaces import Context, Design, Network, Stage, Stages
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Registry
from genkit.run.fingerprint import code_of, owners_of
from genkit.settings import setting, shown
from genkit.tensors import file_digest
from genkit.train.checkpoint import contents, design_of, load_network, read_network, save_network

KINDS = ("denoiser", "discriminator", "classifier")


@dataclass(frozen=True, kw_only=True)
class Load(Stage):
    """Load a trained network from a file of `train`, `genkit export` or `genkit import-edm`.

    The file determines whether it is a denoiser, a discriminator or a classifier. It is copied to
    the folder of the stage, and its SHA-256 is part of the fingerprint.

    Raises:
        SettingError: the file is missing or damaged, or describes no network.
    """

    path: str = setting(
        doc="the .safetensors file, relative to the current directory; ~ is your home"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # What a stage leaves must be known where later ones refer to it, as a recipe is decoded.
        try:
            reason = "" if self.output in KINDS else "it describes none"
        except (AttributeError, DataError, OSError, RecursionError, RuntimeError) as error:
            # A file may hold anything; a path may name a user or a folder that is not there.
            reason = str(error)
        if reason:
            problem = Problem(
                ("path",),
                f"must be a file of a network, got {shown(self.path)}: {reason}",
                "write a file of a training, of genkit export or of genkit import-edm",
                Code.DATA,
            )
            raise SettingError(type(self).__name__, [problem])

    @property
    def output(self) -> str:
        return tensors.metadata(self._file).get("kind", "")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        try:
            load_network(self._file, load_plugins().registry)
        except (DataError, PluginError, SettingError) as error:
            yield Problem(("path",), str(error), "copy or import the file again", Code.DATA)

    def version(self) -> str:
        """Return the SHA-256 of the file, and the code of the network that it describes."""
        registry = load_plugins().registry
        networks = list(_networks(tensors.metadata(self._file), registry))
        code = {
            "plugins": sorted({owner for n in networks for owner in owners_of(n, registry)}),
            "code": dict(item for n in networks for item in code_of(n).items()),
        }
        return f"{file_digest(self._file)} {json.dumps(code, sort_keys=True)}"

    def design(self) -> Design | None:
        try:
            return design_of(tensors.metadata(self._file), load_plugins().registry)
        except (DataError, PluginError, SettingError):
            return None  # reported by check

    def run(self, context: Context) -> None:
        weights, described = read_network(self._file)
        images = int(described["images"])
        save_network(context.folder / f"{self.output}.safetensors", weights, described, images)

    @property
    def _file(self) -> Path:
        return Path(self.path).expanduser()


def _networks(described: Mapping[str, str], registry: Registry) -> Iterator[Network]:
    """Yield the network that a file describes, and those that it contains."""
    yield design_of(described, registry).settings
    for inner in contents(described).values():
        yield from _networks(inner, registry)
