"""Randomness without state: a draw depends on what it is for, and on nothing else."""

from __future__ import annotations

import contextlib
import itertools

import torch

from genkit.random import PerSample, derive_seed, generator, seeded

PURPOSES = [
    (),
    ("",),
    ("a",),
    ("b",),
    ("a", 1),
    ("a", "1"),
    ("a", 2),
    ("a", "b"),
    ("ab",),
    ("b", "a"),
    ("a", 1, 2),
    ("a", 12),
    (1, "a"),
]


def test_a_seed_is_a_pure_function_that_no_version_changes():
    assert derive_seed(0, "denoiser", "noise", 17) == derive_seed(0, "denoiser", "noise", 17)
    assert derive_seed(0) == 4761921975702974394
    assert derive_seed(7, "denoiser", "noise", 17) == 5104765347237038443


def test_other_purposes_have_other_seeds():
    seeds = [derive_seed(seed, *purpose) for seed in (0, 1, 10) for purpose in PURPOSES]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_other_purposes_are_independent():
    drawn = torch.stack([torch.randn(1000, generator=generator(0, "noise", k)) for k in range(20)])
    correlation = torch.corrcoef(drawn) - torch.eye(20)
    assert correlation.abs().max() < 5 / 1000**0.5


def test_seeding_restores_the_global_generator():
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    with seeded(5):
        inside = torch.randn(4)
    assert torch.equal(torch.randn(4), expected)
    with seeded(5):
        assert torch.equal(torch.randn(4), inside)


def test_seeding_restores_the_global_generator_after_an_error():
    before = torch.random.get_rng_state()
    with contextlib.suppress(ZeroDivisionError), seeded(5):
        torch.randn(4)
        raise ZeroDivisionError
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_noise_of_a_sample_depends_on_its_index_alone():
    whole = PerSample(0, ("latent",), range(6))
    rounds = [whole.draw((2, 3)), whole.draw((2, 3))]
    assert not torch.equal(*rounds)
    for indices in ([4], [5, 0], [1, 2, 3]):
        part = PerSample(0, ("latent",), indices)
        for expected in rounds:
            assert torch.equal(part.draw((2, 3)), expected[indices])


def test_no_two_samples_share_their_noise():
    rows = [
        *PerSample(0, ("latent",), range(4)).draw((3,)),
        *PerSample(0, ("churn",), range(4)).draw((3,)),
        *PerSample(1, ("latent",), range(4)).draw((3,)),
    ]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(rows, 2))


def test_noise_like_a_state_has_its_shape_and_type():
    x = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    noise = PerSample(0, ("churn",), [3, 8]).randn_like(x)
    assert (noise.shape, noise.dtype, noise.device) == (x.shape, x.dtype, x.device)
