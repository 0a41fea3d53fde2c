"""The error for a violated law, and laws that apply to several kinds of components."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from genkit.random import generator
from genkit.types import Batch, DataSpec


class LawBroken(AssertionError):  # noqa: N818, a law is broken, not in error
    """A component violates the contract of its kind.

    Args:
        component: component that breaks the law.
        law: stable name and text of the law, such as ``"finite: a score is finite"``.
        seen: observation that contradicts the law.
    """

    def __init__(self, component: object, law: str, seen: object) -> None:
        self.component, self.seen = component, seen
        self.name, _, self.law = law.partition(": ")
        super().__init__(f"{component!r} breaks the law {law}; seen: {seen}")


def require(holds: bool, component: object, law: str, seen: object) -> None:
    """Raise LawBroken unless a law holds."""
    if not holds:
        raise LawBroken(component, law, seen)


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    """Return a dict from name to value of the attributes of a batch that are not None."""
    return {name: value for name, value in vars(batch).items() if value is not None}


def items(spec: DataSpec, count: int) -> Batch:
    """Return random items with values in [-1, 1], with labels if the data has classes."""
    data = torch.rand((count, *spec.shape), generator=generator(0, "laws", count)) * 2 - 1
    return Batch(data, torch.arange(count) % spec.classes if spec.classes else None)


@contextmanager
def require_pure(component: object, **inputs: Tensor) -> Iterator[None]:
    """Require that the block modifies neither the inputs nor torch's global generator."""
    before: Mapping[str, Tensor] = {name: tensor.clone() for name, tensor in inputs.items()}
    state = torch.get_rng_state()
    yield
    for name, tensor in inputs.items():
        same = torch.equal(before[name], tensor)
        require(same, component, "leaves-inputs: inputs are not modified", f"{name} was modified")
    same = torch.equal(state, torch.get_rng_state())
    law = "own-generator: random numbers come only from the generator argument"
    require(same, component, law, "torch's global generator was used")


def require_per_item(component: object, what: str, alone: Tensor, whole: Tensor) -> None:
    """Require that the first item has the same result in a batch of one as in a larger batch."""
    same = alone.shape[1:] == whole.shape[1:] and torch.allclose(
        alone[0], whole[0], rtol=1e-3, atol=1e-4
    )
    law = f"company: {what} does not depend on the other items of the batch"
    require(same, component, law, (alone[0], whole[0]))
