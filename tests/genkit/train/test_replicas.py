"""Training shared out among processes: the steps of one, whatever their number."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genkit.train.replicas import ItemLosses, Replicas, shard_range
from genkit.world import World

RANK = """
import hashlib, json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from genkit.errors import GenkitError
from genkit.interfaces import Coupler, Objective
from genkit.random import derive_seed, generator, seeded
from genkit.tensors import load, save
from genkit.train.distributed import LOCAL, RankExchange
from genkit.train.pairing import PairStream
from genkit.train.trainer import Compute, Trainer
from genkit.types import Batch, Pairs
from genkit.world import join_processes
from genkit_optim.adam import Adam
from genkit_optim.power_ema import PowerEma

ADAM = Adam(learning_rate=1e-2, learning_rate_ramp=64)
AVERAGE = PowerEma(half_life=100, lengths=(0.1,))


@dataclass(frozen=True, kw_only=True)
class Shuffle(Coupler):
    bijective = True

    def pair(self, batch, noise, generator):
        return Pairs(torch.arange(len(batch)), torch.randperm(len(batch), generator=generator))


@dataclass(frozen=True, kw_only=True)
class Denoise(Objective):
    diverging: bool

    def loss(self, model, batch, noise, generator):
        shift = torch.rand((), generator=generator)
        if self.diverging and int(batch.labels.max()) == 99:
            shift = shift / 0
        sigma = batch.quantile.float()[:, None] + shift
        return (model(batch.data + sigma * noise) - batch.data).square().mean(1)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 16), nn.SiLU(), nn.Dropout(0.3), nn.Linear(16, 3)
        )
        self.unused = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layers(x)


def train(world, kind, total, file):
    with seeded(7):
        model = Network()
    seed = lambda *purpose: derive_seed(0, *purpose)
    denoise = Denoise(diverging=kind == "diverging")
    context = SimpleNamespace(device=torch.device("cpu"), world=world, seed=seed)
    trainer = Trainer(context, model, denoise, ADAM, AVERAGE, (3,), Compute(micro_batch=6))
    if file.exists():
        tensors, metadata = load(file)
        trainer.restore(tensors, json.loads(metadata["numbers"]))
    data = Batch(torch.randn(100, 3, generator=generator(1)), torch.arange(100))
    shuffle, seeds = Shuffle(), lambda *purpose: generator(0, *purpose)
    stream = PairStream(data, shuffle, shuffle, None, 32, 625, seeds)
    exchange = RankExchange(world.new_group()) if world.size > 1 else LOCAL
    digest, losses, told = hashlib.sha256(), [], ""
    try:
        for batch, noise, found in stream.batches(12, trainer.images, exchange=exchange):
            for tensor in (batch.data, batch.labels, batch.quantile, noise):
                digest.update(tensor.numpy().tobytes())
            trainer.step(batch, noise)
            losses.append(trainer.mean_loss())
            if trainer.images >= total:
                break
        tensors, numbers = trainer.state()
        if world.is_main:
            save(file, tensors, {"numbers": json.dumps(numbers)})
    except GenkitError as error:
        told = str(error)
    weights = hashlib.sha256()
    for tensor in [*trainer.model.parameters(), *trainer.average.model.parameters()]:
        weights.update(tensor.detach().numpy().tobytes())
    by_quantile = trainer.by_quantile.sums().tolist()
    return digest.hexdigest(), losses, weights.hexdigest(), told, float(model.calls), by_quantile


kind, total, file = arguments
with join_processes() as world:
    print(json.dumps(train(world, kind, total, Path(file))))
"""

WHOLE = 12 * 52 + 1
"""All 53 steps; the last batch is of one image."""


@pytest.fixture(scope="module")
def run(processes, tmp_path_factory):
    """Returns what each process saw.

    These are the digest of the stream, losses, weights, an error, a buffer, and the losses by
    quantile.
    """
    folder = tmp_path_factory.mktemp("replicas")

    def train(name, size, kind="", total=WHOLE):
        return processes(RANK, size, kind, total, str(folder / f"{name}.safetensors"))

    return train


@pytest.fixture(scope="module")
def alone(run):
    (found,) = run("alone", 1)
    assert len(found[1]) == 53
    return found


@pytest.fixture(scope="module")
def two(run):
    return run("two", 2)


def test_two_processes_take_the_steps_of_one(alone, two):
    for found in two:
        assert found[0] == alone[0]  # items, noise, levels, and who meets whom
        assert found[1] == pytest.approx(alone[1], rel=1e-5)


def test_two_processes_have_the_losses_by_quantile_of_one(alone, two):
    (losses, counts), total = alone[5], WHOLE
    assert sum(counts) == total
    assert sum(losses) == pytest.approx(
        12 * sum(alone[1][:-1]) + alone[1][-1], rel=1e-5
    )  # the last batch is of one image
    for found in two:
        assert found[5][1] == counts
        assert found[5][0] == pytest.approx(losses, rel=1e-4)


def test_every_process_holds_the_same_weights_to_the_bit(two):
    assert two[0] == two[1]


def test_the_same_number_of_processes_gives_the_same_bits(run, two):
    assert run("again", 2) == two


def test_what_one_process_began_two_go_on_with(run, alone):
    run("moved", 1, total=240)
    for found in run("moved", 2, total=360):
        assert found[1] == pytest.approx(alone[1][20:30], rel=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_resumed_processes_end_with_the_bits_of_those_that_never_stopped(run, size):
    whole = run(f"whole-{size}", size, total=120)
    run(f"resumed-{size}", size, total=60)
    resumed = run(f"resumed-{size}", size, total=120)
    assert [found[2] for found in resumed] == [found[2] for found in whole]
    for one, other in zip(resumed, whole, strict=True):
        assert one[5][1] == other[5][1]
        assert one[5][0] == pytest.approx(other[5][0], rel=1e-12)


def test_what_is_not_finite_in_one_process_is_told_in_all(run):
    first, second = run("diverging", 2, "diverging")
    assert first[2:] == second[2:]
    assert first[3].startswith("the loss is nan at ")


def test_the_warm_up_restores_buffers(two):
    # Of each step a process computes one micro-batch, its share being as long.
    assert [found[4] for found in two] == [53, 53]


@pytest.mark.parametrize("count", [1, 2, 7, 96])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_whole_contiguous_and_even(count, size):
    shares = [shard_range(World(rank, size), count) for rank in range(size)]
    assert [item for share in shares for item in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_needs_no_other():
    alone = Replicas(ItemLosses(nn.Linear(1, 1), None, None), World())
    assert not alone.needs_warm_up
    with alone.sync_gradients(last=False):
        assert torch.is_grad_enabled()
