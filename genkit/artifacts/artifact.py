"""The base of everything that a stage writes for later stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self


class Artifact(ABC):
    """What a stage writes for later stages: one value, in one file of the stage's folder.

    A stage declares the type of its artifact as ``output`` and writes it with
    :meth:`genkit.artifacts.record.Record.save`. A later stage names the earlier one in a setting of
    the type ``Annotated[str, Ref(TheArtifact)]`` and reads it with ``context.read``.
    """

    name: ClassVar[str]
    """Its name in messages, and the stem of its file: lower-case letters, digits, ``-``, ``_``.

    Names of files that genkit writes itself, such as ``checkpoint``, are reserved.
    """

    suffix: ClassVar[str] = ".safetensors"

    @classmethod
    def filename(cls) -> str:
        """Return the name of its file in the folder of a stage."""
        return f"{cls.name}{cls.suffix}"

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write it to a file, in one step: a kill leaves the old file or the new one."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Self:
        """Return what :meth:`save` wrote.

        Raises:
            DataError: the file is missing, damaged or of another kind.
        """
