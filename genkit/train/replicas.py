"""One batch, computed by several processes: each takes its share, and gradients are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genkit.blame import refused, returned
from genkit.interfaces import BoundObjective, Objective
from genkit.types import Batch
from genkit.world import World


def share_of(world: World, count: int) -> range:
    """Return which of ``count`` consecutive items a process computes; none where there are few."""
    return range(count * world.rank // world.size, count * (world.rank + 1) // world.size)


class ItemLosses(nn.Module):
    """An objective with the network that it trains, as the one module that computes losses.

    The objective is given the network itself, so that it finds the network's attributes.

    Args:
        model: what the network's ``build`` returned.
        objective: objective as the recipe has it, which messages name.
        bound: what its ``bind`` returned, which gives the loss of each item.
    """

    def __init__(self, model: nn.Module, objective: Objective, bound: BoundObjective) -> None:
        super().__init__()
        self.model = model
        self._objective, self._bound = objective, bound

    def forward(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of each item, ``[B]``."""
        found = self._bound.loss(self.model, batch, noise, generator)
        loss = returned(self._objective, "loss", found, Tensor)
        if loss.shape != (len(batch),):
            got = f"got one of shape {list(loss.shape)}"
            raise refused(
                self._objective, f"must return a loss for each of {len(batch)} items, {got}"
            )
        return loss


class Replicas:
    """The losses on every process; the gradients of their sum are those of all of them together.

    Args:
        loss: of the network; its weights become those of the leading process.
        world: the processes.
    """

    def __init__(self, loss: ItemLosses, world: World) -> None:
        self._alone = loss
        self._joined: DistributedDataParallel | None = None
        self.needs_rehearsal = world.size > 1

    def __call__(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of each of this process's items, ``[B]``."""
        loss = self._joined or self._alone
        return loss(batch, noise, generator)  # type: ignore[no-any-return]

    def rehearse(self, compute: Callable[[], Tensor]) -> None:
        """Join the processes, after which gradients are averaged over them.

        A loss is computed twice for nothing. First alone, to see which parameters it does not use:
        DistributedDataParallel waits for the gradient of every one that asks for it. Then together:
        it lays out anew what it sends after it has seen the gradients come once, and a run that is
        resumed must add them in the order of one that goes on.

        Args:
            compute: returns the sum of losses of this object; no weight or buffer is changed in the
                end.
        """
        loss = self._alone
        with _undone(loss):
            compute().backward()  # type: ignore[no-untyped-call]
        for parameter in loss.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self._joined = DistributedDataParallel(loss, gradient_as_bucket_view=True)
        with _undone(loss):
            compute().backward()  # type: ignore[no-untyped-call]
        for parameter in loss.parameters():
            parameter.grad = None
        self.needs_rehearsal = False

    @contextmanager
    def exchanging(self, last: bool) -> Iterator[None]:
        """Average the gradients with the last micro-batch alone; the others add up here."""
        if last or self._joined is None:
            yield
        else:
            with self._joined.no_sync():
                yield


@contextmanager
def _undone(module: nn.Module) -> Iterator[None]:
    """Take back what the block does to buffers, and to weights that a network normalises itself."""
    held = [*module.parameters(), *module.buffers()]
    before = [tensor.detach().clone() for tensor in held]
    yield
    with torch.no_grad():
        for tensor, value in zip(held, before, strict=True):
            tensor.copy_(value)
