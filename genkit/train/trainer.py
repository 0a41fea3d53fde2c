"""Optimizer steps, which update the weights, their average and the state of the optimizer.

A step never synchronizes with the device, so the host prepares the next step meanwhile. Whether
loss and gradient are finite is checked on the device, and reported when the loss is next read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from genkit.blame import require_method, require_type
from genkit.errors import DivergedError
from genkit.interfaces import Average, Context, Objective, Optimizer, RunningAverage
from genkit.parts.precision import Precision, autocast
from genkit.random import seeded
from genkit.train.by_quantile import LossByQuantile
from genkit.train.compiler import require_compiler
from genkit.train.finite_step import FiniteStep
from genkit.train.replicas import ItemLosses, Replicas, shard_range
from genkit.types import Batch

T = TypeVar("T")

AVERAGED = "averaged."
"""Prefix of the averaged weights in a checkpoint."""

BY_QUANTILE = "loss_by_quantile"
"""Name of the tensor of the losses by quantile in a checkpoint."""

SMALLEST_SCALE = 2.0**-14
"""Min float16 loss scale, 30 halvings below GradScaler's start at 2^16. Chosen, not tuned."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Options of the computation of a step, which change only the rounding of its result.

    Attributes:
        precision: precision of the network; weights and optimizer stay in float32.
        channels_last: whether images have the memory layout NHWC, with which convolutions are
            faster on some GPUs.
        compiled: whether the network is compiled with ``torch.compile``.
        micro_batch: max number of items in a forward and backward pass on a rank; gradients are
            accumulated. None for the whole batch.
    """

    precision: Precision = "float32"
    channels_last: bool = False
    compiled: bool = False
    micro_batch: int | None = None


class Trainer:
    """Train a network step by step.

    Args:
        context: device, seeds and processes of the stage, and inputs of the objective.
        model: newly built network, which is moved to the device.
        objective: objective that computes the loss of each item.
        optimizer: settings of the optimizer.
        average: settings of the average of the weights.
        shape: shape of one item.
        compute: options of the computation.

    Raises:
        UsageError: ``compute.compiled`` is true, and no compiler works.
    """

    def __init__(
        self,
        context: Context,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        average: Average,
        shape: tuple[int, ...],
        compute: Compute,
    ) -> None:
        device, self._seed, self._world = context.device, context.seed, context.world
        layout = torch.channels_last if compute.channels_last else torch.preserve_format
        self.model = model.to(device=device, memory_format=layout).train()  # type: ignore[call-overload]
        self.average = require_type(average, "build", average.build(self.model), RunningAverage)
        self.settings = optimizer
        self._parameters = list(self.model.parameters())  # only once: the walk over modules is slow
        built = optimizer.build(self._parameters, objective.terms(shape))
        self.optimizer = require_type(optimizer, "build", built, torch.optim.Optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=compute.precision == "float16")
        self._step_if = FiniteStep(optimizer, self.optimizer)
        self._compute, self._device, self._layout = compute, device, layout
        if compute.compiled:
            require_compiler(device)
            self.model.compile()  # in place, so that the names in the state dict do not change
        bound = require_method(objective, objective.bind(context), "loss")
        self._loss = Replicas(ItemLosses(self.model, objective, bound), self._world)
        self.by_quantile = LossByQuantile(self._device, self._world)
        """Losses by quantile of all steps since the last call of its method ``begin``."""
        self._begin(0, 0)

    def _begin(self, images: int, steps: int) -> None:
        self.images, self.steps = images, steps
        # On the device: the number of images up to which everything was finite, and the sum of the
        # losses that ``mean_loss`` has not read yet.
        self._finite = torch.tensor(images, device=self._device)
        self._losses = torch.zeros((), device=self._device)
        self._unread = 0

    def step(self, batch: Batch, noise: Tensor) -> Tensor:
        """Train on one batch.

        Once a loss or gradient is not finite, the weights no longer change. In float16, where
        gradients overflow occasionally, only the step of such a gradient is skipped.

        Args:
            batch: ``[B]`` items with ``quantile``, the same on every rank.
            noise: ``[B, *shape]`` noise paired with the items.

        Returns:
            Mean loss of the batch, 0-d on the device; with several ranks, the contribution of this
            rank to it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(self.images)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(batch, noise)
        self._update(loss, len(batch))
        self.average.update(self.model, self.images, len(batch))
        self._losses += loss
        self._unread += 1
        self.images += len(batch)
        self.steps += 1
        return loss

    @property
    def finite_images(self) -> int:
        """Number of images up to which this process found no value that is not finite."""
        return int(self._finite)

    def mean_loss(self) -> float:
        """Return the mean loss of the steps since the last call.

        Collective, and synchronizes with the device. Must be called before anything is saved.

        Raises:
            DivergedError: a loss or a gradient was not finite, so nothing may be saved.
        """
        parts = self._world.all_gather((float(self._losses), self.finite_images))
        loss, at = sum(part for part, _ in parts) / max(self._unread, 1), min(f for _, f in parts)
        self._losses.zero_()
        self._unread = 0
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at {at:,} images")
        if at < self.images:
            raise DivergedError(f"the gradient is not finite at {at:,} images")
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            raise DivergedError(
                f"float16 gradients overflow at every loss scale at {self.images:,} images"
            )
        return loss

    def _backward(self, batch: Batch, noise: Tensor) -> Tensor:
        """Accumulate the gradient of the mean loss in the parameters, and return the loss."""
        mine, total = shard_range(self._world, len(batch)), torch.zeros((), device=self._device)
        # The all-reduce of gradients is collective, so a rank without items, as in a short last
        # batch, computes one item with weight 0.
        share = mine or range(1)
        size = self._compute.micro_batch or len(batch)
        parts = [slice(start, min(start + size, share.stop)) for start in share[::size]]
        if self._loss.needs_warm_up:
            with seeded(self._seed("warm-up"), self._device):
                self._loss.warm_up(lambda: self._losses_of(batch, noise, parts[0])[1].sum())
        for part in parts:
            # Dropout accepts no generator, so the global generators are seeded. The position in the
            # batch is part of the seed, so the masks do not depend on the number of ranks.
            seed = self._seed("dropout", self.steps, part.start)
            with self._loss.sync_gradients(last=part is parts[-1]), seeded(seed, self._device):
                items, losses = self._losses_of(batch, noise, part)
                loss = losses.sum() / len(batch) * bool(mine)
                total += loss.detach()
                # DDP averages gradients over ranks, but their sum is required, hence ``size``.
                # ``loss * 0`` makes all gradients not finite if a loss is not, even if its own
                # gradient is finite.
                unit = loss.detach() * 0 + self._world.size
                self.scaler.scale(loss).backward(unit)  # type: ignore[no-untyped-call]
            if mine and items.quantile is not None:
                self.by_quantile.add(items.quantile, losses.detach())
        return total

    def _losses_of(self, batch: Batch, noise: Tensor, part: slice) -> tuple[Batch, Tensor]:
        """Return a part of the batch on the device, and the loss of each of its items."""
        generator = torch.Generator().manual_seed(self._seed("loss", self.steps, part.start))
        items = batch[part].map(self._copied)
        assigned = self._copied(noise[part])
        with autocast(self._compute.precision, self._device):
            return items, self._loss(items, assigned, generator)

    def _copied(self, values: Tensor) -> Tensor:
        """Return values on the device in the chosen memory layout, without synchronization."""
        if self._device.type == "cuda":
            values = values.pin_memory()
        there = values.to(self._device, non_blocking=True)
        return there.to(memory_format=self._layout) if there.ndim == 4 else there

    def _update(self, loss: Tensor, count: int) -> None:
        """Step the optimizer, unless this gradient or an earlier one is not finite."""
        clip = self.settings.gradient_clip
        # Before the norm is computed: gradients times the float16 loss scale, which is up to 2^16,
        # would all be clipped.
        self.scaler.unscale_(self.optimizer)
        # One norm is used for clipping and for the check: it is finite only if all gradients are.
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        if clip is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, clip, norm)
        # 0-d on the device and never read here, since a branch on the host would synchronize.
        so_far = self._finite == self.images
        finite = so_far & norm.isfinite()
        self._step_if(finite)
        self.scaler.update()
        if self.scaler.is_enabled():
            # Overflow is expected in float16: the step is skipped, the scale halved, and training
            # continues unless the loss itself is not finite.
            finite = so_far & loss.isfinite()
        # Constant after the first failure, so ``mean_loss`` can report its position.
        self._finite += count * finite

    def state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return tensors and numbers from which :meth:`restore` resumes bit for bit. Collective.

        Raises:
            DivergedError: a loss, a gradient, a weight or a moment of the optimizer is not finite.
        """
        if (finite := self.finite_images) < self.images:
            raise DivergedError(f"the state is not finite after {finite:,} images")
        self._require_finite()
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors[BY_QUANTILE] = self.by_quantile.sums()
        averaged = self.average.model.state_dict()
        tensors |= {f"{AVERAGED}{name}": t for name, t in averaged.items()}
        tensors |= {f"average.{name}": t for name, t in self.average.state().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
        numbers: dict[str, float] = {"images": self.images, "steps": self.steps}
        numbers |= {f"scaler.{name}": value for name, value in self.scaler.state_dict().items()}
        return tensors, numbers

    def _require_finite(self) -> None:
        """Raise DivergedError unless weights, averages and moments are finite.

        They can overflow although every gradient is finite: the square of a gradient in a moment,
        or a weight after a step of a very high learning rate. Buffers may be infinite.
        """
        named = {f"weight {name}": t for name, t in self.model.named_parameters()}
        named |= {f"average of {name}": t for name, t in self.average.model.named_parameters()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            named |= {f"{name} of weight {index}": t for name, t in moments.items()}
        finite = {name: t.isfinite().all() for name, t in named.items()}
        wrong = next((name for name, is_finite in finite.items() if not bool(is_finite)), None)
        if wrong is not None:
            raise DivergedError(f"the {wrong} is not finite after {self.images:,} images")

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Resume from a result of :meth:`state` of a run with any number of processes."""
        self.model.load_state_dict(_under("model.", tensors))
        self.average.model.load_state_dict(_under(AVERAGED, tensors))
        self.average.restore(_under("average.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, _, moment = name.partition(".")
            like = self._parameters[int(index)]
            # In the memory layout of the weights: fused optimizers match elements by address.
            value = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
            moments.setdefault(int(index), {})[moment] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if scaler := _under("scaler.", numbers):
            self.scaler.load_state_dict(scaler)
        self.by_quantile.begin(tensors[BY_QUANTILE])
        self._begin(int(numbers["images"]), int(numbers["steps"]))


def _under(prefix: str, named: Mapping[str, T]) -> dict[str, T]:
    """Return the entries whose names have a prefix, with the prefix removed from the names."""
    return {name.removeprefix(prefix): v for name, v in named.items() if name.startswith(prefix)}
