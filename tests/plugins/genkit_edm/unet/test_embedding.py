from __future__ import annotations

import math

import torch

from genkit_edm.unet.conditioning import FourierEmbedding, OctaveEmbedding, PositionalEmbedding

C_NOISE = torch.tensor([0.0, -1.3, 2.0])


def test_positional_frequencies_fall_from_1_to_a_ten_thousandth() -> None:
    with_end = PositionalEmbedding(16, endpoint=True).frequencies
    without = PositionalEmbedding(16, endpoint=False).frequencies
    torch.testing.assert_close(with_end, torch.logspace(0, -4, 8))
    torch.testing.assert_close(without, torch.logspace(0, -4, 9)[:-1])


def test_waves_are_sines_then_cosines() -> None:
    embedding = PositionalEmbedding(4, endpoint=True)
    phase = C_NOISE[:, None] * torch.tensor([1.0, 1e-4])
    torch.testing.assert_close(embedding(C_NOISE), torch.cat([phase.sin(), phase.cos()], dim=1))


def test_fourier_frequencies_are_normal_with_their_scale() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embedding = FourierEmbedding(20_000)
    assert abs(float(embedding.freqs.std()) / 16 - 1) < 0.03
    assert abs(float(embedding.freqs.mean())) < 0.6
    phase = C_NOISE.double()[:, None] * embedding.freqs.double() * 2 * math.pi
    expected = torch.cat([phase.sin(), phase.cos()], dim=1)
    torch.testing.assert_close(embedding(C_NOISE).double(), expected, rtol=0, atol=1e-3)


def test_octaves_are_spaced_geometrically() -> None:
    frequencies = OctaveEmbedding(8).frequencies
    torch.testing.assert_close(frequencies, 2 * math.pi * torch.tensor([1 / 8, 1 / 2, 2, 8]))


def test_an_odd_width_is_rounded_down() -> None:
    for made in (PositionalEmbedding(7, endpoint=True), FourierEmbedding(7), OctaveEmbedding(7)):
        assert made.width == 6
        assert made(C_NOISE).shape == (3, 6)
