"""Structured error inside tissue: what rings and straight lines hold of the fine residual beyond what noise would put there by chance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qa_engine.measures.tissue import smooth

STRUCTURE_NAMES = ("ring", "straight_max", "straight_median", "line_axes")
ANGLES = 24
LEAST_PIXELS = 24
"""Rings and lines with fewer pixels of tissue are left out."""
_LARGEST = 4.0
"""Residuals beyond so many root mean squares are edges and are cut."""


def _coherence(values: Tensor, place: Tensor, bins: int) -> Tensor:
    """Of bins (A,P) of P values of mean square 1: logarithm (A,) of the mean of n * mean^2 over the bins, 0 for white noise."""
    count = torch.zeros(len(place), bins, device=values.device).scatter_add_(1, place, torch.ones_like(place, dtype=values.dtype))
    total = torch.zeros_like(count).scatter_add_(1, place, values.expand(len(place), -1))
    kept = (count >= LEAST_PIXELS).to(values.dtype)
    square = (total.square() / count.clamp(min=1) * kept).sum(1) / kept.sum(1).clamp(min=1)
    return square.clamp(min=1e-2).log()


def structure_measures(image: Tensor, mask: Tensor) -> Tensor:
    """(B,H,W) in measuring units and its tissue mask -> (B, len(STRUCTURE_NAMES)): coherence of rings about the middle of the field, largest
    and median coherence of straight lines over ANGLES directions, and that of rows or columns over the median."""
    residual = image - smooth(image, 5)
    found = []
    for one, inside in zip(residual, mask, strict=True):
        y, x = inside.nonzero(as_tuple=True)
        if len(y) < 4 * LEAST_PIXELS:
            found.append(torch.zeros(len(STRUCTURE_NAMES), device=image.device))
            continue
        values = one[y, x]
        values = values - values.mean()
        scale = values.square().mean().sqrt().clamp(min=1e-6)
        values = (values / scale).clamp(-_LARGEST, _LARGEST)
        values = values / values.square().mean().sqrt().clamp(min=1e-6)
        height, width = one.shape
        y, x = y.to(image.dtype) - (height - 1) / 2, x.to(image.dtype) - (width - 1) / 2
        size = math.ceil(math.hypot(height, width)) + 2
        ring = _coherence(values, torch.hypot(y, x).round().long()[None], size)
        angle = torch.arange(ANGLES, device=image.device) * (math.pi / ANGLES)
        step = max(1, len(y) // 40000)
        lines = (x[None, ::step] * torch.cos(angle)[:, None] + y[None, ::step] * torch.sin(angle)[:, None]).round().long() + size // 2
        straight = _coherence(values[::step], lines, size)
        middle = straight.median()
        found.append(torch.stack([ring[0], straight.max(), middle, torch.maximum(straight[0], straight[ANGLES // 2]) - middle]))
    return torch.stack(found)
