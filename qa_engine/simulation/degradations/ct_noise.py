"""CT quantum noise with the slice's own texture, stronger where the rays are attenuated most (Yu 2012, Zeng 2015: variance ~ exp(path)).

The noise is made in the image domain from the spectrum that the slice's own noise has, so that inserted and own noise look alike; its
local strength follows the mean attenuation of the rays through each point, taken from the slice itself.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.tissue import rms, smooth, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.texture import own_texture

WATER_PER_MM = 0.0192
"""Linear attenuation of water near 70 keV, 1/mm."""
STRONGEST = 2.0
"""Largest ratio of local to mean noise: a bow-tie filter and tube-current modulation even out the rest."""


def local_strength(image: Tensor, spacing_mm: Tensor) -> Tensor:
    """Relative noise level (B,H,W), mean 1 over the body: square root of exp(path) over rows, columns and their mean."""
    mu = (WATER_PER_MM * (1.0 + image / 1000.0)).clamp(min=0.0)
    across = (mu.sum(2, keepdim=True) * spacing_mm[:, 1, None, None]).clamp(max=8.0)
    down = (mu.sum(1, keepdim=True) * spacing_mm[:, 0, None, None]).clamp(max=8.0)
    strength = (0.5 * (torch.exp(across) + torch.exp(down))).sqrt()
    size = 2 * (min(image.shape[1:]) // 16) + 1
    strength = smooth(strength, size)
    body = (image > -700).to(image.dtype)
    mean = (strength * body).sum((1, 2), keepdim=True) / body.sum((1, 2), keepdim=True).clamp(min=1)
    return (strength / mean.clamp(min=1e-6)).clamp(1.0 / STRONGEST, STRONGEST)


def noise(image: Tensor, spacing_mm: Tensor, noise_hu: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Add noise of standard deviation `noise_hu` (B,) HU inside tissue to (B,H,W) HU."""
    mask = tissue_mask(image, modality)
    white = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    textured = torch.fft.irfft2(torch.fft.rfft2(white) * own_texture(image, mask, spacing_mm), s=image.shape[1:])
    textured = textured * local_strength(image, spacing_mm)
    textured = textured / rms(textured, mask).clamp(min=1e-6)[:, None, None]
    added = noise_hu.to(image.dtype)
    damage = replace(AddedDamage.none(tissue_signal(image, modality, mask)), noise_sd=added)
    return finish(image, image + added[:, None, None] * textured, modality), damage
