"""CT metal: discs of titanium or steel whose rays are hardened, starved of photons and clipped (De Man 1999; attenuation: NIST XCOM).

The error of the projections against metal that attenuated by one law is reconstructed and added; the discs are painted at the top of a
12-bit scale. It lies where the discs' shadows cross: dark between two of them, bright and dark rays around.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.tissue import highest, rms, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.ct_hardening import SPECTRUM_WATER, corrected, lengths_mm
from qa_engine.simulation.degradations.ct_rays import from_grid, rays, to_grid
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.patient_ct import SPECTRUM

GRID, VIEWS = 256, 384
METALS = ((0.546, 0.250, 0.122), (1.541, 0.650, 0.293))
"""Attenuation (1/mm) of titanium and steel in the energy bins of SPECTRUM (50, 70, 100 keV)."""
DISCS, RADIUS_MM = 3, (1.5, 9.0)
PHOTONS, ELECTRONIC = 2.0e5, 10.0
"""Per ray of the grid; standard deviation of the electronic noise in photons."""
TOP_HU = 3071.0
RIM = 3.0
"""Pixels of the grid around a disc over which the error sets in."""


def _places(small: Tensor, generator: torch.Generator) -> Tensor:
    """(B,DISCS,2) row and column on the grid: in bone where there is some, else in tissue."""
    size = small.shape[-1]
    weight = (small > 1.3).float() + 1e-3 * ((small > 0.85) & (small < 1.3)).float() + 1e-9
    chosen = torch.multinomial(weight.flatten(1), DISCS, replacement=True, generator=generator)
    return torch.stack([chosen // size, chosen % size], 2).to(small.dtype)


def metal(image: Tensor, spacing_mm: Tensor, rms_hu: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """One to three metal discs; the error is scaled to `rms_hu` (B,) inside the tissue of (B,H,W) HU that is not metal."""
    batch, device, shape = len(image), image.device, tuple(image.shape[1:])
    fan = rays(GRID, VIEWS, 2 * GRID, str(device))
    water, bone, pixel = lengths_mm(image, spacing_mm, fan)
    place = _places(to_grid(image, GRID), generator) - (GRID - 1) / 2
    draw = torch.rand((batch, DISCS + 2), generator=generator, device=device)
    radius = RADIUS_MM[0] * (RADIUS_MM[1] / RADIUS_MM[0]) ** draw[:, :DISCS] / pixel[:, 0]
    radius = radius * (torch.arange(DISCS, device=device)[None] <= (draw[:, DISCS, None] * DISCS).long())
    theta = torch.arange(VIEWS, device=device) * (torch.pi / VIEWS)
    sample = torch.arange(fan.length, device=device) - (fan.length - 1) / 2
    path = torch.zeros_like(water)
    for k in range(DISCS):
        centre = place[:, k, 1, None] * torch.cos(theta) + place[:, k, 0, None] * torch.sin(theta)
        path += 2 * (radius[:, k, None, None].square() - (sample - centre[..., None]).square()).clamp(min=0).sqrt()
    path = path * pixel
    steel = (draw[:, DISCS + 1] < 0.5)[:, None, None]
    intensity, first = torch.zeros_like(path), torch.zeros_like(pixel)
    for (share, mu_water, mu_bone), titanium, iron in zip(SPECTRUM, *METALS, strict=True):
        mu = torch.where(steel, iron, titanium)
        intensity += share * torch.exp(-mu_water * water - mu_bone * bone - mu * path)
        first += share * mu
    without = sum(share * torch.exp(-mu_water * water - mu_bone * bone) for share, mu_water, mu_bone in SPECTRUM)
    counts = torch.poisson(PHOTONS * intensity, generator=generator) + ELECTRONIC * torch.randn(path.shape, generator=generator, device=device)
    value = -torch.log(counts.clamp(min=1.0) / PHOTONS)
    error = (corrected(value) - corrected(-torch.log(without)) - path * first / SPECTRUM_WATER) * (path > 0)
    difference = from_grid(fan.back_project(fan.spectra(error / pixel) * fan.ramp()), shape)
    ratio = max(shape) / GRID
    y = torch.arange(shape[0], device=device)[None, :, None] - (shape[0] - 1) / 2
    x = torch.arange(shape[1], device=device)[None, None, :] - (shape[1] - 1) / 2
    cover, outside = torch.zeros_like(image), torch.ones_like(image)
    for k in range(DISCS):
        distance = torch.hypot(y - place[:, k, 0, None, None] * ratio, x - place[:, k, 1, None, None] * ratio)
        here = radius[:, k, None, None] > 0
        beyond = distance - radius[:, k, None, None] * ratio
        cover = torch.maximum(cover, (0.5 - beyond).clamp(0, 1) * here)
        # the rim of the disc on the coarse grid would be a dark ring of its own
        outside = torch.where(here, torch.minimum(outside, (beyond / (RIM * ratio)).clamp(0, 1)), outside)
    difference = difference * outside
    mask = tissue_mask(image, modality) & (highest(cover, 7) == 0)
    unit = difference / rms(difference, mask).clamp(min=1e-9)[:, None, None]
    added = rms_hu.to(image.dtype)
    result = image + added[:, None, None] * unit
    result = result + cover * (TOP_HU - result)
    return finish(image, result, modality), replace(AddedDamage.none(tissue_signal(image, modality)), artefact=added)
