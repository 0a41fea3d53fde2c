"""What samples cost: arithmetic in closed form, calls of each network, and what is not counted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genkit.artifacts import Samples
from genkit.costs import CostMeter
from genkit.interfaces import BoundGuidance, SamplingStage
from genkit.latents import Derived
from genkit.sample import sample
from genkit.settings import setting
from genkit.types import Batch
from genkit.world import SINGLE_PROCESS
from toy_sampling import Euler, Halving

CPU = torch.device("cpu")
SIZE, HIDDEN = 6, 5
CALL = 2 * SIZE**2
"""Operations of a call of the denoiser, for an item."""
JUDGED = 2 * (2 * SIZE * HIDDEN + 2 * HIDDEN)
"""Operations of a logit and its gradient with respect to the item."""


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(SIZE) / 2, requires_grad=False)

    def forward(self, x, sigma, labels):
        return x @ self.weight


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Parameter(torch.ones(SIZE, HIDDEN), requires_grad=False)
        self.last = nn.Parameter(torch.ones(HIDDEN, 1), requires_grad=False)

    def forward(self, x, sigma, labels):
        return torch.tanh(x @ self.hidden) @ self.last


class Gradient(BoundGuidance):
    """The gradient of a logit, for noise levels above 0.3."""

    def __init__(self, judge):
        self.judge = judge

    def correction(self, x, sigma, labels, denoised, *, inner=False):
        if sigma[0] < 0.3:
            return torch.zeros_like(x)
        self.evaluations += 1
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.judge(point, sigma, labels).sum(), point)
        return gradient * 1e-3


@dataclass
class Place:
    """A context as far as drawing needs it."""

    folder: object
    networks: dict = field(default_factory=lambda: {"denoiser": Linear(), "judge": Judge()})
    device = CPU
    world = SINGLE_PROCESS
    shown: list = field(default_factory=list)

    def __post_init__(self):
        self.record = SimpleNamespace(picture=lambda *_: self.shown.append("picture"))

    def network(self, stage):
        return SimpleNamespace(module=self.networks[stage])

    def advance(self, *position):
        self.shown.append(position)

    def warn(self, text):
        self.shown.append(text)

    def stop_requested(self):
        self.shown.append("stop?")
        return True


@dataclass(frozen=True, kw_only=True)
class Drawing(SamplingStage):
    steps: int = setting(4, doc="steps")
    guided: bool = setting(True, doc="whether the judge guides")

    def draw(self, context):
        context.advance(0, self.count, "samples")
        context.warn("drawing")
        context.record.picture("samples", b"")
        if context.stop_requested():
            raise KeyboardInterrupt
        denoiser = context.network("denoiser").module
        guidance = [Gradient(context.network("judge").module)] if self.guided else []
        drawn = sample(
            denoiser,
            Derived().draw((SIZE,), range(self.count), 0, context.device, 0),
            schedule=Halving(steps=self.steps),
            solver=Euler(),
            guidance=guidance,
        )
        batch = drawn.batch.with_data(drawn.batch.data.float())
        return Samples(batch, drawn.nfe, drawn.guidance_nfe, "denoiser")

    def run(self, context):
        raise NotImplementedError


def drawn(count=3, nfe=4, guidance_nfe=2):
    return Samples(Batch(torch.zeros(count, SIZE)), nfe, guidance_nfe, "denoiser")


def test_arithmetic_is_that_of_all_networks_and_of_gradients(tmp_path):
    cost = CostMeter(Drawing(), Place(tmp_path)).cost(drawn())
    assert cost.notes == ()
    assert cost.calls == {"denoiser": 4, "judge": 2}
    assert cost.gflop_per_call * 1e9 == pytest.approx(CALL)
    assert cost.gflop_per_image * 1e9 == pytest.approx(4 * CALL + 2 * JUDGED)
    assert cost.nfe_equivalents == pytest.approx(4 + 2 * JUDGED / CALL)
    assert cost.notes == ()


def test_without_guidance_equivalents_are_calls(tmp_path):
    cost = CostMeter(Drawing(guided=False), Place(tmp_path)).cost(drawn(guidance_nfe=0))
    assert (cost.nfe_equivalents, cost.calls) == (4, {"denoiser": 4})


def test_arithmetic_follows_the_mean_of_the_calls(tmp_path):
    """A solver that chooses its steps takes others in other batches."""
    cost = CostMeter(Drawing(), Place(tmp_path)).cost(drawn(nfe=6.5, guidance_nfe=3))
    assert cost.calls == {"denoiser": 6.5, "judge": 3}
    assert cost.gflop_per_image * 1e9 == pytest.approx(6.5 * CALL + 3 * JUDGED)


def test_calls_that_the_counted_sample_has_not_are_unknown(tmp_path):
    cost = CostMeter(Drawing(guided=False), Place(tmp_path)).cost(drawn(guidance_nfe=3))
    assert (cost.calls, cost.nfe_equivalents, cost.gflop_per_image) == ({}, None, None)
    assert cost.notes


def test_counting_leaves_everything_as_it_is(tmp_path):
    place, state = Place(tmp_path), torch.get_rng_state()
    CostMeter(Drawing(), place)
    assert place.shown == []
    assert torch.equal(torch.get_rng_state(), state)
    for module in place.networks.values():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert list(tmp_path.iterdir()) == []


def test_another_rank_counts_nothing(tmp_path):
    place = Place(tmp_path, networks={})
    place.world = SimpleNamespace(is_main=False, size=2)
    assert CostMeter(Drawing(), place).cost(drawn()).notes == ()


class Elementwise(Linear):
    def forward(self, x, sigma, labels):
        return x / 2


class Foreign(Linear):
    def forward(self, x, sigma, labels):
        return torch.ops.genkit_costs.halved(x) @ self.weight


class Broken(Linear):
    def forward(self, x, sigma, labels):
        raise ZeroDivisionError("broken")


@pytest.fixture
def foreign():
    library = torch.library.Library("genkit_costs", "DEF")
    library.define("halved(Tensor x) -> Tensor")
    library.impl("halved", lambda x: x / 2, "CPU")
    yield
    library._destroy()


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize(
    ("network", "counted", "note"),
    [
        (Elementwise, False, "of any operator"),
        (Foreign, True, "genkit_costs::halved"),
        (Broken, False, "ZeroDivisionError: broken"),
    ],
)
def test_what_cannot_be_counted_is_noted(tmp_path, network, counted, note):
    place = Place(tmp_path, networks={"denoiser": network()})
    cost = CostMeter(Drawing(guided=False), place).cost(drawn(guidance_nfe=0))
    assert (cost.gflop_per_image is not None, cost.nfe_equivalents is not None) == (counted,) * 2
    assert note in cost.notes[0]
    assert len(cost.notes) == 1


def test_a_denoiser_that_is_not_a_stage_has_no_equivalents(tmp_path):
    samples = replace(drawn(), denoiser=None)

    @dataclass(frozen=True, kw_only=True)
    class Elsewhere(Drawing):
        def draw(self, context):
            return replace(super().draw(context), denoiser=None)

    cost = CostMeter(Elsewhere(), Place(tmp_path)).cost(samples)
    assert cost.gflop_per_image * 1e9 == pytest.approx(4 * CALL + 2 * JUDGED)
    assert (cost.gflop_per_call, cost.nfe_equivalents) == (None, None)
    assert "one call of the denoiser" in cost.notes[0]


def test_seconds_are_of_the_samples_that_were_timed(tmp_path):
    meter = CostMeter(Drawing(), Place(tmp_path))
    assert meter.cost(drawn(8)).seconds_per_image is None
    with meter.drawing(3):
        torch.ones(4).sum()
    with meter.drawing(2):
        torch.ones(4).sum()
    cost = meter.cost(drawn(8))
    assert (cost.images, cost.images_timed, cost.batch_size) == (8, 5, None)
    assert cost.seconds_per_image > 0
    assert cost.device.startswith("cpu, ")
    assert cost.threads == torch.get_num_threads()


def test_processes_add_their_seconds_and_samples(tmp_path):
    place = Place(tmp_path)
    place.world = SimpleNamespace(is_main=True, size=2, all_gather=lambda mine: [mine, (100.0, 3)])
    meter = CostMeter(Drawing(), place)
    with meter.drawing(1):
        pass
    meter.gather()
    cost = meter.cost(drawn())
    assert (cost.images_timed, cost.processes) == (4, 2)
    assert cost.seconds_per_image == pytest.approx(25, rel=0.1)
