"""Width of the edge between air and skin: a measure of the point spread that looks at nothing but outlines.

Profiles along the normals of the outline are aligned at half height; their median is the edge spread function, and its height over its
steepest slope, times 0.94, is the full width at half maximum of a Gaussian point spread (Sanders 2016 uses the same profiles for the transfer
function). Clothes, table and cut outlines spoil profiles: those that do not run from air into tissue are left out, and there is no value
with too few of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.measures.tissue import highest, smooth

REACH_MM, STEP_MM, CLEAR_MM = 7.0, 0.1, 4.0
"""Profiles reach so far to either side; they are air from CLEAR_MM outside on and tissue up to CLEAR_MM inside."""
PROFILES, LEAST_PROFILES = 800, 60
AIR, TISSUE = 0.15, 0.5
"""Of the height of the edge (CT: water above air): a profile is below AIR outside; MR tissue is at least TISSUE of the tissue signal."""
_FWHM_OF_GAUSSIAN = 0.94


def _outline(unit: Tensor, half: float) -> Tensor:
    """(N,2) row and column of at most PROFILES pixels of tissue beside air that is clear around."""
    air = (unit < half).float()[None]
    clear = -highest(-(unit < 0.5 * half).float()[None], 5)
    chosen = ((highest(air, 3) > 0) & (highest(clear, 19) > 0) & (air == 0))[0].nonzero()
    return chosen[::max(1, math.ceil(len(chosen) / PROFILES))]


def _profiles(unit: Tensor, points: Tensor, spacing_mm: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Values (N,D) along the normals, outside first, and which profiles stay inside the image (N,)."""
    height, width = unit.shape
    soft = smooth(unit[None].clamp(max=1.5), 7)[0]
    y, x = points[:, 0].clamp(1, height - 2), points[:, 1].clamp(1, width - 2)
    normal = torch.stack([(soft[y + 1, x] - soft[y - 1, x]) / spacing_mm[0], (soft[y, x + 1] - soft[y, x - 1]) / spacing_mm[1]], 1)
    normal = normal / normal.norm(dim=1, keepdim=True).clamp(min=1e-6)
    place = points[:, None].float() + distance[None, :, None] * (normal / spacing_mm)[:, None]
    grid = (2.0 * (place + 0.5) / torch.tensor([height, width], device=unit.device) - 1.0).flip(-1)
    return F.grid_sample(unit[None, None], grid[None], mode="bilinear", align_corners=False)[0, 0], (grid.abs() < 0.99).all(2).all(1)


def skin_edge_width(image: Tensor, spacing_mm: Tensor, modality: str) -> float | None:
    """mm, of one slice (H,W) in measuring units (HU; MR: tissue signal = 1000) with spacing (2,); None where it cannot be told."""
    unit = (image + 1000.0) / 1000.0 if modality == "CT" else image / 1000.0
    points = _outline(unit, 0.5 if modality == "CT" else 0.25)
    if len(points) < LEAST_PROFILES:
        return None
    distance = torch.arange(-REACH_MM, REACH_MM + STEP_MM / 2, STEP_MM, device=image.device)
    profile, inside = _profiles(unit, points, spacing_mm, distance)
    if modality == "CT":
        base, top = torch.zeros_like(profile[:, 0]), torch.ones_like(profile[:, 0])
        tissue = profile[:, distance > CLEAR_MM].min(1).values > TISSUE
    else:
        base = profile[:, distance < -CLEAR_MM].mean(1)
        top = profile[:, (distance > 0) & (distance < CLEAR_MM)].max(1).values
        tissue = top > TISSUE
    height = (top - base).clamp(min=1e-3)
    above = profile >= ((base + top) / 2)[:, None]
    middle, reach = len(distance) // 2, round(3.0 / STEP_MM)
    rises = (above[:, middle - reach:middle + reach] & ~above[:, middle - reach - 1:middle + reach - 1]).float()
    clear = inside & tissue & (rises.sum(1) == 1) & (profile[:, distance < -CLEAR_MM].max(1).values < base + AIR * height)
    if int(clear.sum()) < LEAST_PROFILES:
        return None
    span = middle - reach
    index = (rises.argmax(1) + middle - reach)[clear, None] + torch.arange(-span, span + 1, device=image.device)
    aligned = ((profile - base[:, None]) / height[:, None])[clear].gather(1, index)
    spread = aligned.median(0).values
    return _FWHM_OF_GAUSSIAN / float(((spread[4:] - spread[:-4]) / (4 * STEP_MM)).max().clamp(min=1e-3))
