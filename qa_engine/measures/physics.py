"""Noise and width of a slice as received, in physical units: what labels, network and report all start from.

Noise of CT: mode of the 7 x 7 local standard deviation about a plane, in soft tissue away from edges, HU (after Christianson 2015, Kuo 2024). Noise of MR: calm
noise on the acquired matrix, as a share of the tissue signal. Width: 25 % quantile of range over steepest slope at the strongest edges, mm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.measures.edges import edge_widths
from qa_engine.measures.noise import acquired_noise, calm_noise, local_std, noise_mode, plane_std
from qa_engine.measures.skin_edge import skin_edge_width
from qa_engine.measures.tissue import masked_quantile, smooth

DIRECT_NAMES = ("noise_estimate", "width_estimate")
PHYSICS_NAMES = (*DIRECT_NAMES, "calm", "calm_acquired", "limit_rows", "limit_columns", "common_noise", "edge_width", "skin_width", "skin_seen")
CALM_SHARE = 0.35
"""Share of soft tissue, where it changes least, in which CT noise is looked for: fat beside muscle has a mode of its own."""
WITNESS = 0.87
"""Noise from the difference of neighbouring slices over that of the mode: 54 CT series whose slices do not overlap (rho 0.98)."""
REFERENCE_WIDTH_MM = {"CT": 1.8, "MR": 2.0}
RESOLUTION_EXPONENT = {"CT": 1.5, "MR": 2.0}
"""Noise is compared as the same dose or scan time would show it at the reference width. CT: variance ~ 1 / (dose * width^3) (Brooks and Di
Chiro 1976, Med Phys 3:237). MR: signal to noise ~ area of the voxel. So a sharp kernel is not called noisy for resolving more, and smoothing
takes no noise away."""
COMMON_WIDTH_MM, COMMON_WINDOW_MM, COMMON_QUANTILE = 2.4, 7.0, 0.25
_FWHM_PER_SIGMA = 2.3548
SMOOTHED = 0.55
"""What the 3 x 3 mean before the edges adds to their width, over its own size; taken off in quadrature."""


@dataclass(frozen=True)
class Physics:
    """Of B slices, each (B,): noise as measured (HU, or thousandths of tissue signal on the acquired matrix), calm noise on the matrix as it
    is, and what compares slices: `stated` noise (HU, or share of tissue signal, at the reference width) and width (mm). limits (B,2):
    acquired share of the Nyquist frequency, 1 for CT. common: noise (as `noise`) after smoothing to COMMON_WIDTH_MM, which blur hardly
    changes. edge: width (mm) at edges inside the image; skin: width (mm) at the skin, 0 where it cannot be told."""

    noise: Tensor
    calm: Tensor
    stated: Tensor
    width: Tensor
    limits: Tensor
    common: Tensor
    edge: Tensor
    skin: Tensor

    def logarithms(self) -> Tensor:
        """(B, len(PHYSICS_NAMES))."""
        seen = self.skin > 0
        rows = [self.stated, self.width, self.calm, self.noise, self.limits[:, 0], self.limits[:, 1], self.common, self.edge,
                torch.where(seen, self.skin, self.edge)]
        return torch.cat([torch.stack(rows, 1).clamp(min=1e-4).log(), seen[:, None].to(self.noise.dtype)], 1)


def reference_factor(width_mm: Tensor, modality: str) -> Tensor:
    """(B,) factor from noise as it is to noise at the reference width."""
    return (width_mm / REFERENCE_WIDTH_MM[modality]) ** RESOLUTION_EXPONENT[modality]


def common_noise(unit: Tensor, mask: Tensor, width_mm: Tensor, spacing_mm: Tensor) -> Tensor:
    """(B,) noise in calm tissue once each slice (B,H,W) of width (B,) is smoothed to COMMON_WIDTH_MM: a blur before makes little difference."""
    found = []
    for one, inside, width, mm in zip(unit, mask, width_mm, spacing_mm, strict=True):
        soft = one[None, None]
        extra = math.sqrt(max(COMMON_WIDTH_MM ** 2 - float(width) ** 2, 0.0)) / _FWHM_PER_SIGMA
        for axis in (0, 1):
            sigma = extra / float(mm[axis])
            if sigma > 0.2:
                reach = min(math.ceil(3 * sigma), one.shape[axis] - 1)
                place = torch.arange(-reach, reach + 1, device=unit.device, dtype=unit.dtype)
                kernel = torch.exp(-0.5 * (place / sigma).square())
                shape, pad = ((1, 1, -1, 1), (0, 0, reach, reach)) if axis == 0 else ((1, 1, 1, -1), (reach, reach, 0, 0))
                soft = F.conv2d(F.pad(soft, pad, mode="reflect"), (kernel / kernel.sum()).reshape(shape))
        size = max(3, 2 * round(COMMON_WINDOW_MM / float(mm.mean()) / 2) + 1)
        size = min(size, (min(one.shape) - 1) // 2 * 2 - 1)
        found.append(masked_quantile(plane_std(soft[0], size), inside[None], COMMON_QUANTILE)[0])
    return torch.stack(found)


def physics_of(unit: Tensor, mask: Tensor, spacing_mm: Tensor, modality: str) -> Physics:
    """From slices (B,H,W) in measuring units and their tissue masks, spacing (B,2) mm."""
    edge = edge_widths(smooth(unit, 3), spacing_mm, (0.25,))[:, 0]
    edge = (edge.square() - (SMOOTHED * 3 * spacing_mm.mean(1)).square()).clamp(min=0.09).sqrt()
    found = [skin_edge_width(one, mm, modality) for one, mm in zip(unit, spacing_mm, strict=True)]
    skin = torch.tensor([w or 0.0 for w in found], dtype=edge.dtype, device=edge.device).clamp(max=30.0)
    calm = calm_noise(unit, mask)
    if modality != "CT":
        noise, limits = acquired_noise(unit, mask)
        return Physics(noise, calm, noise / 1000.0 * reference_factor(edge, modality), edge, limits,
                       common_noise(unit, mask, edge, spacing_mm), edge, skin)
    noise, width = noise_mode(unit, calm_tissue(unit, mask)), torch.where(skin > 0, skin, edge)
    return Physics(noise, calm, WITNESS * noise * reference_factor(width, modality), width, torch.ones_like(spacing_mm),
                   common_noise(unit, mask, width, spacing_mm), edge, skin)


def calm_tissue(unit: Tensor, mask: Tensor) -> Tensor:
    """Where CT noise is looked for (B,H,W): the share CALM_SHARE of soft tissue that changes least."""
    change = local_std(smooth(smooth(unit, 5), 3), 7)
    return mask & (change <= masked_quantile(change, mask, CALM_SHARE)[:, None, None])
