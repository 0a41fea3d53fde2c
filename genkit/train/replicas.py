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
    """Return the consecutive items of ``count`` that this rank computes; empty if it has none."""
    return range(count * world.rank // world.size, count * (world.rank + 1) // world.size)


class ItemLosses(nn.Module):
    """Module that computes the losses of items, for DistributedDataParallel to wrap.

    The objective is passed the network itself and not a wrapper, so that it can use its attributes.

    Args:
        model: module of the network.
        objective: objective of the recipe, for messages.
        bound: result of its ``bind``, which computes the loss.
    """

    def __init__(self, model: nn.Module, objective: Objective, bound: BoundObjective) -> None:
        super().__init__()
        self.model = model
        self._objective, self._bound = objective, bound

    def forward(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of each item, ``[B]``."""
        found = self._bound.loss(self.model, batch, noise, generator)
        loss = require_type(self._objective, "loss", found, Tensor)
        if loss.shape != (len(batch),):
            got = f"got one of shape {list(loss.shape)}"
            raise fault(
                self._objective, f"must return a loss for each of {len(batch)} items, {got}"
            )
        return loss


class Replicas:
    """Losses of this rank's items, whose gradients are averaged over all ranks.

    Args:
        loss: module that computes the losses; its weights are replaced by those of rank 0.
        world: processes of the training.
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
        """Warm up DistributedDataParallel, after which gradients are averaged over ranks.

        Two losses are computed and discarded. The first, without DDP, finds the parameters without
        gradient, which are frozen: DDP would wait for them forever. The second triggers DDP's
        rebuild of its buckets, which changes the order of summation. After a warm-up in every
        process, a resumed run sums in the same order as one that was never stopped.

        Args:
            compute: returns the sum of losses of this object; weights and buffers are restored.
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
        """Average gradients over ranks in the last micro-batch only; the others accumulate."""
        if last or self._ddp is None:
            yield
        else:
            with self._ddp.no_sync():
                yield


@contextmanager
def _restore_after(module: nn.Module) -> Iterator[None]:
    """Restore buffers after the block, and weights, which some networks normalize in forward."""
    held = [*module.parameters(), *module.buffers()]
    before = [tensor.detach().clone() for tensor in held]
    yield
    with torch.no_grad():
        for tensor, value in zip(held, before, strict=True):
            tensor.copy_(value)
