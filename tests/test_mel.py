"""Tests of spectrograms on the mel scale, against sums that are written out."""

import math

import pytest
import torch

from vaezoo.data.mel import FLOOR, hertz_to_mel, log_mel, mel_filters, mel_to_hertz

RATE, MELS = 8000, 20
LENGTH, HOP = 200, 80


def test_the_mel_scale():
    """1000 Hz are 1000 mel, and the two functions are inverse."""
    frequency = torch.tensor([0.0, 440.0, 1000.0, 4000.0], dtype=torch.float64)
    assert hertz_to_mel(frequency)[2] == pytest.approx(1000, abs=0.02)
    assert torch.allclose(mel_to_hertz(hertz_to_mel(frequency)), frequency)


def test_filters_share_each_frequency():
    """Between the first and the last center, the weights of each frequency sum to 1; a filter is 1 at its center."""
    frequencies = torch.linspace(0, 4000, 4001, dtype=torch.float64)
    filters = mel_filters(MELS, frequencies)
    step = 2595 * math.log10(1 + 4000 / 700) / (MELS + 1)
    centers = [700 * (10 ** (step * (i + 1) / 2595) - 1) for i in range(MELS)]
    inside = (frequencies >= centers[0]) & (frequencies <= centers[-1])
    assert filters[:, inside].sum(0).allclose(torch.ones(int(inside.sum()), dtype=torch.float64))
    for row, center in zip(filters, centers, strict=True):
        assert abs(float(frequencies[row.argmax()]) - center) <= 0.5
    assert filters.min() == 0


def test_energies_are_sums_of_squares():
    """One entry, with the Fourier sum written out."""
    x = torch.randn(2, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = log_mel(x, RATE, MELS)
    assert found.shape == (2, MELS, 1 + (500 - LENGTH) // HOP)
    t = torch.arange(LENGTH, dtype=torch.float64)
    window = x[1, 2 * HOP : 2 * HOP + LENGTH] * (0.5 - 0.5 * torch.cos(2 * math.pi * t / LENGTH))
    energies = []
    for k in range(LENGTH // 2 + 1):
        angle = 2 * math.pi * k * t / LENGTH
        energies.append(float((window * angle.cos()).sum() ** 2 + (window * angle.sin()).sum() ** 2))
    filters = mel_filters(MELS, torch.arange(LENGTH // 2 + 1, dtype=torch.float64) * RATE / LENGTH)
    expected = (filters @ torch.tensor(energies, dtype=torch.float64)).log()
    assert found[1, :, 2].double().allclose(expected, atol=1e-5)


def test_tones_loudness_and_silence():
    """A tone is in the band around its frequency; twice as loud adds 2 log 2; silence has the floor."""
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(800) / RATE)[None]
    found = log_mel(tone, RATE, MELS)
    step = 2595 * math.log10(1 + 4000 / 700) / (MELS + 1)
    assert found[0, :, 1].argmax() == round(1000 / step) - 1
    noise = torch.randn(1, 800, generator=torch.Generator().manual_seed(0))
    louder = log_mel(2 * noise, RATE, MELS) - log_mel(noise, RATE, MELS)
    assert louder.allclose(torch.tensor(2 * math.log(2)), atol=1e-4)
    assert log_mel(0 * tone, RATE, MELS).allclose(torch.tensor(math.log(FLOOR)))
