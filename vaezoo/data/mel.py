"""Spectrograms of sounds on the mel scale."""

import torch
from torch import Tensor

WINDOW, HOP = 0.025, 0.01  # length of a window and distance between two of them, in seconds
FLOOR = 1e-10  # the least energy; silence has its logarithm


def hertz_to_mel(frequency: Tensor) -> Tensor:
    """Return 2595 log10(1 + f / 700) of frequencies f in hertz."""
    return 2595 * torch.log10(1 + frequency / 700)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """Return the frequencies, in hertz, of points on the mel scale."""
    return 700 * (10 ** (mel / 2595) - 1)


def mel_filters(num_mels: int, frequencies: Tensor) -> Tensor:
    """Return triangular filters, (num_mels, F), which rise from 0 to 1 and fall to 0 between their neighbors' centers.

    The centers are equally spaced on the mel scale between 0 and the largest frequency.

    Args:
        num_mels: number of filters.
        frequencies: frequencies of the spectrum, in hertz, ascending from 0, (F,).
    """
    points = mel_to_hertz(torch.linspace(0, float(hertz_to_mel(frequencies[-1])), num_mels + 2, dtype=torch.float64))
    left, center, right = (points[start : start + num_mels, None] for start in range(3))
    rising, falling = (frequencies - left) / (center - left), (right - frequencies) / (right - center)
    return torch.minimum(rising, falling).clamp(min=0)


def log_mel(frames: Tensor, rate: int, num_mels: int) -> Tensor:
    """Return the logarithm of the energies in bands of the mel scale, float32 (N, num_mels, steps).

    Each window of 25 ms, every 10 ms, is multiplied by a Hann window; the squared magnitudes of its Fourier transform
    are summed with triangular weights (``mel_filters``). Energies below 1e-10 count as 1e-10.

    Reference: Davis & Mermelstein 1980, Comparison of Parametric Representations for Monosyllabic Word Recognition in
    Continuously Spoken Sentences, https://doi.org/10.1109/TASSP.1980.1163420.

    Args:
        frames: sounds, (N, T); T must be at least one window.
        rate: samples per second.
        num_mels: number of bands.
    """
    length, hop = round(WINDOW * rate), round(HOP * rate)
    windows = frames.double().unfold(1, length, hop) * torch.hann_window(length, dtype=torch.float64)
    energies = torch.fft.rfft(windows).abs().square()  # (N, steps, F)
    frequencies = torch.fft.rfftfreq(length, 1 / rate, dtype=torch.float64)
    return (energies @ mel_filters(num_mels, frequencies).T).clamp(min=FLOOR).log().movedim(-1, 1).float()
