from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn

from genkit import tensors
from genkit.errors import Code, DataError, SettingError
from genkit.parts.power_averages import (
    Snapshot,
    coefficients,
    profile_error,
    reconstruct,
    reconstruct_network,
    snapshots_in,
)
from genkit.parts.power_profile import MAX_LENGTH, decay, exponent, overlap
from genkit_optim.power_ema import PowerEma
from raising import raises_code


class Net(nn.Module):
    def __init__(self, width=200):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))
        self.other = nn.Parameter(torch.randn(3, 5))
        self.register_buffer("counted", torch.tensor(0))


def averages(model: nn.Module, lengths):
    return PowerEma(lengths=tuple(lengths)).build(model)


def wander(model: Net, generator: torch.Generator) -> None:
    """Move the weights as training does: towards something, and noisily."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=generator)).mul_(0.998)
        model.counted += 1


def trained(folder, lengths=(0.05, 0.1), extra=(), steps=2000, batch=32, every=100):
    """Train for a while; return the network and every average, tracked in the same way."""
    generator = torch.Generator().manual_seed(1)
    model = Net()
    ema, direct = averages(model, lengths), averages(model, (*lengths, *extra))
    for step in range(steps):
        wander(model, generator)
        ema.update(model, step * batch, batch)
        direct.update(model, step * batch, batch)
        if (step + 1) % every == 0:
            ema.snapshot(folder, (step + 1) * batch)
    return model, direct.state()


def profile(tau, images, gamma):
    return (gamma + 1) * tau**gamma / images ** (gamma + 1) if tau <= images else 0.0


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.28, MAX_LENGTH])
def test_the_profile_has_the_relative_length(length):
    gamma = exponent(length)
    mean, _ = quad(lambda t: t * profile(t, 1.0, gamma), 0, 1)
    second, _ = quad(lambda t: t * t * profile(t, 1.0, gamma), 0, 1)
    assert np.sqrt(second - mean**2) == pytest.approx(length, rel=1e-6)


def test_exponents_of_the_paper():
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)
    assert exponent(MAX_LENGTH) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.29, float("nan")])
def test_a_length_out_of_range_is_refused(length):
    with raises_code(DataError, Code.OUT_OF_RANGE):
        exponent(length)
    with pytest.raises((DataError, SettingError)):
        averages(Net(), [length])


def test_overlaps_are_the_integrals():
    cases = [(1.0, 17.0, 1.0, 7.0), (0.4, 17.0, 1.0, 7.0), (1.0, 3.0, 0.3, 16.97), (2, 5, 2, 5)]
    for t, gamma, u, delta in cases:
        expected, _ = quad(
            lambda tau, t=t, gamma=gamma, u=u, delta=delta: (
                profile(tau, t, gamma) * profile(tau, u, delta)
            ),
            0,
            min(t, u),
            epsabs=1e-13,
        )
        assert overlap(t, gamma, u, delta) == pytest.approx(expected, rel=1e-9)
        assert overlap(u, delta, t, gamma) == pytest.approx(expected, rel=1e-9)


def test_the_first_batch_is_followed_at_once():
    model = Net()
    ema = averages(model, [0.1])
    wander(model, torch.Generator().manual_seed(0))
    ema.update(model, 0, 64)
    assert torch.equal(ema.state()["0.1:weight"], model.weight)


def test_updates_weigh_every_step_by_the_profile():
    # One weight that is 1 after a single step: its average is that step's part of the profile.
    length, steps, batch = 0.1, 400, 8
    model = Net(1)
    ema = averages(model, [length])
    for step in range(steps):
        with torch.no_grad():
            model.weight.fill_(float(step == 300))
        ema.update(model, step * batch, batch)
    gamma = exponent(length)
    # The profile's integral over the step.
    share = (301 / steps) ** (gamma + 1) - (300 / steps) ** (gamma + 1)
    assert float(ema.state()["0.1:weight"]) == pytest.approx(share, rel=1e-4)


def test_decay_does_not_depend_on_the_size_of_batches():
    gamma = exponent(0.05)
    one = decay(gamma, 960, 64)
    assert decay(gamma, 960, 32) * decay(gamma, 992, 32) == pytest.approx(one, rel=1e-12)


def test_going_on_from_a_state_gives_the_same_bits():
    generator = torch.Generator().manual_seed(3)
    model = Net()
    ema = averages(model, [0.05, 0.1])
    for step in range(5):
        wander(model, generator)
        ema.update(model, 8 * step, 8)
    kept = {name: tensor.clone() for name, tensor in ema.state().items()}
    again = averages(Net(), [0.05, 0.1])
    again.restore(kept)
    wander(model, generator)
    for average in (ema, again):
        average.update(model, 40, 8)
    assert all(torch.equal(t, again.state()[name]) for name, t in ema.state().items())
    assert not torch.equal(kept["0.05:weight"], ema.state()["0.05:weight"])
    with pytest.raises(KeyError):
        averages(Net(), [0.07]).restore(kept)


@pytest.mark.parametrize(
    ("lengths", "keys"), [((), [()]), ((0.1, 0.9), [(1,)]), ((0.1, 0.1, 0.05), [(1,)])]
)
def test_lengths_are_some_in_range_and_different(lengths, keys):
    problems = PowerEma(lengths=lengths).check({})
    assert [problem.key for problem in problems] == [("lengths", *key) for key in keys]


def test_lengths_that_were_not_tracked_are_reconstructed(tmp_path):
    wanted = (0.06, 0.08, 0.12)
    model, direct = trained(tmp_path, extra=wanted)
    assert len(list(tmp_path.iterdir())) == 40
    for length in wanted:
        found, _ = reconstruct_network(tmp_path, length)
        assert found.keys() == model.state_dict().keys()
        assert int(found["counted"]) == 2000
        average = direct[f"{length}:weight"]
        error = (found["weight"] - average).norm() / average.norm()
        # float16 rounds by 2e-4; the neighbouring averages and the weights are far away.
        assert error < 1e-3
        assert (direct["0.1:weight"] - average).norm() / average.norm() > 0.02
        assert (model.weight - average).norm() / average.norm() > 0.1


def test_a_length_that_was_tracked_is_found_as_it_was_written(tmp_path):
    _, direct = trained(tmp_path)
    for length in (0.05, 0.1):
        found, error = reconstruct_network(tmp_path, length)
        assert error < 1e-6
        assert torch.allclose(found["weight"], direct[f"{length}:weight"].half().float(), rtol=1e-6)
        shares = coefficients(snapshots_in(tmp_path), length, 64_000)
        assert shares.max() == pytest.approx(1.0, abs=1e-9)
        assert np.abs(shares).sum() == pytest.approx(1.0, abs=1e-8)


def test_an_average_that_ends_earlier(tmp_path):
    trained(tmp_path, steps=400)
    early, _ = reconstruct(snapshots_in(tmp_path), 0.05, 6_400)
    written, _ = tensors.load(tmp_path / "ema-0.05-00000006400.safetensors")
    assert torch.allclose(early["weight"], written["averaged.weight"].float(), rtol=1e-6)
    assert int(early["counted"]) == 200


@pytest.mark.parametrize("length", [0.001, 0.03, 0.08, 0.12, 0.25])
@pytest.mark.parametrize("count", [1, 4])
def test_the_error_of_a_combination_is_that_of_its_profile(count, length):
    """Against profiles on a fine grid of times."""
    snapshots = [Snapshot(None, s, 1000 * (k + 1)) for k in range(count) for s in (0.05, 0.1)]
    end = 1000 * count
    shares = coefficients(snapshots, length, end)
    times = (np.arange(2_000_000) + 0.5) / 2_000_000 * end

    def profile(length, images):
        gamma = exponent(length)
        powers = (gamma + 1) * (times / images) ** gamma / images
        return np.where(times <= images, powers, 0.0)

    combined = sum(c * profile(s.length, s.images) for c, s in zip(shares, snapshots, strict=True))
    wanted = profile(length, end)
    expected = np.linalg.norm(combined - wanted) / np.linalg.norm(wanted)
    assert profile_error(snapshots, shares, length, end) == pytest.approx(expected, rel=1e-3)


def test_a_length_that_snapshots_do_not_represent_is_refused(tmp_path):
    averages(Net(), [0.05]).snapshot(tmp_path, 10)
    with raises_code(DataError, Code.DATA, "0.1", "0.05", "69%"):
        reconstruct_network(tmp_path, 0.1)
    _, error = reconstruct_network(tmp_path, 0.06)
    assert error == pytest.approx(0.16, abs=0.02)


def test_combinations_sum_to_one():
    for count in (1, 3, 64):
        snapshots = [
            Snapshot(None, length, 1000 * (k + 1)) for k in range(count) for length in (0.05, 0.1)
        ]
        for length in (0.03, 0.08, 0.25):
            assert coefficients(snapshots, length, 1000 * count).sum() == pytest.approx(1.0)


def test_weights_beyond_float16_are_kept(tmp_path):
    model = Net()
    with torch.no_grad():
        model.weight[0] = 1e6
    averages(model, [0.1]).snapshot(tmp_path, 10)
    found, _ = reconstruct_network(tmp_path, 0.1)
    assert torch.equal(found["weight"], model.weight)


def test_errors(tmp_path):
    (tmp_path / "denoiser.safetensors").write_bytes(b"")
    with raises_code(DataError, Code.DATA, "power-ema"):
        reconstruct_network(tmp_path, 0.1)
    with raises_code(DataError, Code.DATA, "5 images"):
        reconstruct([], 0.1, 5)
    model = Net(4)
    averages(model, [0.1]).snapshot(tmp_path, 10)
    with raises_code(DataError, Code.DATA, "5 images", "10 images"):
        reconstruct(snapshots_in(tmp_path), 0.1, 5)
    with raises_code(DataError, Code.OUT_OF_RANGE):
        reconstruct_network(tmp_path, 0.3)
    other = Net(5)
    averages(other, [0.05]).snapshot(tmp_path, 20)
    with raises_code(DataError, Code.CONFLICT, "averaged.weight", "(5,)", "(4,)"):
        reconstruct_network(tmp_path, 0.1)
    (tmp_path / "ema-0.05-00000000020.safetensors").write_bytes(b"no")
    with raises_code(DataError, Code.UNREADABLE):
        reconstruct_network(tmp_path, 0.1)
