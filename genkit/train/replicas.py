"""Data-parallel batches: every rank computes a shard, and gradients are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genkit.blame import fault, require_type
from genkit.interfaces import BoundObjective, Objective
from genkit.types import Batch
from genkit.world import World


def shard_range(world: World, count: int) -> range:
    """Return the range of the ``count`` items of a batch that this rank computes; may be empty."""
    return range(count * world.rank // world.size, count * (world.rank + 1) // world.size)


class ItemLosses(nn.Module):
    """Module that computes the losses of items, which DistributedDataParallel can wrap.

    The network itself is passed to the objective, not a wrapper, so that its attributes are
    available.

    Args:
        model: module of the network.
        objective: objective of the recipe, for messages.
        bound: result of the objective's ``bind``, which computes the loss.
    """

    def __init__(self, model: nn.Module, objective: Objective, bound: BoundObjective) -> None:
        super().__init__()
        self.model = model
        self._objective, self._bound = objective, bound

    def forward(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of each item, ``[B]``."""
        losses = self._bound.loss(self.model, batch, noise, generator)
        loss = require_type(self._objective, "loss", losses, Tensor)
        if loss.shape != (len(batch),):
            got = f"got shape {list(loss.shape)}"
            raise fault(
                self._objective, f"must return a loss for each of {len(batch)} items, {got}"
            )
        return loss


class Replicas:
    """Losses of this rank's items, whose gradients are averaged over all ranks.

    Args:
        loss: module that computes the losses; its weights are replaced by those of rank 0.
        world: processes of the training run.
    """

    def __init__(self, loss: ItemLosses, world: World) -> None:
        self._local = loss
        self._ddp: DistributedDataParallel | None = None
        self.needs_warm_up = world.size > 1

    def __call__(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of each item of this rank, ``[B]``."""
        loss = self._ddp or self._local
        return loss(batch, noise, generator)  # type: ignore[no-any-return]

    def warm_up(self, compute: Callable[[], Tensor]) -> None:
        """Set up DistributedDataParallel (DDP), after which gradients are averaged over ranks.

        Two losses are computed and discarded. The first, without DDP, determines the parameters
        without gradient, which are frozen since DDP would wait for their gradients forever. With
        the second, DDP rebuilds its buckets, which changes the order of summation. Every process
        does this, so a resumed run sums in the same order as a run that was never stopped.

        Args:
            compute: function that returns the sum of losses, computed by a call of this object.
                Weights and buffers are restored afterwards.
        """
        loss = self._local
        with _restore_after(loss):
            compute().backward()  # type: ignore[no-untyped-call]
        for parameter in loss.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self._ddp = DistributedDataParallel(loss, gradient_as_bucket_view=True)
        with _restore_after(loss):
            compute().backward()  # type: ignore[no-untyped-call]
        for parameter in loss.parameters():
            parameter.grad = None
        self.needs_warm_up = False

    @contextmanager
    def sync_gradients(self, last: bool) -> Iterator[None]:
        """Average gradients over ranks only in the last micro-batch; the others accumulate them."""
        if last or self._ddp is None:
            yield
        else:
            with self._ddp.no_sync():
                yield


@contextmanager
def _restore_after(module: nn.Module) -> Iterator[None]:
    """Restore buffers and weights after the block; some networks normalize weights in forward."""
    held = [*module.parameters(), *module.buffers()]
    before = [tensor.detach().clone() for tensor in held]
    yield
    with torch.no_grad():
        for tensor, value in zip(held, before, strict=True):
            tensor.copy_(value)
