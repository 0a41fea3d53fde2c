"""Estimate what the stages of a recipe require: parameters, memory, disk space and time.

Nothing is trained or written. Networks are built on the device "meta". Only the time is measured,
with a few steps of each network on random items, and multiplied by :meth:`Stage.work`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch

from genkit.artifacts.checkpoint import KEPT
from genkit.designs import designs, outermost, references
from genkit.interfaces import Average, Objective, Optimizer, SamplingStage, Stage, Stages, Trained
from genkit.networks import NetworkInputs, build_module
from genkit.parts.meta import without_memory
from genkit.parts.precision import Precision, network_precision
from genkit.random import seeded
from genkit.recipe.recipe import Recipe
from genkit.tensors import stored_bytes
from genkit.train.sizes import (
    bytes_per_parameter,
    count_parameters,
    tensor_bytes,
    training_size,
)
from genkit.types import Batch, DataSpec

MOST_SECONDS = 1.0
"""Time in seconds for which steps of a network are measured; chosen, not tuned. If a batch takes
longer, a smaller batch is measured."""

_META = torch.device("meta")
_ITEMS = 64  # items of a batch of a stage without a batch size


@dataclass(frozen=True)
class Forecast:
    """What a stage requires; None for a value that is unknown, not measured or does not apply.

    Attributes:
        parameters: number of parameters of the network that the stage trains or loads.
        memory: bytes of weights, gradients, optimizer and average in training, without activations.
        disk: bytes of checkpoints, networks and samples, without snapshots and pictures. This is
            the peak, while a checkpoint is written and older ones still exist.
        seconds: time of network calls and optimizer steps, without data, coupling and scores.
        unknown: names of the values that apply to the stage but could not be estimated.
    """

    parameters: int | None = None
    memory: int | None = None
    disk: int | None = None
    seconds: float | None = None
    unknown: tuple[str, ...] = ()


def forecast(recipe: Recipe, device: torch.device | None = None) -> dict[str, Forecast]:
    """Return what each stage of a recipe requires, by id.

    Args:
        recipe: recipe without mistakes.
        device: device on which time is measured; None to measure nothing.
    """
    result, clock = {}, _Clock(recipe.stages, device) if device else None
    for stage_id, stage in recipe.stages.items():
        known: dict[str, Any] = {}
        expected = _expected(stage)
        # A value stays unknown if a component requires the results of earlier stages, or the values
        # of tensors on the device "meta". Errors of third-party code are reported by the run.
        with suppress(Exception):
            known |= _sizes(stage_id, stage, recipe.stages)
        if clock is not None:
            expected = (*expected, "seconds")
            with suppress(Exception):
                known["seconds"] = clock.seconds(stage_id, stage)
        unknown = tuple(name for name in expected if known.get(name) is None)
        result[stage_id] = Forecast(**known, unknown=unknown)
    return result


def _expected(stage: Stage) -> tuple[str, ...]:
    """Return the names of the sizes that apply to a stage."""
    if _part(stage, Optimizer) is not None:
        return "parameters", "memory", "disk"
    return ("disk",) if isinstance(stage, SamplingStage) else ()


def _sizes(stage_id: str, stage: Stage, stages: Stages) -> dict[str, int]:
    """Return parameters, memory and disk space of a stage, without those that do not apply."""
    if isinstance(stage, SamplingStage):
        drawn_by = stage.drawn_by(stages) or ""
        spec = designs([drawn_by], stages)[drawn_by].spec
        return {"disk": stage.count * stored_bytes(spec.shape)}
    if stage_id not in designs([stage_id], stages):
        return {}
    try:
        model = _built(stage_id, stages, _META).module
    except (NotImplementedError, RuntimeError, TypeError):  # it calls its network
        model = _built(stage_id, stages, torch.device("cpu")).module
    optimizer = _part(stage, Optimizer)
    if optimizer is None:
        return {"parameters": count_parameters(model), "disk": tensor_bytes(model.state_dict())}
    size = training_size(model, _part(stage, Average))
    state = size.weights + size.averages + size.trained * bytes_per_parameter(optimizer)
    memory = state + size.gradients
    # A new checkpoint is complete before the oldest is removed.
    disk = size.weights + (KEPT + 1) * state
    return {"parameters": size.parameters, "memory": memory, "disk": disk}


class _Clock:
    """Measures the time of forward passes.

    Args:
        stages: stages of the recipe.
        device: device of the networks.
    """

    def __init__(self, stages: Stages, device: torch.device) -> None:
        self._stages, self._device = stages, device
        self._measured: dict[tuple[str, bool, int, Precision], float] = {}

    def seconds(self, stage_id: str, stage: Stage) -> float | None:
        """Return the time of a stage in seconds; None if its work or its network is unknown."""
        work, trains = stage.work(self._stages), _part(stage, Optimizer) is not None
        network = stage_id if trains else _denoiser_of(stage, self._stages)
        if network is None or not (math.isfinite(work) and work > 0):
            return None
        precision: Precision = getattr(stage, "precision", "float32")
        key = network, trains, int(getattr(stage, "batch_size", _ITEMS)), precision
        if key not in self._measured:
            self._measured[key] = self._measure(*key)
        return work * self._measured[key]

    def _measure(self, network: str, trains: bool, size: int, precision: Precision) -> float:
        """Return the seconds of a forward pass of one item in a batch; training is three passes."""
        trained = _built(network, self._stages, self._device)
        step = _training_step(trained, self._stages[network]) if trains else _sampling_step(trained)
        with network_precision(self._device, precision), seeded(0, self._device):
            one = _items(trained.spec, 1).to(self._device)
            first = min(_timed(step, one, self._device) for _ in range(2))
            count = max(1, min(size, int(MOST_SECONDS / first)))
            batch = _items(trained.spec, count).to(self._device)
            _timed(step, batch, self._device)  # selects kernels for this size
            times = [_timed(step, batch, self._device)]
            while sum(times) < MOST_SECONDS:  # a mean, since other programs may use the machine
                times.append(_timed(step, batch, self._device))
        return sum(times) / len(times) / count / (3 if trains else 1)


def _training_step(trained: Trained, stage: Stage) -> Callable[[Batch], None]:
    """Return a function that trains on a batch of random items with random noise."""
    objective, model = _part(stage, Objective), trained.module.train()
    loss = objective.bind(NetworkInputs(next(model.parameters()).device)).loss
    terms = objective.terms(trained.spec.shape)
    stepper = _part(stage, Optimizer).build(list(model.parameters()), terms)
    average = _part(stage, Average).build(model)

    def step(batch: Batch) -> None:
        stepper.zero_grad(set_to_none=True)
        noise = torch.randn_like(batch.data)
        loss(model, batch, noise, torch.Generator().manual_seed(0)).mean().backward()
        stepper.step()
        average.update(model, len(batch), len(batch))

    return step


def _sampling_step(trained: Trained) -> Callable[[Batch], None]:
    """Return a function that evaluates a denoiser on a batch at one noise level."""
    trained.module.eval().requires_grad_(False)

    def step(batch: Batch) -> None:
        labels = batch.labels if trained.classes else None
        trained.module(batch.data, torch.ones(len(batch), device=batch.data.device), labels)

    return step


def _timed(step: Callable[[Batch], None], batch: Batch, device: torch.device) -> float:
    """Return the seconds of a step, including the work of the device."""
    _wait(device)
    begun = time.perf_counter()
    step(batch)
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _items(spec: DataSpec, count: int) -> Batch:
    """Return random items with all attributes of a kind of data."""
    index = torch.arange(count)
    return Batch(
        torch.rand(count, *spec.shape) * 2 - 1,
        labels=index % spec.classes if spec.classes else None,
        realness=index % 2 if spec.realness else None,
        quantile=(index + 0.5).double() / count,
        embeddings=torch.zeros(count, spec.embeddings) if spec.embeddings else None,
        augment_labels=torch.zeros(count, spec.augment_labels) if spec.augment_labels else None,
    )


def _built(stage_id: str, stages: Stages, device: torch.device) -> Trained:
    """Return the network of a stage with random weights, and the networks in it."""
    design = designs([stage_id], stages)[stage_id]
    given = {name: _built(name, stages, device) for name in references(design.settings)}
    for inner in given.values():
        inner.module.eval().requires_grad_(False)
    inputs = NetworkInputs(device, given=given)
    with without_memory() if device == _META else nullcontext(), seeded(0):
        module = build_module(design.settings, inputs, design.spec)
    return Trained(design.settings, design.spec, module if device == _META else module.to(device))


def _denoiser_of(stage: Stage, stages: Stages) -> str | None:
    """Return the id of the stage whose denoiser a stage calls, directly or for another stage."""
    if drawn_by := stage.drawn_by(stages):
        return drawn_by
    behind = (_denoiser_of(stages[name], stages) for name in references(stage) if name in stages)
    return next((name for name in behind if name), None)


def _part(stage: Stage, kind: type[Any]) -> Any:
    """Return the first component of a kind in the settings of a stage; None if there is none."""
    return next((part for _, part in outermost(stage, kind)), None)
