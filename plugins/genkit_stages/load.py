"""The load stage: a trained network from a file, such as published weights."""

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


@dataclass(frozen=True, kw_only=True)
class Load(Stage):
    """Load a trained network from a file of `train`, `genkit export` or `genkit import`.

    The file determines whether it is a denoiser, a discriminator or a classifier. It is copied to
    the folder of the stage, and its SHA-256 is part of the fingerprint.

    Raises:
        SettingError: the file is missing or damaged, or describes no network.
    """

    path: FilePath = setting(
        doc="the .safetensors file; ~ is your home",
        affects_result=False,  # its content does: see `version`
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # Later stages may refer to it only if its artifact is known while a recipe is decoded.
        try:
            NetworkFile.outline(self._file)
        except DataError as error:
            hint = "write a file of a training, of genkit export or of genkit import"
            problem = Problem(("path",), str(error), hint, error.code)
            raise SettingError(type(self).__name__, [problem]) from error

    @property
    def output(self) -> type[NetworkFile]:
        return type(NetworkFile.outline(self._file))

    def check(self, earlier: Stages) -> Iterator[Problem]:
        try:
            load_network(self._file, load_plugins().registry)
        except (DataError, PluginError, SettingError) as error:
            code = error.mistakes[0].problem.code
            yield Problem(("path",), str(error), "copy or import the file again", code)

    def version(self) -> str:
        """Return the SHA-256 of the file, and the code of the network that it describes."""
        return f"{self._digest} {code_of_network(self._file, load_plugins().registry)}"

    def design(self, earlier: Stages) -> Design | None:
        try:
            return design_of(NetworkFile.outline(self._file), load_plugins().registry)
        except (DataError, PluginError, SettingError):
            return None  # reported by check

    def run(self, context: Context) -> None:
        network = NetworkFile.load(self._file)
        require_unchanged(self._file, self._digest)
        context.record.save(network)

    @cached_property
    def _digest(self) -> str:
        """SHA-256 of the file, as it is part of the fingerprint."""
        return file_digest(self._file)

    @property
    def _file(self) -> Path:
        return expand_user(self.path)
