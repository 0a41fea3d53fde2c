"""The stage ``load``, which reads a trained network from a file, such as published weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from genkit.artifacts import NetworkFile
from genkit.errors import DataError, PluginError, Problem, SettingError
from genkit.files import expand_user
from genkit.interfaces import Context, Design, Stage, Stages
from genkit.networks import code_of_network, design_of, load_network
from genkit.plugin.manager import load_plugins
from genkit.settings import FilePath, setting
from genkit.tensors import file_digest, require_unchanged


@dataclass(frozen=True)
class _DesignOfFile(Design):
    """Design of a trained network, which is read only if its digest is required."""

    load: Load

    @property
    def digest(self) -> str:
        return self.load._network_digest


@dataclass(frozen=True, kw_only=True)
class Load(Stage):
    """Load a trained network from a file written by `train`, `genkit export` or `genkit import`.

    The file determines whether the network is a denoiser, a discriminator or a classifier. It is
    copied to the folder of the stage, and its SHA-256 is part of the fingerprint.

    Raises:
        SettingError: the file is missing or corrupt, or contains no network.
    """

    path: FilePath = setting(
        doc=".safetensors file; ~ is your home folder",
        affects_result=False,  # the content of the file does: see `version`
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # References of later stages are checked while a recipe is decoded, which requires the
        # type of the artifact.
        try:
            NetworkFile.outline(self._file)
        except DataError as error:
            hint = "name a file written by the stage train, genkit export or genkit import"
            problem = Problem(("path",), str(error), hint, error.code)
            raise SettingError(type(self).__name__, [problem]) from error

    @property
    def output(self) -> type[NetworkFile]:
        return type(NetworkFile.outline(self._file))

    def check(self, earlier: Stages) -> Iterator[Problem]:
        try:
            _ = self._network_digest
        except (DataError, PluginError, SettingError) as error:
            code = error.mistakes[0].problem.code
            yield Problem(("path",), str(error), "copy or import the file again", code)

    def version(self) -> str:
        """Return the SHA-256 of the file, and the version of its network's code."""
        return f"{self._digest} {code_of_network(self._file, load_plugins().registry)}"

    def design(self, earlier: Stages) -> Design | None:
        return self._design

    def run(self, context: Context) -> None:
        network = NetworkFile.load(self._file)
        require_unchanged(self._file, self._digest)
        context.record.save(network)

    @cached_property
    def _digest(self) -> str:
        """Hash of the file, computed once: the fingerprint and `run` must use the same."""
        return file_digest(self._file)

    @cached_property
    def _design(self) -> Design | None:
        """Design of the network, read once: the checks of all later stages use it."""
        try:
            design = design_of(NetworkFile.outline(self._file), load_plugins().registry)
        except (DataError, PluginError, SettingError):
            return None  # reported by check
        return _DesignOfFile(**vars(design), load=self)

    @cached_property
    def _network_digest(self) -> str:
        """Digest of the network, which is read once: to check the file, and for its guidance."""
        return load_network(self._file, load_plugins().registry).digest

    @property
    def _file(self) -> Path:
        return expand_user(self.path)
