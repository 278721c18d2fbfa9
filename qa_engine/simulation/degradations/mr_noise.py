"""MR noise: complex normal noise in the acquired part of k-space, added before the magnitude (Rician; Gudbjartsson 1995)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.acquired import acquired_limits, band
from qa_engine.measures.tissue import tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage


def noise(image: Tensor, spacing_mm: Tensor, relative: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Rician noise whose standard deviation per channel is `relative` (B,) of the tissue signal of (B,H,W)."""
    mask = tissue_mask(image, modality)
    signal = tissue_signal(image, modality, mask)
    sigma = relative.to(image.dtype) * signal
    support = band(acquired_limits(image), (image.shape[1], image.shape[2]))
    share = support.mean((1, 2), keepdim=True).clamp(min=0.05).sqrt()
    parts = []
    for _ in range(2):
        white = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
        parts.append(torch.fft.ifft2(torch.fft.fft2(white) * support).real / share * sigma[:, None, None])
    lowest = image.amin((1, 2), keepdim=True).clamp(max=0.0)
    noisy = torch.hypot(image - lowest + parts[0], parts[1]) + lowest
    return finish(image, noisy, modality), replace(AddedDamage.none(signal), noise_sd=sigma)
