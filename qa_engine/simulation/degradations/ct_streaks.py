"""Sparse-view streaks: filtered back-projection of too few views, the difference to all views added to the slice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.measures.tissue import rms, tissue_mask, tissue_signal
from qa_engine.simulation.ct_projection import back_project, filter_projections, project
from qa_engine.simulation.degradations.chain import finish
from qa_engine.simulation.degradations.damage import AddedDamage

GRID = 192
"""Pixels a side at which the streaks are made; they are smooth enough to be enlarged."""
VIEWS = 320


def streaks(image: Tensor, spacing_mm: Tensor, rms_hu: Tensor, generator: torch.Generator, modality: str) -> tuple[Tensor, AddedDamage]:
    """Add the streaks of 1 in 4 to 1 in 8 views, scaled to `rms_hu` (B,) inside tissue of (B,H,W) HU."""
    mask = tissue_mask(image, modality)
    small = F.interpolate(image[:, None], size=(GRID, GRID), mode="area")[:, 0].clamp(-1000, 2000) / 1000.0 + 1.0
    every = int(torch.randint(4, 9, (1,), generator=generator).item())
    first = int(torch.randint(0, every, (1,), generator=generator).item())
    filtered = filter_projections(project(small, VIEWS), "hann")
    sparse = torch.zeros_like(filtered)
    sparse[:, first::every] = filtered[:, first::every] * every
    difference = back_project(sparse - filtered, GRID)
    difference = F.interpolate(difference[:, None], size=image.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    difference = difference / rms(difference, mask).clamp(min=1e-9)[:, None, None]
    damage = AddedDamage.none(tissue_signal(image, modality, mask))
    added = rms_hu.to(image.dtype)
    return finish(image, image + added[:, None, None] * difference, modality), AddedDamage(
        damage.noise_sd, damage.width_mm, added, damage.signal, damage.noise_gain)
