"""Sparse-view streaks: filtered back-projection of too few views, the difference to all views added to the slice."""

from __future__ import annotations

import torch
from torch import Tensor

from qa_engine.measures.tissue import tissue_mask
from qa_engine.simulation.degradations.chain import add_scaled
from qa_engine.simulation.degradations.ct_rays import from_grid, rays, to_grid
from qa_engine.simulation.degradations.damage import AddedDamage

GRID = 256
"""Pixels a side at which the streaks are made; they are smooth enough to be enlarged."""
VIEWS = 384


def streaks(image: Tensor, spacing_mm: Tensor, rms_hu: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Add the streaks of 1 in 4 to 1 in 8 views, scaled to `rms_hu` (B,) inside tissue of (B,H,W) HU."""
    mask = tissue_mask(image, modality)
    every = torch.randint(4, 9, (len(image), 1), generator=generator, device=image.device)
    first = (torch.rand((len(image), 1), generator=generator, device=image.device) * every).long()
    fan = rays(GRID, VIEWS, 2 * GRID, str(image.device))
    filtered = fan.project(to_grid(image, GRID)) * fan.ramp()
    kept = (torch.arange(VIEWS, device=image.device)[None] % every == first) * every
    difference = from_grid(fan.back_project(filtered * (kept - 1)[:, :, None]), tuple(image.shape[1:]))
    return add_scaled(image, difference, rms_hu, mask, modality)
