"""Define the base class of artifacts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self


class Artifact(ABC):
    """Value that a stage writes for later stages, as one file in its folder.

    A stage declares the type of its artifact as ``output`` and writes the artifact with
    :meth:`genkit.artifacts.record.Record.save`. A later stage has a setting of the type
    ``Annotated[str, Ref(TheArtifact)]`` with the id of the earlier stage, and reads the artifact
    with ``context.read``.
    """

    name: ClassVar[str]
    """Name in messages and stem of the file name: lower-case letters, digits, ``-`` and ``_``.

    The names of other files in the folder of a stage, such as ``checkpoint``, are reserved.
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
        """Return the artifact in a file.

        Raises:
            DataError: the file is missing, damaged or not an artifact of this type.
        """
