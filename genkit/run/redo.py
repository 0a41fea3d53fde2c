"""The request of ``--redo``, which is kept until all its stages are finished."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Redo:
    """A request to run stages again, which is kept until all of them are finished.

    Attributes:
        requested: ids of the requested stages.
        pending: ids of the requested stages and of the stages that depend on them, without those
            that are finished.
        set_aside: whether the earlier results were moved to ``replaced/``. If so, the folders of
            pending stages contain new results, which a later call resumes.
    """

    requested: Sequence[str] = ()
    pending: Sequence[str] = ()
    set_aside: bool = True

    def including(self, stages: Collection[str], dependents: Collection[str]) -> Redo:
        """Return the request with additional stages; the same request if it contains all of them.

        Args:
            stages: ids of the additional requested stages.
            dependents: ids of these stages and of all stages that depend on them.
        """
        if set(stages) <= set(self.requested):
            return self
        return Redo(sorted({*self.requested, *stages}), sorted({*self.pending, *dependents}), False)

    @classmethod
    def parsed(cls, values: Any) -> Redo:
        """Return the request in a state file; an empty request if it is damaged."""
        try:
            redo = cls(**values)
        except TypeError:
            return cls()
        lists = (redo.requested, redo.pending)
        valid = all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in lists)
        return redo if valid and isinstance(redo.set_aside, bool) else cls()

    def without(self, stage: str) -> Redo:
        """Return the request without a stage that is finished."""
        return replace(self, pending=[other for other in self.pending if other != stage])
