"""Edge width in mm: range across an edge over its steepest slope, at the strongest edges (0.94 makes it the FWHM of a Gaussian PSF)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.measures.tissue import highest, smooth

EDGE_NAMES = ("width_q10", "width_q25", "width_q50", "gradient_ratio1", "gradient_ratio2", "gradient_q99", "gradient_q90", "gradient_kurtosis")
_FACTOR = 0.94
_STRONGEST = 0.985
_REACH = 5


def gradient(image: Tensor, spacing_mm: Tensor) -> Tensor:
    """Gradient magnitude (B,H,W) per mm, central differences."""
    padded = F.pad(image[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    gy = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / (2 * spacing_mm[:, 0, None, None])
    gx = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / (2 * spacing_mm[:, 1, None, None])
    return torch.hypot(gy, gx)


def edge_widths(image: Tensor, spacing_mm: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Quantiles (B, len) of the edge width in mm over the strongest 1.5 % of pixels that are local maxima of the gradient."""
    slope = gradient(image, spacing_mm)
    size = 2 * _REACH + 1
    high, low, steepest = highest(image, size), -highest(-image, size), highest(slope, 5)
    flat = slope.flatten(1)
    k = max(1, int(flat.shape[1] * _STRONGEST))
    threshold = flat.kthvalue(k, dim=1).values[:, None, None]
    chosen = (slope >= threshold) & (slope >= steepest) & (slope > 0)
    width = _FACTOR * (high - low) / slope.clamp(min=1e-6)
    rows = []
    for one, inside in zip(width, chosen, strict=True):
        values = one[inside]
        wanted = torch.tensor(quantiles, device=image.device, dtype=image.dtype)
        rows.append(values.quantile(wanted) if values.numel() else torch.ones_like(wanted))
    return torch.stack(rows).clamp(0.1, 30.0)


def edge_measures(image: Tensor, calm: Tensor, spacing_mm: Tensor) -> Tensor:
    """(B,H,W) in measuring units and its 3 x 3 mean -> (B, len(EDGE_NAMES)); logarithms."""
    widths = edge_widths(calm, spacing_mm, (0.1, 0.25, 0.5)).log()
    fine, middle, coarse = gradient(image, spacing_mm), gradient(calm, spacing_mm), gradient(smooth(image, 7), spacing_mm)

    def top(slope: Tensor, q: float) -> Tensor:
        step = 2 if slope.shape[1] > 200 else 1
        flat = slope[:, ::step, ::step].flatten(1)
        return flat.kthvalue(max(1, int(flat.shape[1] * q)), dim=1).values.clamp(min=1e-3)

    one, two, three = top(fine, 0.99), top(middle, 0.99), top(coarse, 0.99)
    values = middle.flatten(1)
    second = values.square().mean(1).clamp(min=1e-6)
    kurtosis = (values.pow(4).mean(1) / second.square()).clamp(min=1)
    rest = torch.stack([one / two, two / three, two, top(middle, 0.9), kurtosis], 1)
    return torch.cat([widths, rest.clamp(min=1e-6).log()], 1)
