"""CT motion: the slice moves while the tube turns, so that its views do not fit together (Wang and Vannier 1995; model of rigid motion).

A shift is a phase of a view's spectrum, a turn another view: the moved scan is made from the projections of the slice itself, and the
difference to the unmoved scan is added to it. Labelled by image error: the same millimetres do much or nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qa_engine.measures.tissue import highest, rms, tissue_mask
from qa_engine.simulation.degradations.chain import add_scaled
from qa_engine.simulation.degradations.ct_rays import Rays, from_grid, rays, to_grid
from qa_engine.simulation.degradations.damage import AddedDamage

GRID, VIEWS = 256, 384
TRIES = 3
THIN = 7
"""Pixels of the grid."""
LARGEST_MM, LARGEST_TURN = 25.0, math.radians(8.0)


def patient(small: Tensor) -> Tensor:
    """(B,N,N) relative to water without what is thin everywhere: the table stays where it is."""
    inside = (small > 0.4).to(small.dtype)
    thick = highest(-highest(-inside, THIN), THIN)
    return small * highest(thick, THIN)


def courses(batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(B,3,2 VIEWS): course of two shifts and a turn over one rotation, mean 0: a sudden step, a drift, or a rhythm of 1 to 3 cycles."""
    time = torch.linspace(0, 1, 2 * VIEWS, device=device)[None, None]
    draw = torch.rand((batch, 4, 1), generator=generator, device=device)
    step = torch.sigmoid((time - 0.15 - 0.7 * draw[:, 1:2]) / 0.02)
    rhythm = 0.5 * torch.sin(2 * math.pi * ((1 + 2 * draw[:, 2:3]) * time + draw[:, 3:4]))
    shape = torch.where(draw[:, :1] < 0.4, step, torch.where(draw[:, :1] < 0.65, time, rhythm))
    course = shape * torch.randn((batch, 3, 1), generator=generator, device=device)
    return course - course.mean(2, keepdim=True)


def _moved(spectra: Tensor, course: Tensor, start: Tensor, fan: Rays) -> Tensor:
    """Spectra of a full turn of the moving slice, opposite views averaged; `course` (B,3,2 views): pixels, pixels, radians."""
    both = torch.cat([spectra, spectra.conj()], 1)
    views = torch.arange(VIEWS, device=spectra.device)
    frequency = torch.arange(spectra.shape[2], device=spectra.device) / fan.length
    found = torch.zeros_like(spectra)
    for half in (0, VIEWS):
        now = (views[None] + start + half) % (2 * VIEWS)
        down, right, turn = (course[:, k].gather(1, now) for k in range(3))
        angle = views[None] * (math.pi / VIEWS)
        place = views[None] - turn * (VIEWS / math.pi)
        low = place.floor()
        share = (place - low)[:, :, None]
        one, two = (both.gather(1, (p.long() % (2 * VIEWS))[:, :, None].expand(-1, -1, both.shape[2])) for p in (low, low + 1))
        shift = right * torch.cos(angle) + down * torch.sin(angle)
        found += 0.5 * (one * (1 - share) + two * share) * torch.exp(-2j * math.pi * shift[:, :, None] * frequency)
    return found


def motion(image: Tensor, spacing_mm: Tensor, rms_hu: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Motion during one rotation whose image error is `rms_hu` (B,) inside tissue of (B,H,W) HU; it grows until the error is met."""
    shape = tuple(image.shape[1:])
    mask = tissue_mask(image, modality)
    pixel_mm = spacing_mm.to(image.device).amax(1) * max(shape) / GRID
    fan = rays(GRID, VIEWS, 2 * GRID, str(image.device))
    spectra = fan.project(patient(to_grid(image, GRID)))
    start = torch.randint(0, 2 * VIEWS, (len(image), 1), generator=generator, device=image.device)
    unit = courses(len(image), generator, image.device) * torch.stack([1 / pixel_mm, 1 / pixel_mm, torch.full_like(pixel_mm, math.radians(0.5))], 1)[..., None]
    limit = torch.stack([LARGEST_MM / pixel_mm, LARGEST_MM / pixel_mm, torch.full_like(pixel_mm, LARGEST_TURN)], 1)
    most = (limit / (unit.amax(2) - unit.amin(2)).clamp(min=1e-6)).amin(1)
    size = torch.ones_like(pixel_mm)
    difference = torch.zeros_like(image)
    for attempt in range(TRIES):
        difference = from_grid(fan.back_project((_moved(spectra, unit * size[:, None, None], start, fan) - spectra) * fan.ramp()), shape) * 1000.0
        if attempt < TRIES - 1:
            size = torch.minimum(size * (rms_hu / rms(difference, mask).clamp(min=1e-6)).clamp(0.1, 10.0), most)
    return add_scaled(image, difference, rms_hu, mask, modality)
