"""Likeness of a slice to its undegraded self: HaarPSI and VIF in the pixel domain. Ranks within one content, never a label of quality.

Images are mapped to 0..1 by a fixed window first (`windowed`); a shift of one pixel costs a quarter of HaarPSI.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.measures.tissue import masked_quantile

HAARPSI_C, HAARPSI_ALPHA = 5.0, 4.9
"""Constants for medical images (Karner et al. 2024, arXiv 2410.24098); natural images: 30 and 4.2 (Reisenhofer 2018)."""
VIF_NOISE = 2.0
SOFT_HU, LUNG_HU = (-160.0, 240.0), (-1350.0, 150.0)


def windowed(image: Tensor, reference: Tensor, modality: str, purpose: str = "") -> tuple[Tensor, Tensor]:
    """Degraded and reference slices (B,H,W) -> both in 0..1 by one window: HU of the purpose, or 0 to the reference's 99.5 % quantile (MR)."""
    if modality == "CT":
        low, high = (torch.full((len(reference), 1, 1), v) for v in (LUNG_HU if purpose == "lung" else SOFT_HU))
    else:
        high = masked_quantile(reference, torch.ones_like(reference, dtype=torch.bool), 0.995)[:, None, None].clamp(min=1e-6)
        low = torch.zeros_like(high)
    return tuple(((one - low) / (high - low)).clamp(0, 1) for one in (image, reference))  # type: ignore[return-value]


def _haar(image: Tensor, scale: int) -> Tensor:
    """(B,1,H,W) -> (B,2,H,W) absolute Haar coefficients of both orientations at `scale` (1, 2, 3), zeros beyond the edge."""
    side = 2 ** scale
    kernel = torch.full((side, side), 2.0 ** -scale, device=image.device, dtype=image.dtype)
    kernel[side // 2:] *= -1
    filters = torch.stack([kernel, kernel.T])[:, None]
    before = side // 2 - 1
    return F.conv2d(F.pad(image, (before, side - 1 - before, before, side - 1 - before)), filters).abs()


def haarpsi(image: Tensor, reference: Tensor, c: float = HAARPSI_C, alpha: float = HAARPSI_ALPHA) -> Tensor:
    """Haar wavelet perceptual similarity (B,) of slices (B,H,W) in 0..1, 1 where they agree; symmetric (Reisenhofer 2018)."""
    halved = []
    for one in (image, reference):
        one = F.pad(255.0 * one[:, None], (0, one.shape[2] % 2, 0, one.shape[1] % 2), mode="replicate")
        halved.append(F.avg_pool2d(one, 2))
    likeness, weight = torch.zeros_like(halved[0]).repeat(1, 2, 1, 1), None
    for scale in (1, 2):
        a, b = (_haar(one, scale) for one in halved)
        likeness = likeness + (2 * a * b + c) / (a.square() + b.square() + c) / 2
    weight = torch.maximum(*(_haar(one, 3) for one in halved))
    mean = (torch.sigmoid(alpha * likeness) * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-12)
    mean = torch.where(weight.sum((1, 2, 3)) > 0, mean, torch.sigmoid(torch.tensor(alpha)))
    return (torch.logit(mean.clamp(0.5, 1 - 1e-7)) / alpha).square()


def _smoother(length: int, size: int, like: Tensor) -> Tensor:
    """(length - size + 1, length) matrix that smooths a line by a Gaussian of size / 5 pixels, valid part only."""
    x = torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
    line = torch.exp(-x.square() / (2 * (size / 5.0) ** 2))
    rows = length - size + 1
    places = torch.arange(rows, device=like.device)[:, None] + torch.arange(size, device=like.device)
    return torch.zeros(rows, length, device=like.device, dtype=like.dtype).scatter_(1, places, (line / line.sum()).expand(rows, size))


def vif(image: Tensor, reference: Tensor, noise: float = VIF_NOISE) -> Tensor:
    """Visual information fidelity (B,) in the pixel domain over four scales, of slices (B,H,W) in 0..1; above 1 where contrast was gained,
    not symmetric (Sheikh and Bovik 2006)."""
    # variances are small differences of large squares: single precision costs the fourth digit
    x, y = 255.0 * reference.double(), 255.0 * image.double()
    kept, sent, tiny = x.new_zeros(len(x)), x.new_zeros(len(x)), 1e-8
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        if min(x.shape[1:]) < size:
            break
        across, down = _smoother(x.shape[1], size, x), _smoother(x.shape[2], size, x).T
        if scale:
            x, y = ((across @ one @ down)[:, ::2, ::2].contiguous() for one in (x, y))
            if min(x.shape[1:]) < size:
                break
            across, down = _smoother(x.shape[1], size, x), _smoother(x.shape[2], size, x).T
        mean_x, mean_y = across @ x @ down, across @ y @ down
        var_x = (across @ (x * x) @ down - mean_x.square()).clamp(min=0)
        var_y = (across @ (y * y) @ down - mean_y.square()).clamp(min=0)
        both = across @ (x * y) @ down - mean_x * mean_y
        gain = (both / (var_x + tiny)).masked_fill((var_x < tiny) | (var_y < tiny), 0.0).clamp(min=0)
        rest = torch.where(gain > 0, var_y - gain * both, var_y).clamp(min=tiny)
        kept = kept + torch.log10(1 + gain.square() * var_x / (rest + noise)).sum((1, 2))
        sent = sent + torch.log10(1 + var_x / noise).sum((1, 2))
    return ((kept + tiny) / (sent + tiny)).to(image.dtype)
