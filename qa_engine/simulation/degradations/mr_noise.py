"""MR noise: complex normal noise in the acquired part of k-space, added before the magnitude.

One coil is Rician (Gudbjartsson 1995); L coils with sum of squares are non-central chi of 2 L degrees (Constantinides 1997), with parallel
imaging stronger where the coils overlap (Pruessmann 1999); at low field the signal falls as B0 to the 0.97 (0.55 to 3 T) and the noise rises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.acquired import acquired_limits, band
from qa_engine.measures.noise import acquired_noise
from qa_engine.measures.tissue import rms, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.mr_kspace import base

FIELD_EXPONENT = 0.97
LEAST_NOISE = 0.003
"""Noise over tissue signal that every slice is taken to have, denoised ones too."""
COILS = (2, 4, 8)
LARGEST_G = 2.0


def channel_noise(image: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless real noise fields (B,H,W) of standard deviation 1 inside the acquired band of (B,H,W)."""
    support = band(acquired_limits(image), (image.shape[1], image.shape[2]))
    share = support.mean((1, 2), keepdim=True).clamp(min=0.05).sqrt()
    while True:
        white = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
        yield torch.fft.ifft2(torch.fft.fft2(white) * support).real / share


def _rician(image: Tensor, sigma: Tensor, generator: torch.Generator, modality: str, signal: Tensor) -> tuple[Tensor, AddedDamage]:
    real, imaginary = (sigma[:, None, None] * field for field, _ in zip(channel_noise(image, generator), range(2)))
    noisy = torch.hypot(image - base(image) + real, imaginary) + base(image)
    return finish(image, noisy, modality), replace(AddedDamage.none(signal), noise_sd=sigma)


def noise(image: Tensor, spacing_mm: Tensor, relative: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Rician noise whose standard deviation per channel is `relative` (B,) of the tissue signal of (B,H,W)."""
    signal = tissue_signal(image, modality)
    return _rician(image, relative.to(image.dtype) * signal, generator, modality, signal)


def low_field(image: Tensor, spacing_mm: Tensor, share: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """(B,H,W) at `share` (B,), above 0 and at most 1, of the field strength that it was taken with: noise alone, contrast stays."""
    mask = tissue_mask(image, modality)
    signal = tissue_signal(image, modality, mask)
    own = torch.maximum(acquired_noise(image, mask)[0], LEAST_NOISE * signal)
    sigma = own * (share.to(image.dtype).clamp(0.01, 1.0) ** (-2 * FIELD_EXPONENT) - 1).clamp(min=0).sqrt()
    return _rician(image, sigma, generator, modality, signal)


def coils(image: Tensor, spacing_mm: Tensor, relative: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Noise of 2, 4 or 8 coils, sum of squares, up to a g-factor of 2 in the middle; per channel `relative` (B,) of the tissue signal of (B,H,W)."""
    batch, height, width = image.shape
    mask = tissue_mask(image, modality)
    signal = tissue_signal(image, modality, mask)
    sigma = relative.to(image.dtype) * signal
    draw = torch.rand((2, batch, 1, 1), generator=generator, device=image.device, dtype=image.dtype)
    count = torch.tensor(COILS, device=image.device)[(draw[0] * len(COILS)).long()]
    y = torch.linspace(-1, 1, height, device=image.device)[None, :, None]
    x = torch.linspace(-1, 1, width, device=image.device)[None, None, :]
    g = 1 + (LARGEST_G - 1) * draw[1] * torch.exp(-2.5 * (y * y + x * x))
    level = sigma[:, None, None] * g / rms(g, mask)[:, None, None]
    total = torch.zeros_like(image)
    fields = channel_noise(image, generator)
    for k in range(2 * max(COILS)):
        part = level * next(fields) + (image - base(image) if k == 0 else 0.0)
        total = total + part.square() * (k < 2 * count)
    return finish(image, total.sqrt() + base(image), modality), replace(AddedDamage.none(signal), noise_sd=sigma)
