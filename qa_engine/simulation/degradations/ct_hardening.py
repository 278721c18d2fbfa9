"""CT beam hardening: the spectrum of simulated patients seen by a scanner whose correction is not perfect (Kak and Slaney 1988, 4.1.3).

Water that is corrected only in part cups: dark in the middle. Bone that is corrected as water leaves dark bands between dense bones.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from qa_engine.measures.tissue import tissue_mask
from qa_engine.simulation.degradations.chain import add_scaled
from qa_engine.simulation.degradations.ct_rays import Rays, from_grid, rays, to_grid
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.patient_ct import BONE_HU, SPECTRUM

GRID, VIEWS = 256, 384
LARGEST_MM = 600.0
SPECTRUM_WATER = sum(share * water for share, water, _ in SPECTRUM)
"""Attenuation of the first water, 1/mm."""


def materials(small: Tensor) -> tuple[Tensor, Tensor]:
    """Water-like and bone parts (B,N,N) of a slice relative to water; bone as a share of dense bone."""
    hu = (small - 1.0) * 1000.0
    bone = (hu / BONE_HU).clamp(0, 1.5) * (hu > 200)
    return small.clamp(0, 1.2) * (1 - bone.clamp(max=1)), bone


def seen(water_mm: Tensor, bone_mm: Tensor) -> Tensor:
    """Logarithm of the attenuation that the whole spectrum shows behind so much water and bone."""
    return -torch.log(sum(share * torch.exp(-water * water_mm - bone * bone_mm) for share, water, bone in SPECTRUM))


@functools.lru_cache(maxsize=1)
def water_correction() -> tuple[float, ...]:
    """Coefficients of the powers 1 to 4 of what is seen that give mm of water (Herman 1979)."""
    lengths = torch.linspace(0, LARGEST_MM, 400)
    value = seen(lengths, torch.zeros_like(lengths))
    powers = torch.stack([value ** n for n in range(1, 5)], 1).double()
    return tuple(torch.linalg.lstsq(powers, lengths[:, None].double()).solution[:, 0].tolist())


def corrected(value: Tensor) -> Tensor:
    """Water lengths in mm from what was seen."""
    return sum(c * value ** n for n, c in enumerate(water_correction(), 1))


def lengths_mm(image: Tensor, spacing_mm: Tensor, fan: Rays) -> tuple[Tensor, Tensor, Tensor]:
    """Water and bone lengths (B,views,L) in mm of (B,H,W) HU, and the grid's pixel (B,1,1) in mm."""
    pixel = (spacing_mm.to(image.device).amax(1) * max(image.shape[1:]) / fan.size)[:, None, None]
    water, bone = (fan.samples(fan.project(part)).clamp(min=0) * pixel for part in materials(to_grid(image, fan.size)))
    return water, bone, pixel


def _bend(value: Tensor, length: Tensor) -> Tensor:
    """(B,views,L) without its best proportion to `length`."""
    proportion = (value * length).sum((1, 2), keepdim=True) / length.square().sum((1, 2), keepdim=True).clamp(min=1e-6)
    return value - proportion * length


def cupping(image: Tensor, spacing_mm: Tensor, rms_hu: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Beam hardening of bone and of water that is corrected by a random share, scaled to `rms_hu` (B,) inside tissue of (B,H,W) HU.

    The mean error inside tissue is taken off first: scanners are calibrated.
    """
    fan = rays(GRID, VIEWS, 2 * GRID, str(image.device))
    water, bone, pixel = lengths_mm(image, spacing_mm, fan)
    share = torch.rand((len(image), 1, 1), generator=generator, device=image.device)
    # what bone and uncorrected water show beyond a line through nothing: the line is a matter of calibration, the rest is the artefact
    bone_error = _bend(corrected(seen(water, bone)) - corrected(seen(water, torch.zeros_like(bone))), bone)
    water_error = _bend(seen(water, torch.zeros_like(bone)), water) / SPECTRUM_WATER
    error = fan.spectra((bone_error + share * water_error) / pixel)
    difference = from_grid(fan.back_project(error * fan.ramp()), tuple(image.shape[1:]))
    mask = tissue_mask(image, modality)
    weight = mask.to(image.dtype)
    mean = (difference * weight).sum((1, 2), keepdim=True) / weight.sum((1, 2), keepdim=True).clamp(min=1)
    body = (to_grid(image, GRID) > 0.3).float()
    inside = from_grid(body, tuple(image.shape[1:])).clamp(0, 1)
    return add_scaled(image, (difference - mean) * inside, rms_hu, mask, modality)
