"""Contract tests of optimizers and averages of weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from genkit.interfaces import Average, Optimizer, RunningAverage
from genkit.random import generator, seeded
from genkit.testing.laws import require, require_pure
from genkit.train.finite_step import FiniteStep


def check_optimizer(optimizer: Optimizer) -> None:
    """Check every law of an optimizer.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    rates = [optimizer.rate(images) for images in (0, 1, 1000, 10**6, 10**9)]
    law = "rate-range: rate returns a value from 0 to learning_rate"
    require(all(0 <= r <= optimizer.learning_rate for r in rates), optimizer, law, rates)
    model = _model()
    built = optimizer.build(list(model.parameters()), 1)
    held = [id(p) for group in built.param_groups for p in group["params"]]
    law = "all-parameters: the optimizer contains every parameter exactly once"
    require(sorted(held) == sorted(map(id, model.parameters())), optimizer, law, len(held))
    before = _copied(model)
    _step(optimizer, model, built, 0)
    same = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    require(not same, optimizer, "step-changes: a step changes every weight with a gradient", same)
    twin = copy.deepcopy(model)
    resumed = optimizer.build(list(twin.parameters()), 1)
    resumed.load_state_dict(copy.deepcopy(built.state_dict()))
    for one, own in ((model, built), (twin, resumed)):
        _step(optimizer, one, own, 1)
    law = "resumes: an optimizer with the restored state of another one takes the same steps"
    require(_equal(_copied(model), _copied(twin)), optimizer, law, "different weights")


def check_average(average: Average) -> None:
    """Check every law of an average of weights.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    model = _model()
    running = average.build(model)
    law = "starts-equal: a new average has the weights of the network, with the same names"
    require(_equal(_copied(running.model), _copied(model)), average, law, "different weights")
    law = "average-is-idle: the averaged network is in eval mode, with gradients disabled"
    idle = not (running.model.training or any(p.requires_grad for p in running.model.parameters()))
    require(idle, average, law, "training mode, or enabled gradients")
    _updated(average, running, model, 0)
    other = _model()
    resumed = average.build(other)
    resumed.model.load_state_dict(_copied(running.model))
    resumed.restore({name: tensor.clone() for name, tensor in running.state().items()})
    for one in (running, resumed):
        _updated(average, one, model, 1)
    law = "resumes: an average that is restored from another one stays bit-identical to it"
    same = _equal(_copied(running.model), _copied(resumed.model))
    require(same and _equal(running.state(), resumed.state()), average, law, "different bits")


def _updated(average: Average, running: RunningAverage, model: nn.Module, index: int) -> None:
    """Change the network, update the average, and check the result."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(index, "laws of averages")))
        for buffer in model.buffers():
            buffer.fill_(index + 2)
    before = _copied(running.model)
    with require_pure(average, **model.state_dict()):
        running.update(model, 64 * index, 64)
    current = model.state_dict()
    for name, mine in running.model.named_parameters():
        low, high = (f(before[name], current[name]) for f in (torch.minimum, torch.maximum))
        law = "between: an averaged weight is between its previous value and the network's weight"
        between = bool(((mine >= low - 1e-6) & (mine <= high + 1e-6)).all())
        require(between, average, law, f"{name} outside of this range")
    buffers = dict(running.model.named_buffers())
    same = all(torch.equal(buffers[name], b) for name, b in model.named_buffers())
    law = "copies-buffers: the buffers of the average equal those of the network"
    require(same, average, law, "different buffers")


def _model() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()


def _step(
    settings: Optimizer, model: nn.Module, optimizer: torch.optim.Optimizer, index: int
) -> None:
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator(index, "laws of optimizers"))
    FiniteStep(settings, optimizer)(torch.tensor(True))


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())
