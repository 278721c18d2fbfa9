"""CT low dose by noise insertion in the projections (Yu 2012, Zabic 2013; counts as in Zeng 2015), back-projected with the slice's own kernel.

The number of photons is not in a DICOM header: it is chosen so that the noise which it makes at full dose is the noise of the slice. Counts are
drawn at the share a of the dose, a Poisson and an electronic part, and what they say beyond full dose is the noise that is added; with many
photons this is the published variance (1-a)/a 1/N (1 + (1+a)/a sigma^2/N), with few the logarithm of near-zero counts streaks as in a scanner.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qa_engine.measures.tissue import masked_quantile, rms, tissue_mask, tissue_signal
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.ct_noise import WATER_PER_MM
from qa_engine.simulation.degradations.ct_rays import from_grid, rays, to_grid
from qa_engine.simulation.degradations.damage import AddedDamage
from qa_engine.simulation.degradations.own_noise import own_noise
from qa_engine.simulation.degradations.texture import FAMILY, own_member

COARSE, VIEWS = 192, 512
ELECTRONIC = 10.0
"""Standard deviation of the electronic noise, photons (model range 3 to 30)."""
LONGEST_PATH = 9.0
"""Largest attenuation of a ray, nepers."""
LEAST_NOISE_HU = 4.0
MODULATION = 0.5
"""Largest exponent of the tube current's answer to the attenuation of a view; 0.5 is the optimum of Gies 1999."""


def paths(image: Tensor, spacing_mm: Tensor) -> Tensor:
    """Attenuation (B, VIEWS, 2 COARSE) in nepers of the rays through (B,H,W) HU."""
    fan = rays(COARSE, VIEWS, 2 * COARSE, str(image.device))
    pixel = (spacing_mm.to(image.device).amax(1) * max(image.shape[1:]) / COARSE)[:, None, None]
    return (fan.samples(fan.project(to_grid(image, COARSE))) * pixel * WATER_PER_MM).clamp(0, LONGEST_PATH)


def own_kernel(member: Tensor, length: int) -> Tensor:
    """Filter (B, length//2+1) of filtered back-projection whose noise has the textures `member` (B,): ramp times roll-off."""
    relative = torch.fft.rfftfreq(length, device=member.device)[None] / 0.5
    family = torch.tensor(FAMILY, device=member.device)[member]
    inside = (relative / family[:, :1]).clamp(max=1.0)
    return 0.5 * relative * torch.cos(0.5 * torch.pi * inside).clamp(min=0).pow(family[:, 1:]) * (relative < family[:, :1])


def photons(path: Tensor, kernel: Tensor, gain: Tensor, noise_hu: Tensor, mask: Tensor, shape: tuple[int, int]) -> Tensor:
    """Photons (B,1,1) per ray in air that make `noise_hu` in the middle of what is inside `mask`, electronic noise included; `gain` (B,1,1): HU
    per neper and pixel."""
    coarse = rays(COARSE, VIEWS, 2 * COARSE, str(path.device))
    count = torch.full_like(kernel, 2.0)
    count[:, 0] = count[:, -1] = 1.0
    energy = (kernel.square() * count).mean(1) / 2  # of one filtered sample of unit variance

    def variance(rays_variance: Tensor) -> Tensor:
        spread = from_grid(coarse.back_project(coarse.spectra(rays_variance)), shape) * (torch.pi / VIEWS)
        return masked_quantile(spread, mask, 0.5) * energy * gain[:, 0, 0].square()

    quantum, electronic = variance(torch.exp(path)), variance(torch.exp(2 * path)) * ELECTRONIC ** 2
    wanted = noise_hu.square().clamp(min=1e-6)
    inverse = 2 * wanted / (quantum + (quantum.square() + 4 * electronic * wanted).sqrt())
    return (1 / inverse)[:, None, None]


def less_dose(full: Tensor, a: Tensor, generator: torch.Generator) -> Tensor:
    """Noise in nepers that a share `a` of the dose has beyond rays of `full` (B,views,L) photons: the part of its variance that is new."""
    counts = torch.poisson(a * full, generator=generator) + ELECTRONIC * torch.randn(full.shape, generator=generator, device=full.device)
    seen = -torch.log(counts.clamp(min=1.0) / (a * full))
    whole, share = 1 / full + (ELECTRONIC / full).square(), 1 / (a * full) + (ELECTRONIC / (a * full)).square()
    return seen * (1 - whole / share).clamp(min=0).sqrt()


def dose(image: Tensor, spacing_mm: Tensor, fraction: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """(B,H,W) HU at `fraction` (B,), above 0 and at most 1, of the dose that it was taken with; reports the noise that was added."""
    mask, shape, side = tissue_mask(image, modality), tuple(image.shape[1:]), max(image.shape[1:])
    side += side % 2
    path = paths(image, spacing_mm)
    answer = MODULATION * torch.rand((len(image), 1, 1), generator=generator, device=image.device)
    hardest = path.amax(2, keepdim=True)
    path = path - answer * (hardest - hardest.mean(1, keepdim=True))  # more current where the body is thick
    member = own_member(image, mask)
    kernel = own_kernel(member, side)
    gain = 1000.0 / (WATER_PER_MM * spacing_mm.to(image.device).amax(1))[:, None, None]
    own = own_noise(image, mask, spacing_mm, member).clamp(min=LEAST_NOISE_HU)
    full = photons(path, kernel, gain, own, mask, shape) * torch.exp(-path)
    full = torch.nn.functional.interpolate(full[:, :, COARSE // 2:3 * COARSE // 2], size=side, mode="linear", align_corners=False)
    added = less_dose(full, fraction.to(image.dtype)[:, None, None].clamp(1e-3, 1.0), generator)
    fan = rays(side, VIEWS, side, str(image.device))
    noise = fan.back_project(fan.spectra(added) * kernel[:, None]) * gain
    noise = from_grid(noise, shape)
    damage = replace(AddedDamage.none(tissue_signal(image, modality, mask)), noise_sd=rms(noise, mask))
    return finish(image, image + noise, modality), damage
