"""Base class of artifacts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self


class Artifact(ABC):
    """Value that a stage writes for later stages, in one file of its folder.

    A stage declares the type of its artifact as ``output`` and writes it with
    :meth:`genkit.artifacts.record.Record.save`. A later stage names the earlier one in a setting of
    the type ``Annotated[str, Ref(TheArtifact)]`` and reads it with ``context.read``.
    """

    name: ClassVar[str]
    """Name in messages and stem of the file name: lower-case letters, digits, ``-``, ``_``.

    Names of other files in the folder of a stage, such as ``checkpoint``, are reserved.
    """

    suffix: ClassVar[str] = ".safetensors"

    @classmethod
    def filename(cls) -> str:
        """Return the file name in the folder of a stage."""
        return f"{cls.name}{cls.suffix}"

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the artifact to a file, atomically."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Self:
        """Return the artifact of a file.

        Raises:
            DataError: the file is missing, damaged or of another kind.
        """
